"""Reads the whole store again in the background, slowly, and withdraws what the disk changed.

One of the server's processes does it, at a limited rate, and remembers when a round was done. A
damaged blob is set aside in the store's folder: from then on it is missing for every process, and
what needs it is not served. Where the site says so it is fetched again at once; else `kgate scrub
--repair` does that. A store that cannot be written is read all the same, and the alarm is raised.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

from kgate_core.errors import KgateError
from kgate_mirror_server.upkeep.scrub import look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_mirror_server.serve.blobguard import BlobGuard
    from kgate_mirror_server.serve.settings import PatrolSettings
    from kgate_mirror_server.store.disk import DiskStore
    from kgate_mirror_server.store.objects import ObjectStore

_log: Final = structlog.get_logger(__name__)
_DONE: Final = ".patrolled"
_LOCK: Final = ".patrol.lock"
_PAUSE: Final = 60.0  # seconds between two looks whether a round is due


class Patrol:
    """One round after the other; `repair` returns why a blob could not be had again, or None."""

    def __init__(
        self,
        root: Path,
        store: DiskStore | ObjectStore,
        guard: BlobGuard,
        settings: PatrolSettings,
        repair: Callable[[Digest], str | None] | None,
    ) -> None:
        self._root = root
        self._store = store
        self._guard = guard
        self._settings = settings
        self._repair = repair

    def start(self) -> None:
        """Begin in a thread that ends with the process."""
        threading.Thread(target=self._run, name="kgate-patrol", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.round()
            except Exception:  # noqa: BLE001  # serving goes on whatever the disk does
                _log.exception("patrol.failed")
            time.sleep(_PAUSE)

    def round(self) -> int | None:
        """Read everything once if a round is due; returns how many were damaged, None if not due.

        Another process that is at it already counts as not due.
        """
        held = self._hold()
        try:
            if held is not None and _try(held) and self._due():
                return self._read()
            return None
        finally:
            if held is not None:
                os.close(held)

    def _hold(self) -> int | None:
        try:
            return os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a read-only store: then each process reads for itself
            return None

    def _due(self) -> bool:
        try:
            done = (self._root / _DONE).stat().st_mtime
        except FileNotFoundError:
            return True
        return time.time() - done >= self._settings.every_days * 86_400

    def _read(self) -> int:
        damaged, pace = 0, _Pace(self._settings.rate)
        for digest in list(self._store.digests()):
            what, _ = look(self._store, digest, pace.wait)
            if what is None:
                continue
            damaged += 1
            self._withdraw(digest, what)
        (self._root / _DONE).touch()
        _log.info("patrol.done", damaged=damaged)
        return damaged

    def _withdraw(self, digest: Digest, what: str) -> None:
        _log.error("blob.damaged", digest=str(digest), what=what)
        self._guard.distrust(digest)
        if what != "damaged":
            return
        try:
            self._store.set_aside(digest)
            reason = "not asked to" if self._repair is None else self._repair(digest)
        except KgateError as exc:
            reason = exc.message
        if reason is None:
            _log.warning("blob.repaired", digest=str(digest))
        else:
            _log.error("blob.withdrawn", digest=str(digest), reason=reason)


class _Pace:
    """Waits so that no more than so many bytes are read in a second, on average."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._read = 0

    def wait(self, count: int) -> None:
        self._read += count
        ahead = self._read / self._rate - (time.monotonic() - self._began)
        if ahead > 0:
            time.sleep(ahead)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
