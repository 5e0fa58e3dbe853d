"""A site of one machine syncs by itself: now and then, in a process of its own beside the server.

Where PostgreSQL holds the catalog this is the workers' task (`kgate worker`). What the sync says
goes to the server's own log; a run that fails is no reason to stop serving.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_RUN: Final = "import sys; from kgate_cli.entry import main; sys.exit(main())"
_log: Final = structlog.get_logger(__name__)


def sync_command(config_path: Path) -> list[str]:
    """Return the command that takes what is locked."""
    return [sys.executable, "-c", _RUN, "sync", "--locked", "--config", str(config_path.absolute())]


def start_schedule(command: Sequence[str], seconds: float) -> threading.Event:
    """Run a command every so many seconds, from now on; setting what is returned ends that."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            done = subprocess.run(  # noqa: S603  # our own program
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
            )
            _log.info("sync.scheduled", exit_code=done.returncode)
            over.wait(seconds)

    threading.Thread(target=repeat, name="kgate-schedule", daemon=True).start()
    return over
