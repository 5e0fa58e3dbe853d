"""`kgate hold`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror


@click.command()
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--reason", help="Why it must stay, such as a case number.")
@click.option("--release", is_flag=True, help="Let go of it again.")
@config_option
@json_option
def command(
    reference: str | None,
    reason: str | None,
    release: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Keep a publication whatever `kgate gc` would do, until it is released. Without REF: list.

    A hold keeps bytes, signatures and evidence. It does not make a revoked kernel load again. REF
    is org/name, org/name@v1, org/name@<commit> or the digest of a manifest.

    \b
    Examples:
      kgate hold kernels-community/activation@v1 --reason "case 2026-114"
      kgate hold
      kgate hold kernels-community/activation@v1 --release
    """
    if reference is not None and release == (reason is not None):
        raise click.UsageError("say either --reason, to hold it, or --release")
    with open_mirror(config_path) as mirror:
        changed = [] if reference is None else _change(mirror, reference, reason)
        held = mirror.keeping.holds()
    output.result(
        "hold",
        {
            "changed": changed,
            "holds": [
                {
                    "repo": item.place.repo,
                    "served": item.place.served,
                    "lane": item.place.lane,
                    "reason": item.reason,
                    "by": item.held_by,
                }
                for item in held
            ],
        },
    )
    for name in changed:
        output.say(f"{'released' if release else 'held'}  {name}")
    if reference is None:
        rows = [(str(item.place), item.reason, item.held_by) for item in held]
        output.table(("PUBLICATION", "REASON", "BY"), rows)
    return 0


def _change(mirror: Mirror, reference: str, reason: str | None) -> list[str]:
    from kgate_core.errors import NotFound
    from kgate_mirror_server.inventory import find

    found = find(mirror.catalog, reference).publications
    if reason is not None:
        if not found:
            raise NotFound(f"nothing of {reference} is published: there is nothing to hold")
        who = mirror.who.get("sudo") or mirror.who.get("user", "somebody")
        return [str(item.place) for item in mirror.keeping.hold(found, reason, who, now=now())]
    places = mirror.keeping.release(found)
    if not places:
        raise NotFound(f"nothing of {reference} is held", hint="`kgate hold` lists what is")
    return [str(place) for place in places]
