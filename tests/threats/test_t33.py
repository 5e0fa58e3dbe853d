"""T33: the signer crashes, or answers nonsense, halfway through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import TrustError
from kgate_core.verify import Expected, Verified, verify
from kgate_signer.attest import Attestations, Attestor
from kgate_signer.keys import FileKey
from kgate_signer.trustwriter import refresh_timestamp
from tests.threats.test_t32 import Catalog
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, SITE, make_trust, manifest_of
from tests.unit.signer.test_attest import EVIDENCE

if TYPE_CHECKING:
    from kgate_core.keys import PublicKey

KIT = make_trust()
MANIFEST = manifest_of()
SIGNATURES = 4  # import, SBOM, model and decision


@dataclass
class FailingKey:
    """Signs well until its n-th signature, then fails in one of the ways devices fail."""

    key: FileKey
    good: int
    how: str

    def public_key(self) -> PublicKey:
        return self.key.public_key()

    def sign(self, message: bytes) -> bytes:
        self.good -= 1
        if self.good >= 0:
            return self.key.sign(message)
        match self.how:
            case "gone":
                raise TrustError("the device is gone")
            case "truncated":
                return self.key.sign(message)[:-1]
            case "of other bytes":
                return self.key.sign(message + b" ")
            case "of another key":
                return FileKey.generate().sign(message)
            case _:
                return b""


HOW = ["gone", "truncated", "of other bytes", "of another key", "empty"]


def attest(key: FailingKey) -> Attestations:
    attestor = Attestor(SITE, key, Catalog(EVIDENCE))
    return attestor.attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("good", range(SIGNATURES))
def test_nothing_comes_out_unless_every_bundle_can_be_verified(how: str, good: int) -> None:
    with pytest.raises(TrustError):
        attest(FailingKey(KIT.admit, good, how))


def test_a_signer_that_lives_to_the_end_gives_verifiable_bundles() -> None:
    made = attest(FailingKey(KIT.admit, SIGNATURES, "gone"))
    expected = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
    verdict = verify(expected, MANIFEST, made.bundles, KIT.trusted(), now=NOW)
    assert isinstance(verdict, Verified)


@pytest.mark.parametrize("how", HOW)
def test_no_unverifiable_timestamp_is_published(how: str) -> None:
    with pytest.raises(TrustError):
        refresh_timestamp(KIT.trust, FailingKey(KIT.timestamp, 0, how), now=NOW)
