"""`kgate sbom`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, open_mirror
from kgate_core.errors import NotFound
from kgate_mirror_server.ports import EvidenceKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.digest import Digest
    from kgate_core.vulnerabilities import VulnerabilityReport
    from kgate_mirror_server.app import Mirror


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--variant", help="Build variant; may be left out if there is only one.")
@click.option(
    "--vulnerabilities",
    is_flag=True,
    help="Add what advisories said, with analysis; no longer the attested bytes.",
)
@config_option
@json_option
def command(
    reference: str,
    variant: str | None,
    vulnerabilities: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Print the CycloneDX SBOM of a mirrored kernel, byte for byte as it was attested.

    REF is org/name, org/name@v1, org/name@<commit> or the digest of a manifest.

    \b
    Examples:
      kgate sbom kernels-community/activation@v1 --variant torch-cpu > activation.cdx.json
      kgate sbom sha256:6cdd…
      kgate sbom kernels-community/activation@v1 --variant torch-cpu --vulnerabilities
    """
    with open_mirror(config_path) as mirror:
        evidence = _stored(mirror, reference, variant)
        data = mirror.room.read(evidence[EvidenceKind.SBOM])
        if vulnerabilities:
            data = _with_vulnerabilities(data, mirror.room.vulnerabilities(evidence))
    if output.as_json:
        output.result("sbom", {"sbom": json.loads(data)})
    else:
        sys.stdout.write(data.decode("utf-8"))
        sys.stdout.write("\n")
    return 0


def _with_vulnerabilities(data: bytes, report: VulnerabilityReport | None) -> bytes:
    from kgate_scanner.advisories.cyclonedx import with_vulnerabilities

    if report is None:
        raise NotFound(
            "it was compared with no advisories",
            hint="take some in with `kgate feed import`, then run `kgate sync`",
        )
    return with_vulnerabilities(data, report)


def _stored(mirror: Mirror, reference: str, variant: str | None) -> Mapping[EvidenceKind, Digest]:
    from kgate_mirror_server.inventory import find

    found = find(mirror.catalog, reference)
    known = {
        (item.repo, name.variant): name.evidence
        for item in found.publications
        for name in item.variants
        if reference in {str(name.manifest), *_not_digest(reference)}
    } | {(item.repo, item.variant): item.evidence for item in found.denials}
    chosen = [
        evidence
        for (_, name), evidence in known.items()
        if (variant is None or name == variant) and EvidenceKind.SBOM in evidence
    ]
    if len(chosen) != 1:
        names = ", ".join(sorted(name for _, name in known))
        raise NotFound(
            f"{reference}: {'no such variant' if variant else 'several variants'}",
            hint=f"name one with --variant: {names}",
        )
    return chosen[0]


def _not_digest(reference: str) -> set[str]:
    """Return the reference itself unless it is a digest, which means one variant only."""
    return set() if reference.startswith("sha256:") else {reference}
