"""`kgate gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_cli.output import size

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.upkeep.garbage import Collected, Garbage


@click.command()
@click.option("--dry-run", is_flag=True, help="Prove and print; remove nothing.")
@click.option("--why", metavar="DIGEST", help="Only say who needs one blob.")
@config_option
@json_option
def command(
    dry_run: bool,  # noqa: FBT001  # click passes flags by name
    why: str | None,
    config_path: Path,
    output: Output,
) -> int:
    """Remove what nothing needs, after asking everybody who might.

    First publications whose time is over (retention: in kgate.yaml; never what a version, a pin,
    the lock or a hold names), then blobs that no publication, denial, lock, receipt or kernel on
    its way in refers to and that are older than retention.grace_days. Waits for a sync that runs.

    \b
    Examples:
      kgate gc --dry-run
      kgate gc
      kgate gc --why sha256:6cdd…
    """
    from kgate_core.digest import Digest
    from kgate_mirror_server.upkeep.garbage import collect_garbage, explain

    if why is not None:
        with open_mirror(config_path) as mirror:
            needed = explain(mirror, Digest.parse(why))
        output.result("gc", {"digest": why, "needed_by": needed}, ok=bool(needed))
        for name in needed or ["nobody"]:
            output.plain(name)
        return 0 if needed else 1
    with open_mirror(config_path, acts=not dry_run) as mirror:
        done = collect_garbage(mirror, now(), dry_run=dry_run, tell=output.note)
    output.result("gc", _to_json(done))
    _show(output, done)
    return 0


def _show(output: Output, done: Collected) -> None:
    asked = ", ".join(f"{count} {kind}" for kind, count in sorted(done.references.asked.items()))
    output.say(f"Asked: {asked or 'nobody: nothing is published'}.")
    will = "would go" if done.dry_run else "retired"
    for fate in done.retired:
        item = fate.publication
        output.plain(f"{will}  {item.repo}@{item.served.short} in lane {item.lane}: {fate.reason}")
    will = "would go" if done.dry_run else "removed"
    for found in done.removed:
        output.plain(f"{will}  {found.digest}  {size(found.size)}: nobody needs it")
    output.say(
        f"{len(done.removed)} blobs {will} ({size(_sum(done.removed))}); {done.kept} are needed"
        f" ({size(done.kept_bytes)}), {len(done.young)} wait for their grace period"
        f" ({size(_sum(done.young))})."
    )


def _sum(items: list[Garbage]) -> int:
    return sum(item.size for item in items)


def _to_json(done: Collected) -> dict[str, object]:
    return {
        "dry_run": done.dry_run,
        "asked": done.references.asked,
        "publications": [
            {
                "repo": str(fate.publication.repo),
                "served": str(fate.publication.served),
                "lane": fate.publication.lane,
                "stays": fate.stays,
                "reason": fate.reason,
            }
            for fate in done.fates
        ],
        "removed": [{"digest": str(item.digest), "size": item.size} for item in done.removed],
        "waiting": [{"digest": str(item.digest), "size": item.size} for item in done.young],
        "kept": {str(digest): names for digest, names in sorted(done.references.by_blob.items())},
        "parts": done.parts,
        "forgotten": done.forgotten,
    }
