"""`kgate approve`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.trust.approvals import Waiting


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--yes", is_flag=True, help="Do not ask: sign what is shown.")
@config_option
@json_option
def command(
    reference: str,
    yes: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Give the second, human-held signature that the production lane needs.

    Shows what was found about each waiting variant, then signs the same claims with the approver's
    key (keys.approve in kgate.yaml). Until then the mirror does not serve it and pods refuse it.
    REF is org/name, org/name@v1, org/name@<commit> or a manifest's digest.

    \b
    Example:
      kgate approve kernels-community/activation@v1
    """
    from kgate_mirror_server.trust.approvals import approve, find_waiting

    with open_mirror(config_path, acts=True) as mirror:
        items = find_waiting(mirror, reference, now())
        _show(output, mirror, items)
        _confirm(items, yes=yes)
        approve(mirror, items, now())
    output.result(
        "approve",
        {
            "approved": [
                {
                    "repo": str(item.publication.repo),
                    "revision": str(item.publication.served),
                    "variant": item.item.variant,
                    "lane": item.publication.lane,
                    "manifest": str(item.item.manifest),
                }
                for item in items
            ]
        },
    )
    output.say(f"Approved {len(items)} variants. The mirror serves them from now on.")
    return 0


def _show(output: Output, mirror: Mirror, items: list[Waiting]) -> None:
    rows = []
    for waits in items:
        evidence = waits.item.evidence
        decision, scan = mirror.room.decision(evidence), mirror.room.scan(evidence)
        rows.append(
            (
                waits.name,
                waits.item.manifest.short,
                f"{decision.policy} {decision.policy_digest.short}",
                ", ".join(warning.rule for warning in decision.warnings) or "none",
                ", ".join(sorted({finding.rule for finding in scan.findings})) or "none",
            )
        )
    output.table(("KERNEL", "MANIFEST", "ALLOWED BY", "WARNINGS", "FINDINGS"), rows)


def _confirm(items: list[Waiting], *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask: a person approves, or a script says --yes")
    click.confirm(f"Approve these {len(items)} variants?", abort=True, err=True)
