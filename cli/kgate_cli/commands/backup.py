"""`kgate backup`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_cli.output import size

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.argument("target", metavar="DIR|FILE.tar", type=click.Path(path_type=Path))
@click.option("--blobs", is_flag=True, help="Carry the bytes too, not only their list.")
@config_option
@json_option
def command(
    target: Path,
    blobs: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Write everything of the site but its private keys: rows, trust documents, logs, settings.

    Without --blobs the bytes stay where they are: back the store's folder up as files, or fill it
    again from a registry. Back up private keys apart, where those who hold them can reach them.
    May run beside serve and sync.

    \b
    Examples:
      kgate backup /backup/kgate-2026-11-21
      kgate backup /backup/kgate.tar --blobs
    """
    from kgate_mirror_server.upkeep.backup import back_up

    with open_mirror(config_path) as mirror:
        done = back_up(mirror, target.absolute(), now(), blobs=blobs)
    output.result(
        "backup",
        {
            "path": str(done.path),
            "files": done.files,
            "blobs": done.blobs,
            "blob_bytes": done.blob_bytes,
            "with_blobs": done.with_blobs,
        },
    )
    what = "with" if done.with_blobs else "and the list of"
    output.say(
        f"Wrote {done.path}: {done.files} files {what} {done.blobs} blobs"
        f" ({size(done.blob_bytes)}), and no private key."
    )
    return 0
