"""`kgate reinstate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.command()
@click.argument("reference", metavar="REF")
@config_option
@json_option
def command(reference: str, config_path: Path, output: Output) -> int:
    """Take a revocation back. Needs the root key.

    \b
    Example:
      kgate reinstate kernels-community/activation@v1
    """
    from kgate_mirror_server.trust.revocation import reinstate

    with open_mirror(config_path, acts=True) as mirror:
        done = reinstate(mirror, reference, now())
    output.result(
        "reinstate", {"reinstated": [{"digest": str(d.digest), "name": d.name} for d in done]}
    )
    for item in done:
        output.say(f"reinstated  {item.name}  {item.digest.short}…")
    return 0
