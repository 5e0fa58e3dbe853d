"""`kgate scrub`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, open_mirror
from kgate_cli.output import size

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.command()
@click.option("--repair", is_flag=True, help="Set damaged blobs aside; fetch them anew.")
@config_option
@json_option
def command(
    repair: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Read every blob again and find what the disk changed or lost.

    With --repair, damaged blobs move to damaged/ in the store's folder and are fetched again from
    their upstream; what cannot be had again is not served until a backup brings it. Exit code 1 if
    something is damaged or missing and was not repaired.

    \b
    Examples:
      kgate scrub
      kgate scrub --repair
    """
    from kgate_mirror_server.upkeep.scrub import scrub

    with (
        open_mirror(config_path, acts=repair) as mirror,
        output.progress("scrub") as (count, tell),
    ):
        done = scrub(mirror, repair=repair, tell=tell, progress=count)
    left = [item for item in done.troubles if not item.repaired]
    output.result(
        "scrub",
        {
            "read": done.read,
            "read_bytes": done.read_bytes,
            "troubles": [
                {
                    "digest": str(item.digest),
                    "what": item.what,
                    "needed_by": list(item.needed_by),
                    "repaired": item.repaired,
                    "reason": item.reason,
                }
                for item in done.troubles
            ],
        },
        ok=not left,
    )
    for item in done.troubles:
        who = item.needed_by[0] if item.needed_by else "nobody"
        ending = "repaired" if item.repaired else f"not repaired: {item.reason}"
        output.plain(f"{item.what}  {item.digest}  needed by {who}: {ending}")
    output.say(f"Read {done.read} blobs ({size(done.read_bytes)}); {len(left)} need care.")
    return exits.NO if left else exits.YES
