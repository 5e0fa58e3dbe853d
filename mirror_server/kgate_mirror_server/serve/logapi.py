"""The publication log for pods: what was added after the head that a pod was shown before.

Entries go out as they were signed. They name the kernels of every lane, so only callers who see
everything get them; to others the mirror has no log. Whether a chain holds is the pod's to check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_mirror_server.serve.wire import Answer, json_answer
from kgate_signer.publog import EMPTY, head_of

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME: Final = "publications.jsonl"
START: Final = "start"
MAX_SENT: Final = 16 * 1024**2  # bytes; a pod reads no more
_TYPE: Final = (b"content-type", b"application/x-ndjson")
_FRESH: Final = (b"cache-control", b"no-cache")


class LogApi:
    """Reads the log beside the trust documents; keeps what a head of a line is."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._heads: dict[bytes, str] = {}

    def answer(self, after: str, *, whole: bool) -> Answer:
        """Answer with the entries after a head; `whole` is whether the caller sees everything."""
        if not whole:
            return _absent("unavailable")
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except OSError:
            return _absent("unavailable")
        position = self._position(lines, EMPTY if after == START else f"sha256:{after}")
        if position is None:
            return _absent("unknown-head")
        rest = lines[position:]
        body = b"".join(line + b"\n" for line in rest)
        if len(body) > MAX_SENT:
            return _absent("too-long")
        return Answer(200, body, (_TYPE, _FRESH))

    def _position(self, lines: list[bytes], head: str) -> int | None:
        if head == EMPTY:
            return 0
        for number, line in reversed(list(enumerate(lines, start=1))):
            if line not in self._heads:
                try:
                    self._heads[line] = head_of(line)
                except InvalidInput:
                    return None
            if self._heads[line] == head:
                return number
        return None


def _absent(reason: str) -> Answer:
    document = {"error": "the publication log does not answer this", "reason": reason}
    return json_answer(document, _FRESH, status=404)
