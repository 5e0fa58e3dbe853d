from __future__ import annotations

from dataclasses import dataclass

import pytest

from kgate_core.bundle import Bundle
from kgate_core.errors import TrustError
from kgate_core.keys import Algorithm, PublicKey
from kgate_core.statement import Statement, subjects_of
from kgate_signer.keys import FileKey
from kgate_signer.sign import sign_statement
from tests.trustkit import manifest_of

STATEMENT = Statement.of(subjects_of(manifest_of()), "https://x.test/v1", {"a": 1})


@dataclass
class OddKey:
    """A key provider that answers what a test tells it to."""

    answer: bytes
    key: FileKey

    def public_key(self) -> PublicKey:
        return self.key.public_key()

    def sign(self, _: bytes) -> bytes:
        return self.answer


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_bundle_holds_the_statements_exact_bytes_and_the_keys_hint(
    algorithm: Algorithm,
) -> None:
    key = FileKey.generate(algorithm)
    bundle = Bundle.parse(sign_statement(STATEMENT, key))
    assert bundle.envelope.payload == STATEMENT.data
    assert bundle.hint == bundle.envelope.keyid == key.public_key().hint
    assert key.public_key().verify(bundle.envelope.signature, bundle.envelope.signed_bytes)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (FileKey.generate().sign(b"something"), "not its own"),
        (b"\x30\x06\x02\x01\x01\x02\x01\x01", "not its own"),
        (b"", "cannot be read back"),
        (b"x" * 600, "cannot be read back"),
    ],
    ids=["of another message", "of one and one", "empty", "too long"],
)
def test_a_signature_that_nobody_could_verify_never_leaves(answer: bytes, said: str) -> None:
    with pytest.raises(TrustError, match=said):
        sign_statement(STATEMENT, OddKey(answer, FileKey.generate()))


def test_an_unreachable_key_is_an_error_and_no_bundle() -> None:
    class Gone(OddKey):
        def sign(self, _: bytes) -> bytes:
            raise TrustError("the device is gone")

    with pytest.raises(TrustError, match="the device is gone"):
        sign_statement(STATEMENT, Gone(b"", FileKey.generate()))
