"""`kgate sync`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, from_dir_option, json_option, now, open_mirror
from kgate_cli.syncreport import render, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_cli.output import Output
    from kgate_core.lock import Lock
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.ingest.sync import SyncResult


@click.command()
@click.option("--locked", is_flag=True, help="Fail if kgate.lock would change. For CI.")
@click.option(
    "--report-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write reports for CI and people there: JSON, Markdown, SARIF, JUnit, OpenReports; SBOMs.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be fetched and decided; do nothing.")
@click.option("--enqueue", is_flag=True, help="Let `kgate worker` do it, pin by pin; PostgreSQL.")
@click.option("--no-sign", is_flag=True, help="Open no key and publish nothing; see `kgate sign`.")
@from_dir_option
@config_option
@json_option
def command(  # one argument for each option
    locked: bool,  # noqa: FBT001  # click passes flags by name
    dry_run: bool,  # noqa: FBT001  # the same
    no_sign: bool,  # noqa: FBT001  # the same
    enqueue: bool,  # noqa: FBT001  # the same
    report_dir: Path | None,
    from_dir: Path | None,
    config_path: Path,
    output: Output,
) -> int:
    """Admit every pin: fetch, verify, scan, decide, sign, publish.

    With --no-sign it stops before the keys: what was decided waits until somebody who holds them
    runs `kgate sign`, elsewhere if need be. Models are left out then.

    Only what is in kgate.lock is taken; a pin that is not locked yet is locked first. Exit code 1
    means that something was denied or refused, 3 that upstream could not be reached.

    \b
    Examples:
      kgate sync
      kgate sync --dry-run
      kgate sync --enqueue
      kgate sync --locked --report-dir out/
      kgate sync --from-dir ./built
    """
    if enqueue:
        if from_dir is not None:
            raise click.UsageError("workers do not see --from-dir: leave --enqueue out")
        return _enqueue(config_path, output)
    if dry_run:
        return _rehearse(config_path, from_dir, output, locked=locked)
    with open_mirror(config_path, acts=True, from_dir=from_dir) as mirror:
        with output.counting("sync") as (count, tell, expect):
            from kgate_mirror_server.ingest.fetch import bytes_ahead
            from kgate_mirror_server.ingest.sync import new_source, sync

            source = new_source(mirror, count)
            lock = _lock(mirror, from_dir, source, tell, locked=locked)
            expect(bytes_ahead(mirror.store, lock))
            result = sync(mirror, lock, source, now(), tell=tell, sign=not no_sign)
        from kgate_mirror_server.events import sync_events

        if complaint := mirror.announce(sync_events(result, now()), now()):
            output.note(complaint)
        if report_dir is not None:
            from kgate_cli.syncreport import write_reports

            write_reports(report_dir, mirror, result, now())
        code = _code(mirror, result)
        output.result("sync", to_json(mirror, result, now()), ok=code == exits.YES)
        render(output, mirror, result, now())
    return code


def _rehearse(config_path: Path, from_dir: Path | None, output: Output, *, locked: bool) -> int:
    from kgate_cli.output import size
    from kgate_mirror_server.ingest.rehearsal import rehearse
    from kgate_mirror_server.ingest.resolve import read_lock, require_lock
    from kgate_mirror_server.ingest.sync import new_source

    with (
        open_mirror(config_path, from_dir=from_dir) as mirror,
        output.progress("sync") as (count, _tell),
    ):
        lock = read_lock(from_dir or mirror.config.folder)
        if locked:
            require_lock(lock, mirror.config)
        steps = rehearse(mirror, lock, new_source(mirror, count), now())
    errors = [step.error for step in steps if step.error is not None]
    code = exits.worst(errors, refused=False)
    total = sum(step.size for step in steps)
    output.result(
        "sync",
        {"dryRun": True, "bytes": total, "steps": [step.to_json() for step in steps]},
        ok=code == exits.YES,
    )
    output.table(
        ("KERNEL", "WOULD", "COMMIT", "FILES", "SIZE", "UPSTREAM"),
        [
            (
                str(step.pin),
                step.does,
                "" if step.commit is None else step.commit.short,
                str(step.files),
                size(step.size),
                "" if step.moved is None else f"moved to {step.moved.short}",
            )
            for step in steps
        ],
    )
    for step in steps:
        if step.error is not None:
            output.note(f"error: {step.pin}: {step.error.message}")
    output.say(f"{len(steps)} pins, {size(total)} would be fetched; nothing was done.")
    return code


def _lock(
    mirror: Mirror,
    from_dir: Path | None,
    source: Source,
    tell: Callable[[str], None],
    *,
    locked: bool,
) -> Lock:
    from kgate_mirror_server.ingest.resolve import read_lock, require_lock
    from kgate_mirror_server.ingest.sync import update_lock
    from kgate_mirror_server.settings.site import LOCK_NAME
    from kgate_mirror_server.trust.files import replace_file

    folder = from_dir or mirror.config.folder
    if locked:
        return require_lock(read_lock(folder), mirror.config)
    with mirror.claims.hold(f"lock:{folder}"):
        before = read_lock(folder)
        lock = update_lock(mirror, before, source, upgrade=lambda _pin: False, tell=tell)
        if lock != before:
            replace_file(folder / LOCK_NAME, lock.to_bytes())
    return lock


def _enqueue(config_path: Path, output: Output) -> int:
    from kgate_mirror_server.jobs.queue import enqueue_all, need_extra

    need_extra()
    with open_mirror(config_path, acts=True) as mirror:
        new, waiting = enqueue_all(mirror)
    output.result("sync", {"enqueued": new, "waiting": waiting})
    output.say(f"{new} pins wait for a worker now, {waiting} did already.")
    return exits.YES


def _code(mirror: Mirror, result: SyncResult) -> int:
    moved = bool(result.moved) and mirror.config.on_moved == "fail"
    return exits.worst(
        [failure.error for failure in result.failed], refused=bool(result.denied) or moved
    )
