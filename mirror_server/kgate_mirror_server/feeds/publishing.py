"""Publish a feed of one's own: number it, sign it, check it as a receiver would, write it whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.errors import Conflict, InvalidInput, TrustError
from kgate_mirror_server.bundle.sealed import Sealed
from kgate_mirror_server.feeds.own import FEED, ROLE, read_own, sign_own
from kgate_mirror_server.trust.files import replace_file
from kgate_scanner.advisories.collecting import MAX_TOTAL

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.feeds.own import OwnFeed
    from kgate_scanner.advisories.collecting import Collected


def publish_own(
    mirror: Mirror,
    collected: Collected,
    target: Path,
    name: str,
    sequence: int | None,
    now: datetime,
) -> OwnFeed:
    """Sign documents and write the feed.

    Raises TrustError if the key is not one of the role `feed`, and Conflict if its number would
    not grow.
    """
    before = _number(target, name)
    number = before + 1 if sequence is None else sequence
    if number <= before:
        raise Conflict(
            f"{target} has the number {before}; {number} is not more",
            hint="leave --sequence out: the number then grows by itself",
        )
    key = mirror.key(mirror.config.keys.feed or "file:keys/feed.pem")
    keys = mirror.trusted(now).signers(ROLE, now)
    if key.public_key().hint not in keys:
        raise TrustError(
            f"the key {key.public_key().hint} is not registered for the role {ROLE!r}",
            hint="make one with `kgate keys generate feed`",
        )
    data = sign_own(collected, name, number, key, now)
    made = read_own(data, keys)
    replace_file(target, data)
    return made


def _number(target: Path, name: str) -> int:
    """Return the number of the feed that is there; 0 for none."""
    if not target.exists():
        return 0
    try:
        data = target.read_bytes()
    except OSError as exc:
        raise InvalidInput(f"{target}: cannot be read ({exc.strerror})") from exc
    if len(data) > MAX_TOTAL:
        raise InvalidInput(f"{target}: more than {MAX_TOTAL} bytes: no feed")
    document = Sealed.parse(data, FEED).document
    if document.get("name") != name:
        raise Conflict(
            f"{target} is the feed {document.get('name')}, not {name}",
            hint="name another file: a feed replaces its own predecessor only",
        )
    sequence = document.get("sequence")
    return sequence if isinstance(sequence, int) else 0
