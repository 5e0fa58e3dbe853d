"""Keeps the verified trust metadata of this process: pinned root, cached documents, refresh.

What counts as valid is decided by `kgate_core.trust.load`; here the bytes are found. A refresh is
tried when the metadata is older than its lane's soft window, at most twice a minute, and its
failure leaves what was there. How old is too old is `verify`'s business, with the lane's hard
window. The root is never fetched on first use: without a pinned file there is no trust.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from kgate_client.logcheck import Log, check_log
from kgate_core.errors import KgateError, NotFound, TrustError
from kgate_core.trust import TrustDocuments, Versions, load
from kgate_core.tuf import MAX_ROOT_STEPS, Metadata, Root

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from kgate_client.logcheck import LogSource
    from kgate_client.store import DocumentStore
    from kgate_core.trust import TrustedRoot

RETRY: Final = 30.0  # seconds between two attempts to refresh
_DEFAULT_SOFT: Final = timedelta(minutes=5)  # for a lane that the metadata does not know
_ROLES: Final = ("targets", "snapshot", "timestamp")


class TrustSource(Protocol):
    """Where fresh documents come from."""

    def trust(self, name: str) -> bytes:
        """Return a document; raises NotFound, UpstreamError."""


class TrustKeeper:
    """The trusted root of this process; `pinned` is the root that a person chose."""

    def __init__(
        self,
        pinned: bytes | None,
        store: DocumentStore,
        source: TrustSource | None,
        *,
        lane: str,
        log: LogSource | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pinned = pinned
        self._log = log
        self._head: str | None = None
        self._store = store
        self._source = source
        self._lane = lane
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._trusted: TrustedRoot | None = None
        self._seen: Versions | None = None
        self._last_attempt = float("-inf")
        self._cache_read = False
        self.problem = ""
        """Why the last refresh or the cached documents were no good, for reports."""
        self.log_state = Log.UNCHECKED
        """How the publication log stands to the one that this pod was shown before."""

    @property
    def pinned(self) -> bool:
        """True if a person chose a root."""
        return self._pinned is not None

    def renew_lock(self) -> None:
        """Start with a free lock, after a fork."""
        self._lock = threading.RLock()

    def current(self, now: datetime) -> TrustedRoot:
        """Return the newest verified metadata; raises TrustError if there is none."""
        if self._pinned is None:
            raise TrustError(
                "no trust root is pinned",
                hint="set KGATE_TRUST_ROOT to the root.json that your mirror's operator gave you",
            )
        with self._lock:
            self._read_cache_once(now)
            if self._due(now):
                self._refresh(now)
            if self._trusted is None:
                raise TrustError(self.problem or "there is no trust metadata in the cache")
            return self._trusted

    def floor(self, now: datetime) -> TrustedRoot | None:
        """Return the metadata whose floors bind, even if its time is over; None if none is known.

        An expired document admits nothing any more, but what it demanded still holds: otherwise
        waiting would be a way to loosen the mode.
        """
        if self._pinned is None:
            return None
        try:
            return self.current(now)
        except KgateError:
            pass
        documents = self._cached(self._pinned)
        return None if documents is None else self._load_expired(self._pinned, documents)

    def refresh(self, now: datetime) -> TrustedRoot:
        """Ask the source now, whatever the age; raises as `current` does."""
        with self._lock:
            # The cache first: what it holds is the oldest that may be accepted now.
            self._read_cache_once(now)
            self._refresh(now)
            return self.current(now)

    def hurry(self, now: datetime) -> None:
        """Ask the source whatever the age, unless that was just done; nothing it says raises."""
        with self._lock:
            self._read_cache_once(now)
            if self._monotonic() >= self._last_attempt + RETRY:
                self._refresh(now)

    def _due(self, now: datetime) -> bool:
        if self._source is None or self._monotonic() < self._last_attempt + RETRY:
            return False
        if self._trusted is None:
            return True
        lane = self._trusted.lanes.get(self._lane)
        soft = _DEFAULT_SOFT if lane is None else lane.soft_staleness
        return self._trusted.age(now) > soft or now >= self._trusted.expires

    def _read_cache_once(self, now: datetime) -> None:
        if self._cache_read or self._pinned is None:
            return
        self._cache_read = True
        documents = self._cached(self._pinned)
        if documents is None:
            return
        try:
            self._accept(load(self._pinned, documents, now=now))
        except KgateError as exc:
            self.problem = exc.message
            # Too old to admit anything, but still what newer documents may not fall behind.
            expired = self._load_expired(self._pinned, documents)
            self._seen = None if expired is None else expired.versions
            self._head = None if expired is None else expired.log_head

    @staticmethod
    def _load_expired(pinned: bytes, documents: TrustDocuments) -> TrustedRoot | None:
        """Read documents as of the last second in which all of them were valid."""
        try:
            chain = [
                Metadata.parse(data, role)
                for role, data in (
                    ("root", [pinned, *documents.later_roots][-1]),
                    ("timestamp", documents.timestamp),
                    ("snapshot", documents.snapshot),
                    ("targets", documents.targets),
                )
            ]
            when = min(document.expires for document in chain) - timedelta(seconds=1)
            return load(pinned, documents, now=when)
        except KgateError:
            return None

    def _accept(self, trusted: TrustedRoot) -> None:
        self._trusted = trusted
        self._seen = trusted.versions
        self._head = trusted.log_head
        self.problem = ""

    def _cached(self, pinned: bytes) -> TrustDocuments | None:
        found = [self._store.read(f"trust/{role}.json") for role in _ROLES]
        targets, snapshot, timestamp = found
        if targets is None or snapshot is None or timestamp is None:
            return None
        roots: list[bytes] = []
        try:
            number = Root.pinned(pinned).metadata.version
        except KgateError:
            return None
        while len(roots) < MAX_ROOT_STEPS:
            number += 1
            root = self._store.read(f"trust/{number}.root.json")
            if root is None:
                break
            roots.append(root)
        return TrustDocuments(roots, timestamp, snapshot, targets)

    def _refresh(self, now: datetime) -> None:
        if self._pinned is None or self._source is None:
            return
        self._last_attempt = self._monotonic()
        try:
            documents = self._fetch(self._source, self._pinned)
            trusted = load(self._pinned, documents, now=now, seen=self._seen)
            # Newer versions of all documents, and yet another history: then the old ones stay,
            # until the lane's windows end them.
            self.log_state = check_log(self._log, self._head, trusted.log_head)
        except KgateError as exc:
            self.problem = exc.message
            return
        number = trusted.versions.root - len(documents.later_roots)
        for offset, root in enumerate(documents.later_roots, start=1):
            self._store.write(f"trust/{number + offset}.root.json", root)
        # The timestamp last: until it is there, the old set stays consistent or is refused whole.
        for role in _ROLES:
            self._store.write(f"trust/{role}.json", getattr(documents, role))
        self._accept(trusted)

    @staticmethod
    def _fetch(source: TrustSource, pinned: bytes) -> TrustDocuments:
        roots: list[bytes] = []
        number = Root.pinned(pinned).metadata.version
        while len(roots) < MAX_ROOT_STEPS:
            number += 1
            try:
                roots.append(source.trust(f"{number}.root.json"))
            except NotFound:
                break
        targets, snapshot, timestamp = (source.trust(f"{role}.json") for role in _ROLES)
        return TrustDocuments(roots, timestamp, snapshot, targets)
