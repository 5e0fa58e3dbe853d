from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput, TrustError, UpstreamError
from kgate_core.timestamp import MAX_RESPONSE, read_response
from kgate_signer.timestamps import HttpStamper, authority_from, request_of
from tests.tsakit import LocalAuthority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    return LocalAuthority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def test_openssl_reads_our_request(authority: LocalAuthority) -> None:
    (authority.folder / "ours.tsq").write_bytes(request_of(b"signature"))
    text = authority.openssl("ts", "-query", "-in", "ours.tsq", "-text").decode()
    assert "Hash Algorithm: sha256" in text
    assert "Certificate required: yes" in text
    assert request_of(b"signature") != request_of(b"signature")  # a fresh nonce each time


def test_an_authority_dates_a_signature(authority: LocalAuthority, now: datetime) -> None:
    with authority.served() as url:
        response = HttpStamper(url, authority.pinned(now)).stamp(b"signature", now)
    moment = read_response(response, b"signature", authority.pinned(now))
    assert abs(moment - now) < timedelta(seconds=30)


def test_openssl_verifies_what_the_authority_answered(
    authority: LocalAuthority, now: datetime
) -> None:
    with authority.served() as url:
        response = HttpStamper(url, authority.pinned(now)).stamp(b"signature", now)
    (authority.folder / "data").write_bytes(b"signature")
    (authority.folder / "answer.tsr").write_bytes(response)
    said = authority.openssl(
        "ts", "-verify", "-data", "data", "-in", "answer.tsr", "-CAfile", "ca.pem"
    )
    assert b"Verification: OK" in said


def test_an_authority_out_of_order_is_no_authority(
    authority: LocalAuthority, now: datetime, tmp_path: Path
) -> None:
    broken = LocalAuthority(tmp_path, broken=True)
    with broken.served() as url, pytest.raises(TrustError, match="is no timestamp") as caught:
        HttpStamper(url, authority.pinned(now)).stamp(b"signature", now)
    assert "nothing was published" in caught.value.hint
    # Gone altogether.
    with pytest.raises(UpstreamError, match="did not answer"):
        HttpStamper(url, authority.pinned(now)).stamp(b"signature", now)


def test_another_authority_is_not_the_pinned_one(
    authority: LocalAuthority, now: datetime, tmp_path: Path
) -> None:
    other = LocalAuthority(tmp_path)
    with (
        other.served() as url,
        pytest.raises(TrustError, match=r"is not signed by timestamps\.test"),
    ):
        HttpStamper(url, authority.pinned(now)).stamp(b"signature", now)


def test_clocks_that_disagree_are_noticed_before_anything_is_published(
    authority: LocalAuthority, now: datetime
) -> None:
    with (
        authority.served() as url,
        pytest.raises(TrustError, match="this machine says"),
    ):
        HttpStamper(url, authority.pinned(now)).stamp(b"x", now + timedelta(minutes=6))


def test_an_endless_answer_is_cut_off(
    authority: LocalAuthority, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalAuthority, "answer", lambda *_: b"\x30" * (MAX_RESPONSE + 10))
    with (
        authority.served() as url,
        pytest.raises(TrustError, match=f"a timestamp of {MAX_RESPONSE + 1} bytes"),
    ):
        HttpStamper(url, authority.pinned(now)).stamp(b"x", now)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "timestamps.test", "ftp://x"])
def test_other_urls_are_refused(authority: LocalAuthority, now: datetime, url: str) -> None:
    with pytest.raises(InvalidInput, match="not the URL of a timestamp authority"):
        HttpStamper(url, authority.pinned(now))


def test_an_authority_is_pinned_by_certificate_or_by_bare_key(authority: LocalAuthority) -> None:
    now = datetime.now(UTC)
    pinned = authority.pinned(now)
    certificate = (authority.folder / "tsa.pem").read_bytes()
    by_certificate = authority_from(certificate, "a", now)
    assert by_certificate.pem == pinned.pem
    assert by_certificate.valid_until - now < timedelta(days=31)
    by_key = authority_from(pinned.pem.encode(), "a", now)
    assert by_key.pem == pinned.pem
    assert by_key.valid_from < now < by_key.valid_until
    for garbage in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(InvalidInput, match="not a PEM"):
            authority_from(garbage, "a", now)
