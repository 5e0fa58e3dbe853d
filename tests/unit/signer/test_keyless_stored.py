"""Bundles that were signed once and stay as they are: today's code must still accept them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kgate_core.errors import TrustError
from kgate_core.statement import Statement
from kgate_core.vsa import PREDICATE_TYPE, Vsa
from kgate_signer.keyless import Doubted, Identity, Keyless, Signed
from tests.sigstoreservers import ACCOUNT, PROVIDER
from tests.trustkit import KERNEL, manifest_of

FOLDER = Path(__file__).parents[2] / "assets" / "keyless"
SIGNER = Identity(PROVIDER, ACCOUNT)
STORED = ("rekor-v1.sigstore.json", "rekor-v2.sigstore.json")


def keyless() -> Keyless:
    return Keyless((FOLDER / "trust-config.json").read_bytes())


@pytest.mark.parametrize("name", STORED)
def test_a_stored_bundle_is_still_accepted(name: str) -> None:
    found = keyless().verify((FOLDER / name).read_bytes(), [SIGNER])
    assert isinstance(found, Signed)
    assert found.statement.predicate_type == PREDICATE_TYPE
    vsa = Vsa.from_predicate(found.statement.predicate)
    assert (vsa.kernel, vsa.manifest) == (KERNEL, manifest_of().digest)


@pytest.mark.parametrize("name", STORED)
def test_the_library_itself_accepts_it_without_our_code(name: str) -> None:
    from sigstore.models import Bundle, ClientTrustConfig
    from sigstore.verify import Verifier, policy

    config = ClientTrustConfig.from_json((FOLDER / "trust-config.json").read_text())
    bundle = Bundle.from_json((FOLDER / name).read_bytes())
    kind, payload = Verifier(trusted_root=config.trusted_root).verify_dsse(
        bundle, policy.AllOf([policy.Identity(identity=ACCOUNT), policy.OIDCIssuerV2(PROVIDER)])
    )
    assert kind == "application/vnd.in-toto+json"
    assert Statement.parse(payload).predicate_type == PREDICATE_TYPE


def _other_payload(document: dict[str, dict[str, str]]) -> None:
    document["dsseEnvelope"]["payload"] = "e30="


def _no_log(document: dict[str, dict[str, object]]) -> None:
    document["verificationMaterial"]["tlogEntries"] = []


def _other_proof(document: dict[str, dict[str, list[dict[str, dict[str, str]]]]]) -> None:
    proof = document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["rootHash"] = "A" * 43 + "="


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("change", [_other_payload, _no_log, _other_proof])
def test_a_stored_bundle_that_was_changed_is_doubted(name: str, change: object) -> None:
    document = json.loads((FOLDER / name).read_bytes())
    assert callable(change)
    change(document)
    assert isinstance(keyless().verify(json.dumps(document).encode(), [SIGNER]), Doubted)


def test_another_name_is_doubted_and_roots_without_a_log_are_no_roots() -> None:
    data = (FOLDER / STORED[0]).read_bytes()
    assert isinstance(keyless().verify(data, [Identity(PROVIDER, "somebody")]), Doubted)
    config = json.loads((FOLDER / "trust-config.json").read_bytes())
    config["trustedRoot"]["tlogs"] = []
    with pytest.raises(TrustError, match="roots cannot be used"):
        Keyless(json.dumps(config).encode()).verify(data, [SIGNER])
