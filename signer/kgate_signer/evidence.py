"""Check the attestations that no pod reads: how a kernel came, its SBOM, results, its model form.

For people and audits, beside the verdict on the decision, with the same trusted root. A statement
is believed if a key signed it that was registered for what is found (role ingest) or that brings
kernels in (admit). Bundles that a decision names in its inputs are covered by that decision too,
so they outlive their own key. What the statements say is not judged here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.breakglass import PREDICATE_TYPE as BREAK_GLASS_TYPE
from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.statement import PAYLOAD_TYPE, Statement, subjects_of
from kgate_core.vsa import PREDICATE_TYPE as VSA_TYPE
from kgate_signer.modelsigning import PREDICATE_TYPE as MODEL_TYPE
from kgate_signer.modelsigning import model_hint, model_subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kgate_core.keys import PublicKey
    from kgate_core.manifest import Manifest
    from kgate_core.trust import TrustedRoot

ADMIT: Final = "admit"
INGEST: Final = "ingest"


@dataclass(frozen=True, slots=True)
class Checked:
    """One attestation that is no decision: what it is and whether it can be believed."""

    predicate_type: str
    ok: bool
    detail: str
    """Who signed it, or what is wrong with it."""


def check_evidence(
    manifest: Manifest,
    bundles: Sequence[bytes],
    lane: str,
    trusted: TrustedRoot,
    inputs: Sequence[Digest],
    *,
    now: datetime,
) -> tuple[Checked, ...]:
    """Check every attestation about a manifest that is no decision; the order stays.

    `inputs` are the digests that a verified decision names; empty if there is none.
    """
    keys = _believed(lane, trusted)
    checked = []
    for data in bundles:
        try:
            bundle = Bundle.parse(data)
            statement = Statement.parse(bundle.envelope.payload)
        except InvalidInput as exc:
            checked.append(Checked("", ok=False, detail=exc.message))
            continue
        if statement.predicate_type in {VSA_TYPE, BREAK_GLASS_TYPE}:
            continue  # those are `verify`'s
        named = Digest.of(data) in inputs
        if problem := _problem(bundle, statement, manifest, keys, trusted, now, named=named):
            checked.append(Checked(statement.predicate_type, ok=False, detail=problem))
        else:
            role, public = keys[bundle.hint]
            said = f"{public.algorithm} by {role}:{public.hint}"
            if named:
                said += ", named by the decision"
            checked.append(Checked(statement.predicate_type, ok=True, detail=said))
    return tuple(checked)


def _believed(lane: str, trusted: TrustedRoot) -> dict[str, tuple[str, PublicKey]]:
    """Return role and key by every hint that our bundles name a key by."""
    known = trusted.lanes.get(lane)
    admits = known.roles[ADMIT].keyids if known is not None and ADMIT in known.roles else ()
    found: dict[str, tuple[str, PublicKey]] = {}
    for key in trusted.keys.values():
        role = ADMIT if key.public.keyid in admits else key.role
        if role in {ADMIT, INGEST}:
            found |= dict.fromkeys((key.public.hint, model_hint(key.public)), (role, key.public))
    return found


def _problem(  # private: one argument for each thing compared
    bundle: Bundle,
    statement: Statement,
    manifest: Manifest,
    keys: Mapping[str, tuple[str, PublicKey]],
    trusted: TrustedRoot,
    now: datetime,
    *,
    named: bool,
) -> str:
    """Say why an attestation is not believed; empty if it is."""
    envelope = bundle.envelope
    if bundle.hint not in keys:
        return f"signed by the key {bundle.hint}, which holds neither {INGEST} nor {ADMIT} here"
    _, public = keys[bundle.hint]
    if envelope.payload_type != PAYLOAD_TYPE or not public.verify(
        envelope.signature, envelope.signed_bytes
    ):
        return f"the signature is not one of the key {public.hint}"
    model = statement.predicate_type == MODEL_TYPE
    wanted = (model_subject(manifest),) if model else subjects_of(manifest)
    # A model is named by people; its digest binds the files.
    if [one.digest for one in statement.subjects] != [one.digest for one in wanted] or (
        not model and statement.subjects != wanted
    ):
        return f"it is about {statement.subjects[0].digest}, not about these files"
    key = trusted.keys[public.hint]
    if not named and public.keyid in trusted.revoked_keys:
        return f"the key {public.hint} is revoked, and no decision names this attestation"
    if not named and now >= key.valid_until:
        return f"the key {public.hint} has run out, and no decision names this attestation"
    return ""
