"""`kgate show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kgate_cli.commands.ls import denial_json, publication_json
from kgate_cli.options import config_option, json_option, open_mirror
from kgate_cli.output import size
from kgate_cli.vulnerabilities import show_vulnerabilities
from kgate_core.clock import write_time
from kgate_mirror_server.ingest.statements import qualification_facts
from kgate_mirror_server.ports import EvidenceKind

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.evidence import Facts
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Denial, Publication, PublishedVariant


@click.command()
@click.argument("reference", metavar="REF")
@config_option
@json_option
def command(reference: str, config_path: Path, output: Output) -> int:
    """Show everything known about one kernel.

    REF is org/name, org/name@v1, org/name@<commit> or the digest of a manifest.

    \b
    Examples:
      kgate show kernels-community/activation@v1
      kgate show sha256:6cdd…
    """
    from kgate_mirror_server.inventory import find

    with open_mirror(config_path) as mirror:
        found = find(mirror.catalog, reference)
        output.result("show", _to_json(mirror, found.publications, found.denials))
        if output.as_json:
            return 0
        for publication in found.publications:
            _show_publication(output, mirror, publication)
        for denial in found.denials:
            _show_denial(output, denial)
    return 0


def _to_json(
    mirror: Mirror, publications: tuple[Publication, ...], denials: tuple[Denial, ...]
) -> dict[str, Any]:
    shown = []
    for item in publications:
        document: dict[str, Any] = publication_json(item)
        for variant in item.variants:
            room = mirror.room
            document["variants"][variant.variant] |= {
                "scan": room.scan(variant.evidence).summary,
                "findings": [f.to_json() for f in room.scan(variant.evidence).findings],
                "vulnerabilities": room.stated(variant.evidence).get("vulnerabilities"),
                "qualification": _qualification(mirror, variant),
                "decision": room.decision(variant.evidence).to_json(),
                "import": room.imported(variant.evidence).to_json(),
            }
        shown.append(document)
    return {"published": shown, "denied": [denial_json(item) for item in denials]}


def _show_publication(output: Output, mirror: Mirror, item: Publication) -> None:
    version = f" v{item.version}" if item.version is not None else ""
    output.say(f"[bold]{item.repo}{version}[/bold]  published in lane {item.lane}")
    output.say(f"  served    {item.served}")
    output.say(f"  upstream  {item.upstream}  from {item.origin}")
    output.say(f"  since     {write_time(item.published_at)}")
    if item.depends:
        output.say(f"  loads     {', '.join(item.depends)}")
    for variant in item.variants:
        scan = mirror.room.scan(variant.evidence)
        decision = mirror.room.decision(variant.evidence)
        device = scan.summary.get("device", {})
        archs = sorted(arch for group in device.get("archs", {}).values() for arch in group)
        output.say(f"  [bold]{variant.variant}[/bold]")
        output.say(f"    manifest  {variant.manifest}")
        output.say(
            f"    files     {len(variant.files)}, {size(sum(f.size for f in variant.files))}"
        )
        output.say(
            f"    device    {' '.join(archs) or 'none'}"
            + (f" · {device.get('kernels', 0)} kernels" if archs else "")
        )
        output.say(
            f"    decision  allowed by policy {decision.policy} ({decision.policy_digest.short}…)"
        )
        for warning in decision.warnings:
            output.say(f"    warning   {warning.rule}: {warning.seen}")
        for finding in scan.findings:
            output.say(
                f"    finding   {finding.severity.label} {finding.rule} {finding.path}: "
                f"{finding.seen}"
            )
        show_vulnerabilities(output, mirror.room.vulnerabilities(variant.evidence))
        if (said := _qualification(mirror, variant)) is not None:
            output.plain(f"    qualified {_sentence(said)}")
        output.say(
            f"    evidence  {', '.join(str(k) for k in EvidenceKind if k in variant.evidence)}"
            f" and {len(variant.bundles)} signed bundles"
        )


def _qualification(mirror: Mirror, variant: PublishedVariant) -> Facts | None:
    digest = variant.evidence.get(EvidenceKind.QUALIFICATION)
    return None if digest is None else qualification_facts(mirror.room.read(digest), digest)


def _sentence(said: Facts) -> str:
    numbers = "numbers equal" if said["passed"] else "NUMBERS NOT EQUAL"
    speed = (
        f", {said['speedupPpm'] // 10_000} % of the fallback's speed"
        if "speedupPpm" in said
        else ""
    )
    return f"{numbers}{speed} on {said.get('gpu', 'an unnamed machine')}, says {said['submitter']}"


def _show_denial(output: Output, item: Denial) -> None:
    version = f" v{item.version}" if item.version is not None else ""
    output.say(f"[bold]{item.repo}{version}[/bold]  {item.variant}  denied in lane {item.lane}")
    output.say(f"  upstream  {item.upstream}  from {item.origin}")
    for reason in item.reasons:
        output.say(f"  {reason['rule']}: {reason['seen']}")
        if reason.get("hint"):
            output.say(f"    → {reason['hint']}")
