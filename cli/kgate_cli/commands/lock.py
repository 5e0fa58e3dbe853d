"""`kgate lock`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, from_dir_option, json_option, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_mirror_server.ingest.kernelslock import Asked


@click.command()
@click.option(
    "--upgrade",
    metavar="REPO",
    multiple=True,
    help="Take the present commit of this repository's versions ('all' for every one).",
)
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the pins of a kernels.lock (old or new form) or a pyproject.toml to kgate.yaml.",
)
@click.option(
    "--export",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="Write what is locked as a kernels.lock for the stock client; '-' prints it.",
)
@click.option("--lane", help="Which lane to export, where lanes differ.")
@from_dir_option
@config_option
@json_option
def command(  # one argument for each option
    upgrade: tuple[str, ...],
    files: tuple[Path, ...],
    export: Path | None,
    lane: str | None,
    from_dir: Path | None,
    config_path: Path,
    output: Output,
) -> int:
    """Resolve every pin of kgate.yaml to a commit and to its variants' digests: kgate.lock.

    What is locked already stays where it is, also when upstream moves a version branch. With
    --upgrade, what the new commits bring is fetched, scanned and compared. --export writes from
    the kgate.lock that is there, and asks nobody.

    \b
    Examples:
      kgate lock
      kgate lock --upgrade kernels-community/activation
      kgate lock --from pyproject.toml
      kgate lock --from ../service/kernels.lock
      kgate lock --export kernels.lock
      kgate lock --from-dir ./built
    """
    if from_dir is not None and files:
        raise click.UsageError("--from adds to kgate.yaml, --from-dir leaves it alone: give one")
    if export is not None:
        if upgrade or files or from_dir:
            raise click.UsageError("--export stands alone: lock first, then export")
        return _export(export, lane, config_path, output)
    from kgate_cli.locking import render, take_in
    from kgate_mirror_server.ingest.kernelslock import read_asked
    from kgate_mirror_server.ingest.lockdiff import lock_changes
    from kgate_mirror_server.ingest.resolve import read_lock
    from kgate_mirror_server.ingest.sync import new_source, update_lock
    from kgate_mirror_server.settings.site import LOCK_NAME
    from kgate_mirror_server.trust.files import replace_file

    asked: tuple[Asked, ...] = tuple(item for file in files for item in read_asked(file))
    added = take_in(config_path, asked)
    with (
        open_mirror(config_path, from_dir=from_dir) as mirror,
        output.progress("lock") as (count, tell),
    ):
        folder = from_dir or mirror.config.folder
        before, source = read_lock(folder), new_source(mirror, count)
        lock = update_lock(
            mirror,
            before,
            source,
            upgrade=lambda pin: pin.repo in upgrade or "all" in upgrade,
            tell=tell,
            asked={(str(item.repo), item.wanted): item for item in asked},
        )
        changes = lock_changes(mirror, source, before, lock, tell=tell) if upgrade else []
        replace_file(folder / LOCK_NAME, lock.to_bytes())
    render(output, before, lock, added, changes)
    return 0


def _export(target: Path, lane: str | None, config_path: Path, output: Output) -> int:
    from kgate_mirror_server.ingest.kernelslock import write_kernels_lock
    from kgate_mirror_server.ingest.resolve import read_lock, require_lock
    from kgate_mirror_server.trust.files import replace_file

    with open_mirror(config_path) as mirror:
        lock = require_lock(read_lock(mirror.config.folder), mirror.config)
    text = write_kernels_lock(lock, lane=lane)
    if str(target) == "-":
        sys.stdout.write(text)
        return 0
    replace_file(target, text.encode())
    output.result("lock", {"exported": str(target), "kernels": len(lock.kernels)})
    output.say(f"Wrote {target}: kernels 0.17 and newer read it.")
    return 0
