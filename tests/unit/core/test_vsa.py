from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.vsa import EXTENSION, Vsa, level_of
from tests.trustkit import make_trust, manifest_of

VSA = make_trust().vsa(manifest_of())


def test_a_decision_is_read_back_as_it_was_written() -> None:
    full = replace(
        VSA,
        depends=(Digest.of(b"d"),),
        inputs=(Digest.of(b"i"), Digest.of(b"j")),
        feed=Digest.of(b"f"),
    )
    for vsa in (VSA, full, replace(VSA, passed=False)):
        assert Vsa.from_predicate(json.loads(json.dumps(vsa.to_predicate()))) == vsa


def test_a_decision_states_the_lane_and_never_a_slsa_level() -> None:
    assert VSA.to_predicate()["verifiedLevels"] == ["KGATE_EXPERIMENTAL"]
    assert replace(VSA, passed=False).to_predicate()["verifiedLevels"] == []
    assert level_of("my-lane") == "KGATE_MY_LANE"


def changed(**changes: Any) -> dict[str, Any]:
    return VSA.to_predicate() | changes


def extended(**changes: Any) -> dict[str, Any]:
    predicate = VSA.to_predicate()
    predicate[EXTENSION] |= changes
    return predicate


@pytest.mark.parametrize(
    ("predicate", "said"),
    [
        (changed(verifiedLevels=["SLSA_BUILD_LEVEL_3"]), "do not belong to lane"),
        (changed(verifiedLevels=["KGATE_PRODUCTION"]), "do not belong to lane"),
        (changed(verificationResult="FAILED"), "do not belong to lane"),
        (changed(verificationResult="passed"), "do not belong to lane"),
        (extended(lane="production"), "do not belong to lane"),
        (changed(resourceUri="pkg:huggingface/a/b"), "package URL"),
        (changed(verifier={}), "'id' is missing"),
        (changed(policy={"uri": "x", "digest": {"sha256": "0"}}), "64 lower-case hex"),
        (changed(timeVerified="2026-11-21"), "not a time"),
        (changed(inputAttestations=[{}]), "'digest' is missing"),
        (extended(manifest="0" * 64), "not a digest"),
        (extended(feed=7), "not a digest"),
        (extended(depends=[1]), "list of strings"),
        (extended(upstreamRevision="main"), "not a commit"),
        (extended(validUntil=None), "should be str"),
        ({key: value for key, value in VSA.to_predicate().items() if key != EXTENSION}, "missing"),
    ],
)
def test_a_decision_with_a_missing_or_contradictory_binding_is_refused(
    predicate: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        Vsa.from_predicate(predicate)
