"""The scheduled sync of a site on one machine."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from kgate_cli.scheduling import start_schedule, sync_command

if TYPE_CHECKING:
    from pathlib import Path


def test_a_schedule_runs_again_and_again_until_it_is_over_whatever_came_of_it(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    script = f"open({str(log)!r}, 'a').write('x'); raise SystemExit(3)"
    over = start_schedule([sys.executable, "-c", script], 0.01)
    until = time.monotonic() + 30
    while not (log.exists() and len(log.read_text()) >= 2):
        assert time.monotonic() < until
        time.sleep(0.02)
    over.set()


def test_what_is_scheduled_takes_only_what_is_locked(tmp_path: Path) -> None:
    command = sync_command(tmp_path / "kgate.yaml")
    assert command[-4:] == ["sync", "--locked", "--config", str(tmp_path / "kgate.yaml")]
