"""`kgate promote`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.ingest.promotion import Promoted


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--to", "lane", required=True, metavar="LANE", help="Lane that it shall come into.")
@click.option("--from", "source", metavar="LANE", help="Lane that it comes from, if in several.")
@config_option
@json_option
def command(
    reference: str, lane: str, source: str | None, config_path: Path, output: Output
) -> int:
    """Bring what one lane serves into another, by that lane's own rules.

    Bytes and evidence stay what they are; the target lane's policy decides anew, the admit key
    signs for that lane, and the publication log says so. Where the lane needs a human's signature
    too, it serves nothing before `kgate approve`. Pin it in that lane as well: `kgate sync` renews
    what is pinned. Exit code 1 if the lane's rules refuse a variant.

    \b
    Examples:
      kgate promote kernels-community/activation@v1 --to production
      kgate approve kernels-community/activation@v1
    """
    from kgate_mirror_server.ingest.promotion import promote

    with open_mirror(config_path, acts=True) as mirror:
        done = promote(mirror, reference, lane, now(), source=source)
    refused = any(not item.allowed for result in done.results for item in result.variants)
    output.result("promote", _to_json(done, lane), ok=not refused)
    _show(output, done, lane)
    return exits.NO if refused else exits.YES


def _show(output: Output, done: Promoted, lane: str) -> None:
    for result in done.results:
        for item in result.variants:
            name = f"{result.pin} {item.variant}"
            if item.allowed:
                output.plain(f"promoted  {name} into lane {lane}")
            for reason in item.reasons:
                output.plain(f"denied    {name}: {reason.rule}: {reason.seen}")
                if reason.hint:
                    output.plain(f"  → {reason.hint}")
    for waits in done.waiting:
        output.plain(f"waiting for kgate approve; not served until then: {waits.name}")


def _to_json(done: Promoted, lane: str) -> dict[str, object]:
    return {
        "lane": lane,
        "kernels": [
            {
                "repo": str(result.pin.ref),
                "pin": result.pin.wanted,
                "served": None if result.served is None else str(result.served),
                "variants": {
                    item.variant: {
                        "allowed": item.allowed,
                        "reasons": [reason.to_json() for reason in item.reasons],
                    }
                    for item in result.variants
                },
            }
            for result in done.results
        ],
        "waiting": [waits.name for waits in done.waiting],
    }
