"""Whether a mirror's publication log goes on from what this pod was shown before (T46).

The head of the log stands in the signed timestamp. Each entry names the one before it by digest,
so a chain from the old head to the new one proves that nothing was cut or rewritten; who signed an
entry and whether it may run is no question here. A mirror may keep its log to itself: then nothing
is proven, and reports carry the head for others to compare.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.errors import KgateError, NotFound, TrustError
from kgate_core.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN_HEAD: Final = "unknown-head"
"""What a mirror says if its log never had the head that was asked about."""


class Log(StrEnum):
    """How the log stands to what was seen before."""

    UNCHANGED = "unchanged"
    EXTENDED = "extended"
    UNCHECKED = "unchecked"
    """The mirror does not show it, or nobody was asked."""


class LogSource(Protocol):
    """Where entries come from."""

    def log(self, after: str) -> bytes:
        """Return the entries after a head, a line each; raises NotFound, UpstreamError."""


def check_log(source: LogSource | None, seen: str | None, head: str) -> Log:
    """Return how `head` stands to the one seen before, None where none was.

    Raises TrustError if it cannot follow it.
    """
    if seen is None or seen == head:
        return Log.UNCHANGED
    if head == "":
        raise TrustError(f"the publication log is empty, and its head was {seen}")
    if source is None:
        return Log.UNCHECKED
    try:
        data = source.log(seen.removeprefix("sha256:") or "start")
    except NotFound as exc:
        if exc.message == UNKNOWN_HEAD:
            raise TrustError(f"the publication log does not hold {seen} any more") from exc
        return Log.UNCHECKED
    except KgateError:
        return Log.UNCHECKED
    if problem := find_break(data.splitlines(), seen, head):
        raise TrustError(problem)
    return Log.EXTENDED


def find_break(entries: Iterable[bytes], seen: str, head: str) -> str:
    """Return where these entries do not lead from one head to the other, or nothing."""
    what = "publication log"
    previous, number = seen, None
    for line in entries:
        try:
            payload = Bundle.parse(line).envelope.payload
            said = Statement.parse(payload).predicate
            before = strictjson.take(said, "previous", str, what=what)
            sequence = strictjson.take(said, "sequence", int, what=what)
        except KgateError as exc:
            return f"{what}: an entry cannot be read ({exc.message})"
        if before != previous:
            return f"{what}: entry {sequence} follows {before}, not {previous or 'the beginning'}"
        if sequence < 1 or (number is not None and sequence != number + 1):
            return f"{what}: entry {sequence} follows entry {number}"
        previous, number = str(Digest.of(payload)), sequence
        if previous == head:
            return ""  # what follows was added since, and nobody has vouched for it yet
    return f"{what}: it ends at {previous or 'nothing'}, the signed head is {head}"
