"""Opens the catalog's database: SQLite or PostgreSQL, set up alike, migrated forward under a lock.

What is asked of the database is in `sql`. Nothing is migrated backwards, and a database that a
newer kgate wrote is refused.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import StaticPool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from kgate_core.errors import Conflict, InvalidInput, KgateError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine

BUSY_TIMEOUT: Final = 5_000  # milliseconds that a SQLite writer waits for another one
CONNECT_TIMEOUT: Final = 5  # seconds to wait for PostgreSQL
_MIGRATION_LOCK: Final = 0x6B67617465  # "kgate": the advisory lock that migrations hold
_WRITE: Final = "kgate_write"
_DURABLE: Final = "kgate_durable"
_SCHEMES: Final = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}


def open_engine(url: str) -> Engine:
    """Connect and bring the tables up to date; raises InvalidInput and UpstreamError."""
    parsed = _parse(url)
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": BUSY_TIMEOUT / 1000, "check_same_thread": False}
        if parsed.database in {None, "", ":memory:"}:
            options["poolclass"] = StaticPool  # one connection, or each would be a new database
        else:
            _make_folder(Path(str(parsed.database)))
            _make_file(Path(str(parsed.database)))
    else:
        options["pool_pre_ping"] = True
        options["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT}
    with translated("the catalog cannot be opened"):
        engine = create_engine(parsed, **options)
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(engine)
        _migrate(engine)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Run queries that see one state of the database."""
    with translated("the catalog cannot be read"), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, *, durable: bool = False) -> Iterator[Connection]:
    """Run one transaction that may write; on SQLite it holds the write lock from its start.

    A durable one is on the disk before it is done; others, on SQLite, may be undone by a power cut
    as a whole (the last ones only, and never in part).
    """
    with (
        translated("the catalog cannot be changed"),
        engine.execution_options(**{_WRITE: True, _DURABLE: durable}).begin() as connection,
    ):
        yield connection


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn every error of the database layer into one of ours; it names no password."""
    try:
        yield
    except IntegrityError as exc:
        raise Conflict(f"{what}: another process published something else meanwhile") from exc
    except SQLAlchemyError as exc:
        reason = getattr(exc, "orig", None) or exc
        raise UpstreamError(
            f"{what}: {str(reason).strip().splitlines()[0]}",
            hint="check that the database is up, reachable, and that its disk is not full",
        ) from exc


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise InvalidInput("not a database URL", hint="sqlite:///kgate.db, for example") from exc
    if parsed.get_backend_name() not in _SCHEMES:
        raise InvalidInput(
            f"the catalog cannot live in {parsed.get_backend_name()!r}",
            hint=f"known are {', '.join(_SCHEMES)}",
        )
    if "+" not in parsed.drivername:
        parsed = parsed.set(drivername=_SCHEMES[parsed.drivername])
    try:
        parsed.get_dialect()
    except NoSuchModuleError as exc:
        raise InvalidInput(f"unknown database driver {parsed.drivername!r}") from exc
    return parsed


def is_missing(url: str) -> bool:
    """Return whether a database is a file that is not there; raises InvalidInput."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in {None, "", ":memory:"}:
        return False
    return not Path(str(parsed.database)).exists()


def _make_file(path: Path) -> None:
    # SQLite lets nobody but the owner write to a database that it creates, whatever the umask:
    # two users of one group could not share it. Its journals take the database's own mode.
    with suppress(OSError):  # SQLite itself says what is wrong with a path
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))


def _make_folder(path: Path) -> None:
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise KgateError(f"{path.parent} cannot be created: {exc.strerror}") from exc


def _prepare_sqlite(engine: Engine) -> None:
    # SQLAlchemy's own recipe for real transactions with this driver: the driver starts none, we do.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:  # noqa: ANN401  # the driver's own
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        # A reader that turns writer halfway could only fail: writers take the lock at once.
        options = connection.get_execution_options()
        immediate = options.get(_WRITE, False)
        level = "FULL" if options.get(_DURABLE, False) else "NORMAL"
        if immediate:
            connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", "kgate_mirror_server.catalog:migrations")
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    with engine.begin() as connection:
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
    with engine.execution_options(**{_WRITE: True}).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        with EnvironmentContext(
            config,
            script,
            fn=lambda revision, _context: script._upgrade_revs("head", revision),  # noqa: SLF001  # alembic's own `upgrade` command does the same
        ) as environment:
            # All steps run in our transaction: a crash leaves the tables as they were.
            environment.configure(connection=connection, transactional_ddl=False)
            try:
                environment.run_migrations()
            except CommandError as exc:
                raise Conflict(
                    f"the catalog was written by another version of kgate ({exc})",
                    hint="use that version, or restore a backup from before the upgrade",
                ) from exc
