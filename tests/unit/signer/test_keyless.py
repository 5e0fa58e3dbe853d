"""Keyless signatures, with the real signer and verifier of `sigstore` against a local Sigstore."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.bundle import Bundle
from kgate_core.errors import InvalidInput, TrustError, UpstreamError
from kgate_signer.keyless import Doubted, Identity, Keyless, Signed, ambient_token
from kgate_signer.predicates import vsa_statement
from tests.sigstorekit import new_key
from tests.sigstoreservers import ACCOUNT, PROVIDER, Services
from tests.trustkit import make_trust, manifest_of
from tests.tsakit import LocalAuthority

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = manifest_of()
STATEMENT = vsa_statement(MANIFEST, make_trust().vsa(MANIFEST))
MIRROR = Identity(PROVIDER, ACCOUNT)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(LocalAuthority(tmp_path_factory.mktemp("tsa"))).served() as served:
        yield served


@pytest.fixture(params=[1, 2], ids=["rekor-v1", "rekor-v2"])
def keyless(services: Services, request: pytest.FixtureRequest) -> Iterator[Keyless]:
    yield Keyless(services.trust_config(request.param))
    services.broken = False


def test_what_an_identity_signed_is_believed_and_its_exact_bytes_come_back(
    services: Services, keyless: Keyless
) -> None:
    bundle = keyless.sign(STATEMENT, services.token)
    found = keyless.verify(bundle, [Identity(PROVIDER, "somebody else"), MIRROR])
    assert isinstance(found, Signed)
    assert found.statement.data == STATEMENT.data
    assert found.identity == MIRROR


def test_verifying_asks_nobody(services: Services, keyless: Keyless) -> None:
    bundle = keyless.sign(STATEMENT, services.token)
    document = json.loads(keyless.trust_config)
    for name in ("caUrls", "rekorTlogUrls", "tsaUrls"):
        document["signingConfig"][name][0]["url"] = "http://127.0.0.1:1"
    offline = Keyless(json.dumps(document).encode())
    assert isinstance(offline.verify(bundle, [MIRROR]), Signed)


@pytest.mark.parametrize(
    "identity",
    [Identity(PROVIDER, f"{ACCOUNT}-2"), Identity("https://other.test", ACCOUNT)],
    ids=["name", "issuer"],
)
def test_another_name_or_another_issuer_is_doubted(
    services: Services, keyless: Keyless, identity: Identity
) -> None:
    bundle = keyless.sign(STATEMENT, services.token)
    assert isinstance(keyless.verify(bundle, [identity]), Doubted)
    assert isinstance(keyless.verify(bundle, [MIRROR]), Signed)


def test_without_identities_nobody_is_believed(services: Services, keyless: Keyless) -> None:
    bundle = keyless.sign(STATEMENT, services.token)
    assert keyless.verify(bundle, []) == Doubted("nobody's signature counts here")


def test_a_changed_payload_and_garbage_are_doubted(services: Services, keyless: Keyless) -> None:
    document = json.loads(keyless.sign(STATEMENT, services.token))
    document["dsseEnvelope"]["payload"] = "e30="
    assert isinstance(keyless.verify(json.dumps(document).encode(), [MIRROR]), Doubted)
    for data in (b"", b"{}", b"\xff", b'{"mediaType":"x"}'):
        assert isinstance(keyless.verify(data, [MIRROR]), Doubted)


def test_another_sigstore_is_not_believed(
    services: Services, keyless: Keyless, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Services(LocalAuthority(tmp_path_factory.mktemp("other")))
    bundle = keyless.sign(STATEMENT, services.token)
    assert isinstance(Keyless(other.trust_config(1)).verify(bundle, [MIRROR]), Doubted)


def test_a_token_that_the_provider_did_not_sign_gets_no_certificate(
    services: Services, keyless: Keyless
) -> None:
    with pytest.raises(UpstreamError, match="did not sign"):
        keyless.sign(STATEMENT, lambda: services.token(key=new_key()))


def test_an_expired_or_malformed_token_is_refused_here(
    services: Services, keyless: Keyless
) -> None:
    late = datetime.now(UTC) - timedelta(hours=1)
    for token in ("nonsense", services.token(exp=late)):
        with pytest.raises(TrustError, match="identity token cannot be used"):
            keyless.sign(STATEMENT, lambda token=token: token)  # type: ignore[misc]  # bound now


def test_t33_a_log_that_logs_something_else_publishes_nothing(
    services: Services, keyless: Keyless
) -> None:
    services.broken = True
    with pytest.raises(TrustError, match="does not verify"):
        keyless.sign(STATEMENT, services.token)


def test_services_that_do_not_answer_are_said_so(services: Services) -> None:
    document = json.loads(services.trust_config(1))
    document["signingConfig"]["caUrls"][0]["url"] = "http://127.0.0.1:1"
    with pytest.raises(UpstreamError, match="did not sign"):
        Keyless(json.dumps(document).encode()).sign(STATEMENT, services.token)


def test_a_configuration_that_is_none_says_what_is_wanted() -> None:
    with pytest.raises(TrustError, match="cannot be used"):
        Keyless(b"{}").sign(STATEMENT, lambda: Services.token(Services(None)))  # type: ignore[arg-type]  # no timestamps are asked for


def test_a_process_that_nobody_vouches_for_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda: None)
    with pytest.raises(TrustError, match="vouches for an identity"):
        ambient_token()


def test_pods_read_no_keyless_bundle(services: Services, keyless: Keyless) -> None:
    with pytest.raises(InvalidInput, match="keyid"):
        Bundle.parse(keyless.sign(STATEMENT, services.token))
