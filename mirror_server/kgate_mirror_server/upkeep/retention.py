"""Which publications may go, and for each that stays why: pure, from what the catalog says.

Never goes what a version branch, a pin, the lock or a hold names, or what a kernel needs that
stays. A client that pinned a commit somewhere else is known by its use only: hence `keep_days`.
Nothing is taken away here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from kgate_mirror_server.catalog.keeping import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from kgate_core.lock import Lock
    from kgate_mirror_server.catalog.keeping import Hold
    from kgate_mirror_server.ports import Publication
    from kgate_mirror_server.settings.keeping import Retention
    from kgate_mirror_server.settings.site import Pin


@dataclass(frozen=True, slots=True)
class Known:
    """All that keeps a publication besides itself."""

    holds: Sequence[Hold] = ()
    last_used: Mapping[Place, date] | None = None
    lock: Lock | None = None
    pins: Sequence[Pin] = ()


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one publication, and why."""

    publication: Publication
    stays: bool
    reason: str


def decide(
    publications: Sequence[Publication], retention: Retention, known: Known, now: datetime
) -> tuple[Fate, ...]:
    """Return the fate of each publication; one that several versions mean comes once."""
    versions: dict[Place, set[int]] = {}
    once: dict[Place, Publication] = {}
    for item in publications:
        place = Place.of(item)
        once.setdefault(place, item)
        if item.version is not None:
            versions.setdefault(place, set()).add(item.version)
    newest = _newest(list(once.values()), retention.keep_newest)
    reasons: dict[Place, str] = {}
    for place, item in once.items():
        reason = _kept(place, item, versions.get(place, set()), known)
        if reason is None and place in newest:
            reason = f"is one of the {retention.keep_newest} newest of its lane"
        if reason is None:
            reason = _in_use(place, item, known, retention, now)
        if retention.keep_newest is None:
            reason = reason or "nothing goes while retention.keep_newest is not set"
        if reason is not None:
            reasons[place] = reason
    _keep_needed(once, reasons)
    return tuple(
        Fate(item, place in reasons, reasons.get(place) or _gone(place, known))
        for place, item in once.items()
    )


def _newest(items: Sequence[Publication], count: int | None) -> set[Place]:
    lines: dict[tuple[str, str, str], list[Publication]] = {}
    for item in items:
        lines.setdefault((str(item.repo_type), str(item.repo), item.lane), []).append(item)
    return {
        Place.of(item)
        for line in lines.values()
        for item in sorted(line, key=lambda one: one.published_at, reverse=True)[: count or None]
    }


def _kept(place: Place, item: Publication, versions: set[int], known: Known) -> str | None:
    for hold in known.holds:
        if hold.place == place:
            return f"is held by {hold.held_by}: {hold.reason}"
    if versions:
        return f"is what {', '.join(f'v{n}' for n in sorted(versions))} means"
    for locked in () if known.lock is None else known.lock.kernels:
        if (locked.repo, locked.lane, locked.commit) == (item.repo, item.lane, item.upstream):
            return "is in kgate.lock"
    for pin in known.pins:
        if pin.ref == item.repo and pin.revision in {str(item.upstream), str(item.served)}:
            return "is pinned in kgate.yaml"
    return None


def _in_use(
    place: Place, item: Publication, known: Known, retention: Retention, now: datetime
) -> str | None:
    limit = timedelta(days=retention.keep_days)
    used = (known.last_used or {}).get(place)
    # The whole of its last day counts.
    if used is not None and now - datetime.combine(used, time.max, UTC) < limit:
        return f"was used on {used}"
    if now - item.published_at < limit:
        return f"was published on {item.published_at:%Y-%m-%d}"
    return None


def _keep_needed(once: Mapping[Place, Publication], reasons: dict[Place, str]) -> None:
    """Keep what a publication needs that stays, to the end of the chain."""
    names: dict[tuple[str, str], list[Place]] = {}
    for place, item in once.items():
        for commit in {str(item.served), str(item.upstream)}:
            names.setdefault((f"{item.repo}@{commit}", item.lane), []).append(place)
    todo = list(reasons)
    while todo:
        item = once[todo.pop()]
        for need in item.depends:
            for place in names.get((need, item.lane), ()):
                if place not in reasons:
                    reasons[place] = f"{item.repo} needs it"
                    todo.append(place)


def _gone(place: Place, known: Known) -> str:
    used = (known.last_used or {}).get(place)
    return "nobody names it; " + ("never used" if used is None else f"last used on {used}")
