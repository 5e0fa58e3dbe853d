"""The queue of jobs in PostgreSQL, by procrastinate: its tables, its locks, its retries.

Queues: `ingest` (reaches upstreams, holds no key), `sign` (holds keys, reaches none), `scrub`. Each
pin's jobs exclude each other, and no more than one of a kind waits. What a job does is in `work`.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import make_url, text

from kgate_core.errors import InvalidInput, KgateError, UpstreamError
from kgate_mirror_server.catalog.engine import writing
from kgate_mirror_server.jobs import work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from kgate_mirror_server.app import Mirror

    Opened = Callable[[], AbstractContextManager[Mirror]]

INGEST: Final = "ingest"
SIGN: Final = "sign"
SCRUB: Final = "scrub"
QUEUES: Final = (INGEST, SIGN, SCRUB)
ATTEMPTS: Final = 8  # of a job whose upstream does not answer
BACKOFF: Final = 4  # seconds; the n-th wait is its n-th power, so that the last is some 4.5 hours
_PIN: Final = "kgate.ingest"
_ALL: Final = "kgate.enqueue"
_SIGN: Final = "kgate.sign"
_SCRUB: Final = "kgate.scrub"
_SCHEMA_LOCK: Final = 0x6B67617465_02  # advisory lock under which the queue's tables are made
_log: Final = structlog.get_logger(__name__)


def enqueue_all(mirror: Mirror) -> tuple[int, int]:
    """Ask for a sync of every locked pin; returns how many jobs are new, and how many waited.

    Raises InvalidInput without PostgreSQL, Conflict if the lock is stale.
    """
    names = work.names_of(work.locked_pins(mirror))
    make_tables(mirror)
    with _deferring(mirror) as app:
        new = sum(_ask(app, _PIN, INGEST, f"pin:{name}", name=name) for name in names)
    return new, len(names) - new


def make_tables(mirror: Mirror) -> None:
    """Make the queue's tables where there are none; raises InvalidInput, UpstreamError."""
    import procrastinate  # noqa: PLC0415  # an extra

    conninfo(mirror)
    engine = mirror.catalog.engine
    with writing(engine) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        if connection.execute(text("SELECT to_regclass('procrastinate_jobs')")).scalar() is None:
            schema = procrastinate.schema.SchemaManager.get_schema()
            connection.exec_driver_sql(schema.replace("%", "%%"))


def conninfo(mirror: Mirror) -> str:
    """Return the database as PostgreSQL's clients read it; raises InvalidInput if it is none."""
    parsed = make_url(mirror.config.database)
    if parsed.get_backend_name() != "postgresql":
        raise InvalidInput(
            "jobs need PostgreSQL, this site's catalog is a SQLite file",
            hint="run `kgate sync` instead, or set database: in kgate.yaml (docs/scale-out.md)",
        )
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


def build_app(connector: Any, opened: Opened | None = None) -> Any:  # noqa: ANN401  # an extra's types
    """Return the queue's application; with `opened` its tasks can be run, else only asked for."""
    import procrastinate  # noqa: PLC0415  # an extra

    app = procrastinate.App(connector=connector)
    retry = procrastinate.RetryStrategy(
        max_attempts=ATTEMPTS, exponential_wait=BACKOFF, retry_exceptions=[UpstreamError]
    )

    def told(what: str) -> None:
        _log.info("job.step", what=what)

    @contextmanager
    def site() -> Iterator[Mirror]:
        if opened is None:
            raise AssertionError("a worker runs this")
        try:
            with opened() as mirror:
                yield mirror
        except KgateError as exc:
            _log.error("job.failed", reason=exc.message, hint=exc.hint)
            raise

    @app.task(name=_PIN, queue=INGEST, retry=retry)
    def ingest(name: str) -> None:
        with site() as mirror:
            work.bring_in(mirror, name, _now(), told)
            with _deferring(mirror) as asking:
                _ask(asking, _SIGN, SIGN, "sign")

    @app.task(name=_SIGN, queue=SIGN, retry=retry)
    def publish() -> None:
        with site() as mirror:
            work.publish_decided(mirror, _now(), told)

    @app.task(name=_SCRUB, queue=SCRUB, retry=retry)
    def read_again(timestamp: int = 0) -> None:
        with site() as mirror:
            left = work.read_again(mirror, told)
        _log.info("scrub.done", unrepaired=left, slot=timestamp)

    @app.task(name=_ALL, queue=INGEST, retry=retry)
    def enqueue(timestamp: int = 0) -> None:
        with site() as mirror:
            new, waiting = enqueue_all(mirror)
        _log.info("sync.enqueued", new=new, waiting=waiting, slot=timestamp)

    return app


async def defer_slot(app: Any, task: str, seconds: float, now: float) -> None:  # noqa: ANN401  # as above
    """Ask for a scheduled job once in each slot of so many seconds, whoever asks."""
    import procrastinate  # noqa: PLC0415  # an extra

    name, queue = {INGEST: (_ALL, INGEST), SCRUB: (_SCRUB, SCRUB)}[task]
    slot = int(now // seconds * seconds)
    asked = app.configure_task(
        name, queue=queue, lock=task, queueing_lock=task, task_kwargs={"timestamp": slot}
    )
    try:
        await app.job_manager.defer_periodic_job(
            job=asked.job, periodic_id="", defer_timestamp=slot
        )
    except procrastinate.exceptions.AlreadyEnqueued:
        _log.info("job.waiting", queue=queue)


@contextmanager
def _deferring(mirror: Mirror) -> Iterator[Any]:
    import procrastinate  # noqa: PLC0415  # an extra

    connector = procrastinate.SyncPsycopgConnector(conninfo=conninfo(mirror), min_size=1)
    try:
        with build_app(connector).open() as app:
            yield app
    except procrastinate.exceptions.ConnectorException as exc:
        raise UpstreamError(
            f"the queue cannot be reached: {exc.__cause__ or exc}", hint="check the database"
        ) from exc


def _ask(app: Any, task: str, queue: str, lock: str, **arguments: str) -> bool:  # noqa: ANN401  # as above
    """Ask for a job; returns whether it is new: one that waits already will do."""
    import procrastinate  # noqa: PLC0415  # an extra

    asked = app.configure_task(task, queue=queue, lock=lock, queueing_lock=lock)
    try:
        asked.defer(**arguments)
    except procrastinate.exceptions.AlreadyEnqueued:
        return False
    return True


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def need_extra() -> None:
    """Raise InvalidInput if the package that queues jobs is not installed."""
    try:
        import procrastinate  # noqa: F401, PLC0415  # an extra
    except ImportError as exc:
        raise InvalidInput("jobs need the extra scale", hint="pip install 'kgate[scale]'") from exc
