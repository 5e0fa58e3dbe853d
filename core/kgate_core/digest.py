"""The only way in which kgate writes a hash.

A `Digest` is `sha256:<64 lower-case hex>`, as in the OCI image specification (descriptors,
"Digests"). Other algorithms are not parsed: the statement formats that every verifier reads
agree on sha256 alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = "sha256:"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The sha256 of some bytes; `hex` is its 64 lower-case digits."""

    hex: str

    def __post_init__(self) -> None:
        if not isinstance(self.hex, str) or _HEX.fullmatch(self.hex) is None:
            raise InvalidInput(f"not a sha256 in 64 lower-case hex digits: {self.hex!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<hex>`; raises InvalidInput for anything else."""
        if not isinstance(text, str) or not text.startswith(_PREFIX):
            raise InvalidInput(f"not a digest of the form sha256:<64 hex>: {text!r}")
        return cls(text[len(_PREFIX) :])

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """Return the digest of these bytes."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_chunks(cls, chunks: Iterable[bytes]) -> Digest:
        """Return the digest of the concatenated chunks, holding one at a time."""
        state = hashlib.sha256()
        for chunk in chunks:
            state.update(chunk)
        return cls(state.hexdigest())

    def __str__(self) -> str:
        return _PREFIX + self.hex

    @property
    def short(self) -> str:
        """First twelve hex digits, for people; never compared."""
        return self.hex[:12]
