"""`kgate sbom` and `kgate sbom push`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option
from kgate_cli.sbomsource import Named, read_sbom
from kgate_cli.scanning import image_options
from kgate_core.errors import NotFound

if TYPE_CHECKING:
    from kgate_cli.output import Output

FORMATS = ("cyclonedx", "spdx")
PROFILES = ("full", "inventory", "bsi")


class _PrintsByDefault(click.Group):
    """`kgate sbom X` means `kgate sbom print X`, unless X is a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if not args or args[0] in known else ["print", *args])


@click.group(cls=_PrintsByDefault, no_args_is_help=True)
def command() -> None:
    """Print the SBOM of a mirrored kernel or of a path, or send it on.

    `kgate sbom REF|PATH` prints; `kgate sbom print --help` lists its options.

    \b
    Examples:
      kgate sbom kernels-community/activation@v1 --variant torch-cpu > activation.cdx.json
      kgate sbom vllm-0.33.0-cp311-cp311-linux_x86_64.whl --format spdx > vllm.spdx.json
      kgate sbom sha256:6cdd… --profile bsi --creator sbom@example.org
      kgate sbom push ./build/torch-cpu --dtrack https://dtrack.example.org --key-file dtrack.key
    """


@command.command("print")
@click.argument("named", metavar="REF|PATH")
@click.option("--variant", help="Build variant; may be left out if there is only one.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="cyclonedx",
    show_default=True,
    help="CycloneDX 1.6, or SPDX 2.3 (both JSON).",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="full",
    show_default=True,
    help="full; inventory: flat, survives conversions; bsi: the fields of BSI TR-03183-2 v2.1.",
)
@click.option("--creator", metavar="ADDRESS", help="Who makes the document, for --profile bsi.")
@click.option(
    "--vulnerabilities",
    is_flag=True,
    help="Add what advisories said, with analysis; no longer the attested bytes.",
)
@image_options
@config_option
@json_option
def print_sbom(
    named: str,
    variant: str | None,
    form: str,
    profile: str,
    creator: str | None,
    vulnerabilities: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `image_options`
) -> int:
    """Print an SBOM: of a mirrored kernel as it was attested, or of a path, scanned now.

    REF is org/name, org/name@v1, org/name@<commit> or the digest of a manifest. PATH is anything
    that `kgate scan` reads, an image in a registry as oci://HOST/NAME:TAG. Equal input gives equal
    bytes; SOURCE_DATE_EPOCH dates a path's.

    \b
    Examples:
      kgate sbom kernels-community/activation@v1 --variant torch-cpu > activation.cdx.json
      kgate sbom kernels-community/activation@v1 --variant torch-cpu --vulnerabilities
      kgate sbom print ./libkernel.so --format spdx
      kgate sbom oci://registry.example/ai/vllm:1.2 --platform linux/arm64
      kgate sbom ./build/torch-cpu --profile bsi --creator https://example.org/sbom
    """
    if form == "spdx" and (profile != "full" or vulnerabilities):
        raise click.UsageError("SPDX has one view here: leave --profile and --vulnerabilities out")
    if vulnerabilities and profile != "full":
        raise click.UsageError(f"the view {profile} holds no vulnerabilities")
    if profile == "bsi" and creator is None:
        raise click.UsageError("--profile bsi needs --creator, an e-mail or web address")
    source = read_sbom(named, variant, config_path, access, output, sha512=profile == "bsi")
    data = _with_vulnerabilities(source) if vulnerabilities else source.data
    data = _viewed(data, source, form, profile, creator or "")
    if output.as_json:
        output.result("sbom", {"format": form, "profile": profile, "sbom": json.loads(data)})
    else:
        sys.stdout.write(data.decode("utf-8"))
    return exits.YES


@command.command("push")
@click.argument("named", metavar="REF|PATH")
@click.option("--variant", help="Build variant; may be left out if there is only one.")
@click.option("--dtrack", required=True, metavar="URL", help="The API server of Dependency-Track.")
@click.option(
    "--project",
    metavar="NAME[@VERSION]",
    help="Its project; otherwise name and version of the subject.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar="KGATE_DTRACK_KEY_FILE",
    help="File with an API key that may upload BOMs and create projects.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until it was processed; 0 does not ask.",
)
@image_options
@config_option
@json_option
def push_sbom(
    named: str,
    variant: str | None,
    dtrack: str,
    project: str | None,
    key_file: Path | None,
    wait: float,
    config_path: Path,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `image_options`
) -> int:
    """Send an SBOM to Dependency-Track, and wait until it was taken in.

    The flat view is sent (see --profile inventory). SSL_CERT_FILE names a private CA.

    \b
    Examples:
      kgate sbom push kernels-community/activation@v1 --variant torch-cpu \\
        --dtrack https://dtrack.example.org --key-file dtrack.key
    """
    from kgate_mirror_server.dependencytrack import DependencyTrack
    from kgate_scanner.sbom_profiles import as_inventory

    source = read_sbom(named, variant, config_path, access, output, sha512=False)
    root = json.loads(source.data)["metadata"]["component"]
    title, _, version = (project or "").partition("@")
    title = title or "/".join(root[key] for key in ("group", "name") if root.get(key))
    version = version or str(root.get("version", ""))
    server = DependencyTrack(dtrack, key_file)
    taken = server.upload(as_inventory(source.data), title, version)
    done = wait > 0 and server.wait(taken, wait)
    output.result(
        "sbom-push",
        {"project": title, "version": version, "token": taken, "processed": done},
    )
    output.plain(f"{title} {version}: sent to {dtrack}, {'processed' if done else 'in its queue'}")
    return exits.YES


def _viewed(data: bytes, source: Named, form: str, profile: str, creator: str) -> bytes:
    from kgate_scanner.sbom_profiles import as_bsi, as_inventory
    from kgate_scanner.spdx import write_spdx

    if form == "spdx":
        return write_spdx(data)
    if profile == "inventory":
        return as_inventory(data)
    if profile == "bsi":
        return as_bsi(data, creator=creator, sha512=source.sha512)
    return data


def _with_vulnerabilities(source: Named) -> bytes:
    from kgate_scanner.advisories.cyclonedx import with_vulnerabilities

    if source.vulnerabilities is None:
        raise NotFound(
            "it was compared with no advisories",
            hint="take some in with `kgate feed import`, then run `kgate sync`",
        )
    return with_vulnerabilities(source.data, source.vulnerabilities)
