"""Where only approved algorithms may be used, none of the others is needed for anything."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519

from kgate_core.errors import TrustError
from kgate_core.keys import Algorithm
from kgate_core.verify import Expected, Verified, verify
from kgate_signer import trustchanges
from kgate_signer.attest import Attestor
from kgate_signer.keys import ANY, APPROVED, FileKey, from_uri
from kgate_signer.predicates import UpstreamVerdict, vsa_statement
from kgate_signer.sign import sign_statement
from kgate_signer.timestamps import HttpStamper
from tests.trustkit import EXPERIMENTAL, KERNEL, SITE, make_trust, manifest_of
from tests.tsakit import LocalAuthority
from tests.unit.signer.test_attest import EVIDENCE, Shelf
from tests.upstreamkit import Variant

if TYPE_CHECKING:
    from pathlib import Path


def _refuse(name: str) -> Any:
    def refused(*_: object, **options: object) -> Any:
        if options.get("usedforsecurity") is False:
            return hashlib.sha256()  # a git object id, say: no security rests on it
        raise AssertionError(f"{name} was used")

    return refused


@pytest.fixture
def _approved_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real_new = hashlib.new

    def new(name: str, *values: Any, **options: Any) -> Any:
        assert name.lower() not in {"md5", "sha1"} or options.get("usedforsecurity") is False
        return real_new(name, *values, **options)

    monkeypatch.setattr(hashlib, "new", new)
    for name in ("md5", "sha1"):
        monkeypatch.setattr(hashlib, name, _refuse(name))
        monkeypatch.setattr(hashes, name.upper(), _refuse(name))
    monkeypatch.setattr(ed25519.Ed25519PublicKey, "from_public_bytes", _refuse("Ed25519"))
    for name in ("generate", "from_private_bytes"):
        monkeypatch.setattr(ed25519.Ed25519PrivateKey, name, _refuse("Ed25519"))


@pytest.mark.usefixtures("_approved_only")
def test_a_kernels_whole_way_needs_no_other_algorithm(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    # Upstream's signature, our keys, trust, attestations, a timestamp, and a pod's verdict.
    assert Variant().digested().signed().check().verdict is UpstreamVerdict.VERIFIED
    key = FileKey.from_pem(FileKey.generate().to_pem(b"passphrase"), b"passphrase")
    opened = from_uri("file:k", read_file=lambda _: key.to_pem(None), allowed=APPROVED)
    assert opened.public_key() == key.public_key()
    kit = make_trust(now=now)
    authority = LocalAuthority(tmp_path)
    trust = trustchanges.add_authority(kit.trust, authority.pinned(now), kit.offline, now=now)
    kit = kit.changed(trust)
    decision = replace(EVIDENCE.decision, decided_at=now)
    with authority.served() as url:
        attestor = Attestor(
            SITE,
            kit.admit,
            Shelf(replace(EVIDENCE, decision=decision)),
            stamper=HttpStamper(url, authority.pinned(now)),
        )
        made = attestor.attest(KERNEL, EXPERIMENTAL, manifest_of().digest, now)
    expected = Expected(KERNEL.variant, EXPERIMENTAL, KERNEL.repo, KERNEL.revision)
    verdict = verify(expected, manifest_of(), made.bundles, kit.trusted(), now=now)
    assert isinstance(verdict, Verified)
    assert any("not later than" in step.detail for step in verdict.steps)


@pytest.mark.usefixtures("_approved_only")
def test_the_guard_of_these_tests_really_refuses() -> None:
    for forbidden in (hashlib.md5, hashlib.sha1, hashes.SHA1, hashes.MD5):
        with pytest.raises(AssertionError, match="was used"):
            forbidden()
    with pytest.raises(AssertionError, match="Ed25519 was used"):
        FileKey.generate(Algorithm.ED25519)


def test_an_ed25519_key_is_refused_unless_it_is_allowed() -> None:
    pem = FileKey.generate(Algorithm.ED25519).to_pem(None)
    opened = from_uri("file:k", read_file=lambda _: pem, allowed=ANY)
    statement = vsa_statement(manifest_of(), make_trust().vsa(manifest_of()))
    assert sign_statement(statement, opened)
    with pytest.raises(TrustError, match="is of type ed25519; allowed are ecdsa") as caught:
        from_uri("file:k", read_file=lambda _: pem, allowed=APPROVED)
    assert "P-256" in caught.value.hint
