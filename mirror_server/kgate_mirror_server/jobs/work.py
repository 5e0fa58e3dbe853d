"""What workers do, as plain functions: bring in one pin, sign what waits, read the store again.

The same functions as the commands': a job that was killed is started anew and finds what was done.
Queues are `queue`'s affair. Nothing is resolved: only what kgate.lock names is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.errors import NotFound, UpstreamError
from kgate_mirror_server.ingest.resolve import read_lock, require_lock
from kgate_mirror_server.ingest.signing import sign
from kgate_mirror_server.ingest.sync import new_source, sync
from kgate_mirror_server.upkeep.scrub import scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from kgate_core.lock import Lock, LockedKernel
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.sync import Failure
    from kgate_mirror_server.models.intake import ModelFailure

    Told = Callable[[str], None]


def names_of(lock: Lock) -> list[str]:
    """Return what the pins of a lock are called in jobs."""
    return [name_of(locked) for locked in lock.kernels]


def name_of(locked: LockedKernel) -> str:
    """Return what a pin is called in jobs: `lane/org/name@vN`."""
    return f"{locked.lane}/{locked.repo}@{locked.pin}"


def locked_pins(mirror: Mirror) -> Lock:
    """Return the site's lock; raises Conflict if it is stale or not there."""
    return require_lock(read_lock(mirror.config.folder), mirror.config)


def bring_in(mirror: Mirror, name: str, now: datetime, tell: Told) -> None:
    """Fetch, scan and decide one pin and what it loads, without keys.

    Raises NotFound for a pin that is not locked any more, UpstreamError if it could not be had.
    """
    lock = locked_pins(mirror)
    wanted = _with_needs(lock, name)
    source = new_source(mirror, lambda _count: None)
    result = sync(
        mirror, lock, source, now, tell=tell, sign=False, only=lambda item: name_of(item) in wanted
    )
    _complain(result.failures)


def publish_decided(mirror: Mirror, now: datetime, tell: Told) -> None:
    """Decide anew about all that was brought in, sign it and publish it. Reaches no upstream."""
    result = sign(mirror, locked_pins(mirror), now, tell=tell)
    # A pin that is still on its way in is signed by the job that its arrival asks for.
    _complain([item for item in result.failures if not isinstance(item.error, NotFound)])


def read_again(mirror: Mirror, tell: Told) -> int:
    """Read every blob, fetch damaged files again; returns how many could not be repaired."""
    found = scrub(mirror, repair=True, tell=tell, progress=lambda _count: None)
    return sum(not item.repaired for item in found.troubles)


def _with_needs(lock: Lock, name: str) -> set[str]:
    by_name = {name_of(item): item for item in lock.kernels}
    if name not in by_name:
        raise NotFound(f"{name} is not in kgate.lock any more", hint="nothing is to be done")
    wanted, open_ = set(), [name]
    while open_:
        item = by_name.get(current := open_.pop())
        if item is not None and current not in wanted:
            wanted.add(current)
            open_ += [f"{item.lane}/{need}" for need in item.depends]
    return wanted


def _complain(failures: Sequence[Failure | ModelFailure]) -> None:
    """Raise what stopped a pin; first what another attempt may mend."""
    again = [item for item in failures if isinstance(item.error, UpstreamError)]
    for item in (*again, *failures):
        raise item.error
