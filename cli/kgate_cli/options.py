"""Options that several commands share, and the mirror they open."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kgate_cli.actor import what_runs, who_runs
from kgate_cli.output import Output
from kgate_cli.secrets import ask_passphrase
from kgate_core.errors import KgateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kgate_mirror_server.app import Mirror

F = TypeVar("F", bound="Callable[..., Any]")


def json_option(function: F) -> F:
    """Add --json; the command gets an `output`."""

    def build(_ctx: click.Context, _param: click.Parameter, value: bool) -> Output:  # noqa: FBT001  # click's signature
        return Output(as_json=value)

    return click.option(
        "--json", "output", is_flag=True, callback=build, help="Print one JSON object."
    )(function)


def config_option(function: F) -> F:
    """Add --config; the command gets a `config_path`."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path("kgate.yaml"),
        show_default=True,
        envvar="KGATE_CONFIG",
        help="The site's configuration.",
    )(function)


def from_dir_option(function: F) -> F:
    """Add --from-dir; the command gets a `from_dir`."""
    return click.option(
        "--from-dir",
        type=click.Path(file_okay=False, exists=True, path_type=Path),
        help="Instead of the pins, the built kernels ORG/NAME/build/… in this folder, once.",
    )(function)


@contextmanager
def open_mirror(
    config_path: Path, *, acts: bool = False, from_dir: Path | None = None
) -> Iterator[Mirror]:
    """Open the configured site and close it afterwards.

    A command that `acts` changes something: it stands in the audit log, with its outcome. With
    `from_dir`, the kernels of that folder take the place of the pins.
    """
    from kgate_cli.logs import configure_logging
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.settings.site import load_config

    configure_logging()
    config = load_config(config_path)
    if from_dir is not None:
        from kgate_mirror_server.ingest.fromdir import with_folder

        config = with_folder(config, from_dir)
    mirror = Mirror(config, ask_passphrase, os.environ, who_runs(os.environ))
    try:
        if acts:
            with _audited(mirror):
                yield mirror
        else:
            yield mirror
    finally:
        mirror.close()


@contextmanager
def _audited(mirror: Mirror) -> Iterator[None]:
    name, asked = what_runs()
    try:
        yield
    except KgateError as exc:
        with suppress(KgateError):  # what was wrong before is what people must hear
            mirror.audit.add(name, {**asked, "outcome": exc.code, "reason": exc.message})
        raise
    except (click.Abort, KeyboardInterrupt):
        mirror.audit.add(name, {**asked, "outcome": "stopped"})
        raise
    mirror.audit.add(name, {**asked, "outcome": "done"})


def now() -> datetime:
    """Return the present time: the one clock of the command line."""
    return datetime.now(UTC).replace(microsecond=0)
