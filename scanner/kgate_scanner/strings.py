"""Finds telling texts in a binary: web addresses, paths of the build machine, names of credentials.

Each search is one pass of a bounded pattern over the bytes that can hold constants. It proves
nothing about what the code does with a text, and compressed payloads hide theirs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgate_core.evidence import Facts

_MAX: Final = 100  # texts kept per list
_MAX_MATCHES: Final = 10_000  # looked at per pattern and range; most repeat each other
_SCHEMES: Final = (b"https", b"http", b"ftp", b"wss", b"ws")
# Each pattern begins with the same few bytes: searches for such run at the speed of memory.
_URL: Final = re.compile(rb"://[A-Za-z0-9][!#-;=?-Z_a-z~]{3,250}")
_BUILD: Final = re.compile(
    rb"/(?:home|root|Users|tmp|build|workspace|__w|github|nix/store|opt/conda)"
    rb"/[A-Za-z0-9_.+/-]{4,250}"
)
_CREDENTIALS: Final = tuple(
    re.compile(name + rb"(?![A-Za-z0-9_])")
    for name in (
        rb"HF_TOKEN", rb"HUGGING_FACE_HUB_TOKEN", rb"AWS_SECRET_ACCESS_KEY", rb"GITHUB_TOKEN",
        rb"OPENAI_API_KEY", rb"ANTHROPIC_API_KEY", rb"GOOGLE_APPLICATION_CREDENTIALS",
        rb"\.ssh/id_[a-z0-9]+", rb"\.aws/credentials", rb"\.kube/config", rb"/etc/shadow",
        rb"169\.254\.169\.254", rb"/var/run/secrets/kubernetes\.io",
    )
)  # fmt: skip
_WORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.")


def read_strings(data: memoryview, ranges: Iterable[tuple[int, int]]) -> Facts:
    """Return sorted lists of telling texts in these byte ranges."""
    urls, paths, credentials = set[str](), set[str](), set[str]()
    for start, end in ranges:
        piece = data[start:end]
        for at, text in _matches(_URL, piece):
            before = bytes(piece[max(0, at - 5) : at])
            scheme = next((word for word in _SCHEMES if before.endswith(word)), None)
            if scheme is not None and len(urls) < _MAX:
                urls.add(_ascii(scheme + text))
        for at, text in _matches(_BUILD, piece):
            # In the middle of a longer path it is not the root of one.
            if (at == 0 or piece[at - 1] not in _WORD) and len(paths) < _MAX:
                paths.add(_ascii(text))
        credentials |= _credentials(piece)
    return {
        "urls": sorted(urls),
        "buildPaths": sorted(paths),
        "credentials": sorted(credentials),
    }


def credential_names(text: str) -> list[str]:
    """Return the names of credentials in a text, in order and without repeats."""
    return sorted(_credentials(memoryview(text.encode("utf-8", "replace"))))


def _credentials(piece: memoryview) -> set[str]:
    found = set()
    for pattern in _CREDENTIALS:
        for at, text in _matches(pattern, piece):
            if at == 0 or piece[at - 1] not in _WORD:
                found.add(_ascii(text))
    return found


def _matches(pattern: re.Pattern[bytes], piece: memoryview) -> Iterator[tuple[int, bytes]]:
    for number, found in enumerate(pattern.finditer(piece)):
        if number >= _MAX_MATCHES:
            return
        yield found.start(), found[0]


def _ascii(text: bytes) -> str:
    return text.decode("ascii", "backslashreplace")
