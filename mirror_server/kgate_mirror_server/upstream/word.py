"""What an upstream said about one variant: a verdict, and the answer that it rests on.

A value only: fetching and checking are `voucher`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kgate_signer.predicates import UpstreamSignature


@dataclass(frozen=True, slots=True)
class Word:
    """What an upstream said about one variant."""

    verdict: UpstreamSignature
    document: bytes | None = None
    """Its answer with manifest and bundles, in canonical bytes; None if there was none."""
