"""Takes jobs from the queue until told to stop; finds jobs whose worker died and schedules others.

Any number may run, on any machine. A worker that dies keeps its job for as long as its heartbeat
may be late; then any other one starts it anew. Scheduled jobs are asked for once in their slot,
however many workers ask.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from kgate_core.errors import UpstreamError
from kgate_mirror_server.jobs.queue import (
    INGEST,
    QUEUES,
    SCRUB,
    build_app,
    conninfo,
    defer_slot,
    make_tables,
    need_extra,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.jobs.queue import Opened

_DAY: Final = 86_400.0  # seconds
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Working:
    """How a worker works."""

    queues: Sequence[str] = QUEUES
    concurrency: int = 1
    once: bool = False
    """End when no job is left."""
    stalled_seconds: float = 30.0
    """After which a silent worker counts as dead."""


def work(mirror: Mirror, opened: Opened, how: Working) -> None:
    """Work until SIGTERM or SIGINT; jobs in hand are finished first.

    `opened` opens the site anew for each job, so that a changed kgate.yaml counts. Raises
    InvalidInput without PostgreSQL, UpstreamError if it is down at the start.
    """
    need_extra()
    make_tables(mirror)
    asyncio.run(_work(mirror, opened, how))


async def _work(mirror: Mirror, opened: Opened, how: Working) -> None:
    import procrastinate  # noqa: PLC0415  # an extra

    connector = procrastinate.PsycopgConnector(conninfo=conninfo(mirror), min_size=1)
    try:
        async with build_app(connector, opened).open_async() as app:
            await _tend(app, mirror, how)
            tending = asyncio.create_task(_keep_tending(app, mirror, how))
            try:
                await app.run_worker_async(
                    queues=list(how.queues),
                    concurrency=how.concurrency,
                    wait=not how.once,
                    update_heartbeat_interval=how.stalled_seconds / 3,
                    stalled_worker_timeout=how.stalled_seconds,
                    fetch_job_polling_interval=min(5.0, how.stalled_seconds),
                )
            finally:
                tending.cancel()
                with suppress(asyncio.CancelledError):
                    await tending
    except procrastinate.exceptions.ConnectorException as exc:
        raise UpstreamError(
            f"the queue cannot be reached: {exc.__cause__ or exc}", hint="check the database"
        ) from exc


async def _keep_tending(app: Any, mirror: Mirror, how: Working) -> None:  # noqa: ANN401  # an extra's types
    import procrastinate  # noqa: PLC0415  # an extra

    while True:
        await asyncio.sleep(how.stalled_seconds / 3)
        try:
            await _tend(app, mirror, how)
        except procrastinate.exceptions.ConnectorException as exc:
            _log.error("queue.failed", reason=str(exc))


async def _tend(app: Any, mirror: Mirror, how: Working) -> None:  # noqa: ANN401  # as above
    """Start jobs anew whose worker died, and ask for those whose time has come."""
    stalled = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=how.stalled_seconds)
    for job in stalled:
        _log.warning("job.stalled", id=job.id, task=job.task_name)
        await app.job_manager.retry_job(job)
    now = time.time()
    every = mirror.config.sync.every
    if every is not None and INGEST in how.queues:
        await defer_slot(app, INGEST, every.total_seconds(), now)
    patrol = mirror.config.serve.scrub
    if patrol is not None and SCRUB in how.queues:
        await defer_slot(app, SCRUB, patrol.every_days * _DAY, now)
