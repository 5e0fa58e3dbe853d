"""`kgate restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.argument("source", metavar="DIR|FILE.tar", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--root",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The root that pods pin; the backup must be of that site.",
)
@config_option
@json_option
def command(source: Path, root: Path | None, config_path: Path, output: Output) -> int:
    """Bring a site back from a backup, into an empty place.

    Put the private keys where kgate.yaml says first (the timestamp key is needed at once), and a
    kgate.yaml of your own where the database has another address now. Checks seal, digests, trust
    documents, publication log and audit log before it writes. Exit code 1 if blobs are missing.

    \b
    Example:
      kgate restore /backup/kgate.tar --root /etc/kgate/root.json
    """
    from kgate_mirror_server.upkeep.restore import open_backup, place_site, restore

    pinned = None if root is None else root.read_bytes()
    with open_backup(source, pinned) as opened:
        place_site(opened, config_path.absolute().parent)
        with open_mirror(config_path) as mirror:
            done = restore(mirror, opened, now(), tell=output.note)
            mirror.audit.add("restore", {"source": str(source), "created": str(opened.created)})
    output.result(
        "restore",
        {
            "site": opened.site,
            "root": str(opened.root),
            "publications": done.publications,
            "blobs": done.blobs,
            "missing": [str(digest) for digest in done.missing],
        },
        ok=not done.missing,
    )
    if root is None:
        output.note(f"no --root was given: the backup verifies against its own, {opened.root}")
    output.say(f"Restored {done.publications} publications and {done.blobs} blobs.")
    if done.missing:
        output.say(f"{len(done.missing)} blobs are missing: what needs them is not served.")
        output.say("  → bring the store's folder back, then `kgate scrub --repair`")
    return exits.NO if done.missing else exits.YES
