"""The OpenAPI description of the pod's channel, as `/api/kgate/v1/openapi.json` gives it.

The Hub's interface is not described here: it is the Hub's, and huggingface_hub is its reference.
"""

from __future__ import annotations

from typing import Any, Final

_JSON: Final = "application/json"


def _parameter(name: str, pattern: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    }


def _answer(description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description}
    if schema is not None:
        answer["content"] = {_JSON: {"schema": schema}}
    return answer


_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
_ORG: Final = _parameter("org", _NAME, "Publisher.", "kernels-community")
_REPO: Final = _parameter("name", _NAME, "Repository.", "relu")
_REVISION: Final = _parameter("revision", r"^[0-9a-f]{40}$", "Served revision.", "0" * 40)
_VARIANT: Final = _parameter("variant", r"^[a-z0-9-]{1,128}$", "Build variant.", "torch-cpu")
_MANIFEST: Final = _parameter("digest", r"^[0-9a-f]{64}$", "sha256 of the manifest.", "0" * 64)
_KIND: Final = _parameter(
    "kind", r"^(manifest|metadata|scan|sbom|import|decision)$", "Kind of evidence.", "sbom"
)
_DOCUMENT: Final = _parameter(
    "document",
    r"^([1-9][0-9]{0,8}\.root|timestamp|snapshot|targets)\.json$",
    "Name of the trust document.",
    "timestamp.json",
)
_REASONS: Final = ["unknown", "denied", "revoked", "withheld", "malformed"]
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "reason": {"type": "string", "enum": _REASONS},
        "reasons": {"type": "array", "items": {"type": "object"}},
    },
}
_ATTESTATIONS: Final = {
    "type": "object",
    "required": ["schema", "manifest", "bundles"],
    "properties": {
        "schema": {"const": "kgate.dev/attestations/v1"},
        "manifest": {"type": "string", "contentEncoding": "base64"},
        "bundles": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    },
}
_EVIDENCE: Final = {
    "type": "object",
    "required": ["schema", "manifest", "evidence"],
    "properties": {
        "schema": {"const": "kgate.dev/evidence/v1"},
        "manifest": {"type": "string"},
        "evidence": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_REFUSALS: Final = {
    "400": _answer("The address is malformed.", _ERROR),
    "401": _answer("The credentials are not good.", _ERROR),
    "404": _answer("It does not exist, or not for this caller.", _ERROR),
    "503": _answer("The mirror cannot answer now.", _ERROR),
}


def _get(
    summary: str, parameters: list[dict[str, Any]], description: str, schema: dict[str, Any]
) -> dict[str, Any]:
    return {
        "get": {
            "summary": summary,
            "parameters": parameters,
            "responses": {"200": _answer(description, schema), **_REFUSALS},
        }
    }


_BY_NAME: Final = [_ORG, _REPO, _REVISION, _VARIANT]
_BASE: Final = "/api/kgate/v1"
_NAMED: Final = "{org}/{name}/{revision}/{variant}"
_DIGESTED: Final = "by-manifest/{digest}"

DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "kgate attestations",
        "version": "1",
        "description": "What a pod reads before it loads a kernel, and what people ask afterwards.",
    },
    "paths": {
        f"{_BASE}/trust/{{document}}": _get(
            "A document of the trust metadata (TUF)",
            [_DOCUMENT],
            "The document as it was signed.",
            {"type": "object", "required": ["signed", "signatures"]},
        ),
        f"{_BASE}/attestations/{_NAMED}": _get(
            "Manifest and signed bundles of a variant", _BY_NAME, "All bundles.", _ATTESTATIONS
        ),
        f"{_BASE}/attestations/{_DIGESTED}": _get(
            "The same by the digest of its bytes", [_MANIFEST], "All bundles.", _ATTESTATIONS
        ),
        f"{_BASE}/evidence/{_NAMED}": _get(
            "Which evidence is kept about a variant", _BY_NAME, "Digests by kind.", _EVIDENCE
        ),
        f"{_BASE}/evidence/{_NAMED}/{{kind}}": _get(
            "One piece of evidence", [*_BY_NAME, _KIND], "The stored document.", {"type": "object"}
        ),
        f"{_BASE}/evidence/{_DIGESTED}": _get(
            "Which evidence is kept about these bytes", [_MANIFEST], "Digests by kind.", _EVIDENCE
        ),
        f"{_BASE}/evidence/{_DIGESTED}/{{kind}}": _get(
            "One piece of evidence", [_MANIFEST, _KIND], "The document.", {"type": "object"}
        ),
    },
}
