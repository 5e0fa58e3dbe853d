"""A lane's floors of kgate.yaml as they are signed, and what differs from before, in sentences.

Nothing is signed here; locks that are named by file are read to get their digests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.trust import Lane
    from kgate_mirror_server.settings.site import Config


def floors_of(config: Config, lane: str) -> dict[str, Any]:
    """Return the fields of a lane that kgate.yaml sets; raises InvalidInput for a bad lock."""
    floors = config.lanes.get(lane)
    if floors is None:
        return {}
    found: dict[str, Any] = {}
    if floors.mode is not None:
        found["mode"] = floors.mode
    if floors.on_deny is not None:
        found["on_deny"] = dict(floors.on_deny)
    if floors.locks is not None:
        found["locks"] = {
            pool: frozenset(_digest(config, text) for text in texts)
            for pool, texts in floors.locks.items()
        }
    return found


def floor_changes(before: Lane, after: Lane) -> Iterator[str]:
    """Yield what changes between two floors of one lane."""
    if after.mode is not before.mode:
        yield f"pods at least {after.mode}, before {before.mode}"
    for repo in sorted({*before.on_deny, *after.on_deny}):
        old, new = before.on_deny.get(repo), after.on_deny.get(repo)
        if old is not new:
            yield f"on deny of {repo}: {new or 'nothing signed'}, before {old or 'nothing signed'}"
    for pool in sorted({*before.locks, *after.locks}):
        old_locks = before.locks.get(pool, frozenset())
        new_locks = after.locks.get(pool, frozenset())
        for digest in sorted(new_locks - old_locks, key=str):
            yield f"pool {pool} may use the lock {digest}"
        for digest in sorted(old_locks - new_locks, key=str):
            yield f"pool {pool} may not use the lock {digest} any more"


def _digest(config: Config, text: str) -> Digest:
    if text.startswith("sha256:"):
        return Digest.parse(text)
    path = config.path(text)
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise InvalidInput(
            f"{path}: the lock cannot be read ({exc.strerror})",
            hint="name a kgate.lock, or its sha256:… digest",
        ) from exc
    Lock.parse(data)
    return Digest.of(data)
