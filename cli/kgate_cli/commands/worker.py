"""`kgate worker`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.command()
@click.option(
    "--queue",
    "queues",
    multiple=True,
    type=click.Choice(["ingest", "sign", "scrub"]),
    help="Take jobs of this queue only; may be given more than once. All unless given.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Jobs at the same time.",
)
@click.option("--once", is_flag=True, help="End when no job is left, instead of waiting for more.")
@config_option
@json_option
def command(
    queues: tuple[str, ...],
    concurrency: int,
    once: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Do the jobs that `kgate sync --enqueue` and the schedule ask for, until told to stop.

    Needs PostgreSQL; any number of workers may run. Those of the queue `ingest` reach upstreams and
    hold no key, those of `sign` hold keys and reach none, those of `scrub` read the store again.
    With `sync: {every: 6h}` in kgate.yaml the workers sync by themselves. A job whose worker died
    is taken up by another one. Models are left to `kgate sync`.

    \b
    Examples:
      kgate worker
      kgate worker --queue ingest --concurrency 4
      kgate worker --queue sign --once
    """
    from kgate_mirror_server.jobs.queue import QUEUES, conninfo, need_extra
    from kgate_mirror_server.jobs.worker import Working, work

    chosen = queues or QUEUES
    with open_mirror(config_path) as mirror:
        need_extra()
        conninfo(mirror)
        output.say(f"Working on {', '.join(chosen)}, {concurrency} at a time")
        work(mirror, partial(open_mirror, config_path), Working(chosen, concurrency, once))
    output.result("worker", {"queues": list(chosen), "concurrency": concurrency})
    return 0
