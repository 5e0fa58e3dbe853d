"""`kgate scan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgate_cli import exits
from kgate_cli.options import json_option
from kgate_cli.scanfeed import compare, feed_options, take_feed_options
from kgate_cli.scanning import image_options, open_results, scan_target
from kgate_cli.scantable import findings_rows, matrix_rows, show_caches, show_extra, to_json
from kgate_core.evidence import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_cli.output import Output
    from kgate_scanner.paths import Scanned

LEVELS = [level.label for level in Severity]


@click.command()
@click.argument("target", metavar="PATH|IMAGE")
@image_options
@click.option(
    "--fail-on",
    type=click.Choice(LEVELS),
    default="critical",
    show_default=True,
    help="Exit with 1 from this severity on.",
)
@click.option(
    "--sarif",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the findings as SARIF 2.1.0.",
)
@click.option(
    "--device-images",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the digests of all device images, for targets: of kgate.yaml.",
)
@click.option(
    "--show",
    type=click.Choice(LEVELS),
    default="medium",
    show_default=True,
    help="List findings from this severity on.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="SBOM",
    help="Name the code that this SBOM (CycloneDX or SPDX, JSON) does not list; exit with 1.",
)
@click.option(
    "--gpus",
    multiple=True,
    metavar="GPU",
    help="A GPU you own, such as sm_90 or gfx942: say how much device code is for others.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="KGATE_SCAN_CACHE",
    help="Keep results about files here, and read only files that are new.",
)
@feed_options
@json_option
def command(  # one argument for each option
    target: str,
    fail_on: str,
    sarif: Path | None,
    device_images: Path | None,
    show: str,
    against: Path | None,
    gpus: tuple[str, ...],
    output: Output,
    **access: Any,  # noqa: ANN401  # --cache, and the options of `image_options` and `feed_options`
) -> int:
    """Look into GPU libraries, down to the code that runs on the device.

    PATH is a library, a build variant, a kernel repository, a wheel, a Hub cache, a compile cache,
    an OCI layout or any folder. IMAGE is one in a registry, read layer by layer with your own
    credentials. Nothing of it is executed.

    \b
    Examples:
      kgate scan ./build/torch213-cxx11-cu130-x86_64-linux
      kgate scan vllm-0.33.0-cp311-cp311-linux_x86_64.whl --fail-on high
      kgate scan registry.example/ai/vllm:1.2 --platform linux/arm64
      kgate scan .venv/lib/python3.11/site-packages --json
      kgate scan ~/.triton/cache
      kgate scan vllm.whl --cache ~/.cache/kgate/scan
      kgate scan ./build --feed ./product-security --fail-on high
      kgate scan ./rootfs-of-vllm --device-images images/vllm.json
      kgate scan ./rootfs-of-vllm --against vendor.cdx.json --gpus sm_90 --gpus sm_100
    """
    from kgate_scanner.relevance import check_gpu, read_listed

    owned = [check_gpu(gpu) for gpu in gpus]
    listed = None if against is None else read_listed(against.read_bytes())

    feed = take_feed_options(access)
    results = open_results(access.pop("cache"))
    scanned = scan_target(target, access, output, results)
    if sarif is not None:
        _write_sarif(sarif, scanned)
    if device_images is not None:
        _write_images(device_images, scanned)
    worst = max((item.report.worst for item in scanned), default=Severity.INFO)
    found = any(item.report.findings for item in scanned)
    ok = not (found and worst >= Severity.parse(fail_on))
    extra = _extra(scanned, listed, owned)
    if results is not None:
        extra["reused"] = results.reused
    compared = compare(scanned, *feed)
    ok = ok and not extra.get("unlisted") and not compared.reaches(Severity.parse(fail_on))
    output.result("scan", {**to_json(target, scanned), **extra, **compared.to_json()}, ok=ok)
    output.table(
        ("WHAT", "LIBRARIES", "DEVICE CODE", "IMAGES", "KERNELS", "FINDINGS"), matrix_rows(scanned)
    )
    rows = findings_rows(scanned, Severity.parse(show))
    if rows:
        output.say()
        output.table(("SEVERITY", "RULE", "WHERE", "SEEN"), rows)
        output.say("Each rule has a page in docs/rules/.")
    show_caches(scanned, output)
    show_extra(extra, output)
    compared.show(output)
    return exits.YES if ok else exits.NO


def _extra(
    scanned: Sequence[Scanned], listed: frozenset[str] | None, owned: Sequence[str]
) -> dict[str, Any]:
    from kgate_scanner.relevance import foreign_share, unlisted

    found: dict[str, Any] = {}
    if listed is not None:
        found["unlisted"] = [
            {"name": item.name, **entry.to_json()}
            for item in scanned
            for entry in unlisted(item.report, listed)
        ]
    if owned:
        share = foreign_share((item.report for item in scanned), owned)
        found["gpus"] = {"owned": list(owned), **share.to_json()}
    return found


def _write_sarif(target: Path, scanned: Sequence[Scanned]) -> None:
    from kgate_scanner.sarif import write_sarif

    target.write_bytes(write_sarif((item.name, item.report) for item in scanned))


def _write_images(target: Path, scanned: Sequence[Scanned]) -> None:
    from kgate_scanner.imagelist import write_image_list

    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(write_image_list(item.report for item in scanned))
