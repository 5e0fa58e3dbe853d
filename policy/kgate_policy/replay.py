"""Evidence and policies as bytes, so that a decision can be asked again years later.

Equal evidence and policies give equal bytes. A policy's bytes name the pack of built-in rules;
another pack is refused, because the same settings would be asked of other code. Nothing is
signed here: the digests stand in the attestations.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput
from kgate_core.evidence import Evidence, ScanReport, Severity
from kgate_core.kernel import KernelId
from kgate_core.manifest import Manifest
from kgate_policy.baseline import PACK
from kgate_policy.document import load_expressions
from kgate_policy.located import read_document
from kgate_policy.parameters import Parameters
from kgate_policy.policy import SCHEMA as POLICY_SCHEMA
from kgate_policy.policy import Policy
from kgate_policy.rules import Level

if TYPE_CHECKING:
    from kgate_core.evidence import Facts

EVIDENCE_SCHEMA: Final = "kgate.dev/evidence/v1"
_NUMBERS: Final = frozenset({"scans_max_days", "advisories_max_days", "qualification_min_speedup"})
MAX_BYTES: Final = 256 * 1024**2  # bytes; a scan of thousands of device kernels is large


def evidence_bytes(evidence: Evidence) -> bytes:
    """Return canonical bytes of everything that a policy is asked about."""
    return strictjson.dumps(
        {
            "schema": EVIDENCE_SCHEMA,
            "kernel": evidence.kernel.purl,
            "lane": evidence.lane,
            "manifest": evidence.manifest.canonical.decode(),
            # A publisher's document may hold fractions, which canonical JSON does not.
            "metadata": json.dumps(evidence.metadata, sort_keys=True, ensure_ascii=False),
            "scan": None if evidence.scan is None else evidence.scan.to_bytes().decode(),
            "sbom": None if evidence.sbom is None else str(evidence.sbom),
            "imported": evidence.imported,
            "asked": evidence.asked,
            "stated": evidence.stated,
        }
    )


def read_evidence(data: bytes) -> Evidence:
    """Read what `evidence_bytes` wrote; raises InvalidInput."""
    what = "evidence"
    document = _read(data, EVIDENCE_SCHEMA, what)
    scan, sbom = document.get("scan"), document.get("sbom")
    metadata = strictjson.loads(
        strictjson.take(document, "metadata", str, what=what).encode(), what=what, floats=True
    )
    if not isinstance(metadata, dict):
        raise InvalidInput(f"{what}: metadata is not an object")
    return Evidence(
        kernel=KernelId.parse_purl(strictjson.take(document, "kernel", str, what=what)),
        lane=strictjson.take(document, "lane", str, what=what),
        manifest=Manifest.parse(strictjson.take(document, "manifest", str, what=what).encode()),
        metadata=metadata,
        scan=None if scan is None else ScanReport.from_bytes(_text(scan, what).encode()),
        sbom=None if sbom is None else Digest.parse(sbom),
        imported=strictjson.take(document, "imported", dict, what=what),
        asked=strictjson.take(document, "asked", dict, what=what),
        stated=strictjson.take(document, "stated", dict, what=what),
    )


def policy_bytes(policy: Policy) -> bytes:
    """Return canonical bytes of a policy; their digest is the policy's."""
    return strictjson.dumps(policy.to_json())


def read_policy_bytes(data: bytes) -> Policy:
    """Read what `policy_bytes` wrote; raises InvalidInput, and Conflict for another pack."""
    what = "policy"
    document = _read(data, POLICY_SCHEMA, what)
    pack = strictjson.take(document, "pack", str, what=what)
    if pack != PACK:
        raise Conflict(
            f"{what}: it was asked with the rules {pack}, these are {PACK}",
            hint="use the version of kgate that decided",
        )
    try:
        levels = {
            rule: Level(level)
            for rule, level in strictjson.take(document, "rules", dict, what=what).items()
        }
    except ValueError as exc:
        raise InvalidInput(f"{what}: {exc}") from exc
    policy = Policy(
        strictjson.take(document, "name", str, what=what),
        levels,
        _parameters(strictjson.take(document, "parameters", dict, what=what), what),
        tuple(
            expression
            for item in strictjson.take(document, "expressions", list, what=what)
            for expression in load_expressions(
                [read_document(strictjson.dumps(item["document"]), source=what)],
                tenant=strictjson.take(item, "tenant", str, what=what),
            )
        ),
    )
    if policy_bytes(policy) != data:
        raise InvalidInput(f"{what}: the bytes are not in canonical form")
    return policy


def _parameters(fields: Facts, what: str) -> Parameters:
    known = Parameters().to_json()
    strictjson.refuse_unknown(fields, set(known), what=what)
    values: dict[str, Any] = {}
    for key in known:
        if key in _NUMBERS:
            values[key] = strictjson.take(fields, key, int, what=what)
        elif key.startswith("severity_"):
            values[key] = Severity.parse(strictjson.take(fields, key, str, what=what))
        else:
            values[key] = strictjson.take_strings(fields, key, what=what)
    return Parameters(**values)


def _read(data: bytes, schema: str, what: str) -> Facts:
    document: Facts = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
    found = strictjson.take(document, "schema", str, what=what)
    if found != schema:
        raise InvalidInput(f"{what}: unknown schema {found!r}; this version reads {schema}")
    return document


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{what}: the scan is not a text")
    return value
