from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_signer import trustchanges
from kgate_signer.attest import Attestations, Attestor
from kgate_signer.evidence import Checked, check_evidence
from kgate_signer.keys import FileKey
from kgate_signer.modelsigning import PREDICATE_TYPE as MODEL_TYPE
from kgate_signer.predicates import IMPORT_TYPE, SBOM_TYPE
from tests.trustkit import (
    EXPERIMENTAL,
    KERNEL,
    NOW,
    SITE,
    TrustKit,
    make_trust,
    manifest_of,
    signing_key,
)
from tests.unit.signer.test_attest import EVIDENCE, Shelf

if TYPE_CHECKING:
    from kgate_core.manifest import Manifest
    from kgate_core.trust import TrustedRoot

INGEST = FileKey.generate()
_PLAIN = make_trust()
KIT = _PLAIN.changed(
    trustchanges.add_key(
        _PLAIN.trust, replace(signing_key(INGEST), role="ingest"), _PLAIN.offline, now=NOW
    )
)
MANIFEST = manifest_of()


@dataclass
class Made:
    """What a site published, to be checked."""

    found: Attestations

    @property
    def inputs(self) -> tuple[Digest, ...]:
        return tuple(Digest.of(data) for data in (self.found.imported, self.found.sbom) if data)


def made(kit: TrustKit = KIT, ingest: FileKey | None = INGEST) -> Made:
    signer = Attestor(SITE, kit.admit, Shelf(), ingest=ingest)
    return Made(signer.attest(KERNEL, EXPERIMENTAL, EVIDENCE.manifest.digest, NOW))


def checked(
    what: Made,
    trusted: TrustedRoot | None = None,
    *,
    manifest: Manifest = MANIFEST,
    inputs: tuple[Digest, ...] = (),
    days: int = 0,
) -> tuple[Checked, ...]:
    return check_evidence(
        manifest,
        what.found.bundles,
        EXPERIMENTAL,
        trusted or KIT.trusted(),
        inputs,
        now=NOW + timedelta(days=days),
    )


def test_what_was_found_is_believed_from_the_ingest_key_or_the_admit_key() -> None:
    for key, role in ((INGEST, "ingest"), (None, "admit")):
        what = made(ingest=key)
        found = checked(what, inputs=what.inputs)
        assert [item.predicate_type for item in found] == [IMPORT_TYPE, SBOM_TYPE, MODEL_TYPE]
        assert all(item.ok for item in found)
        assert f"by {role}:" in found[0].detail
        assert found[0].detail.endswith("named by the decision")


def test_a_key_of_another_role_states_nothing() -> None:
    found = checked(made(ingest=KIT.approve))
    assert [item.ok for item in found] == [False, False, True]
    assert "holds neither ingest nor admit here" in found[0].detail


def test_statements_about_other_files_are_not_about_these() -> None:
    found = checked(made(), manifest=manifest_of({"__init__.py": b"pass\n"}))
    assert [item.ok for item in found] == [False, False, False]
    assert all("not about these files" in item.detail for item in found)


def test_changed_bytes_are_noticed() -> None:
    what = made()
    text = what.found.imported.replace(b'"sig":"M', b'"sig":"N')
    broken = check_evidence(MANIFEST, [text, b"{}"], EXPERIMENTAL, KIT.trusted(), (), now=NOW)
    assert [item.ok for item in broken] == [False, False]


def test_a_decision_keeps_alive_what_it_names_when_the_key_has_gone() -> None:
    what = made()
    public = INGEST.public_key()
    revoked = KIT.changed(
        trustchanges.revoke_key(KIT.trust, public.keyid, "stolen", KIT.offline, now=NOW)
    ).trusted()
    assert [item.ok for item in checked(what, revoked)] == [False, False, True]
    assert [item.ok for item in checked(what, revoked, inputs=what.inputs)] == [True, True, True]
    # The same when it has run out.
    late = checked(what, days=4000)
    assert "has run out" in late[0].detail
    assert [item.ok for item in checked(what, inputs=what.inputs, days=4000)][:2] == [True, True]


def test_an_unknown_lane_has_no_admit_key() -> None:
    found = check_evidence(
        MANIFEST, made(ingest=None).found.bundles, "nowhere", KIT.trusted(), (), now=NOW
    )
    assert not any(item.ok for item in found)
