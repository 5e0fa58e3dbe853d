"""The pod's channel: attestations and trust metadata, as the client's verifier reads them.

Bytes go out as they were signed and stored; nothing is signed or judged here. What a caller may
not see answers like what does not exist; the reasons of a denial are told to who may see the
repository.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.verify import MAX_BUNDLES
from kgate_mirror_server.serve.evidenceapi import find_variant
from kgate_mirror_server.serve.openapi import DOCUMENT
from kgate_mirror_server.serve.wire import error, json_answer, json_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_mirror_server.ports import Denial
    from kgate_mirror_server.serve.lookup import Visible
    from kgate_mirror_server.serve.trustfolder import TrustFolder
    from kgate_mirror_server.serve.view import ProvenVariant, Withheld
    from kgate_mirror_server.serve.wire import Answer, Header

SCHEMA: Final = "kgate.dev/attestations/v1"
_FRESH: Final = (b"cache-control", b"no-cache")


class PodApi:
    """Answers requests below `/api/kgate/v1/`."""

    def __init__(self, trust: TrustFolder) -> None:
        self._trust = trust

    def answer(self, parts: Sequence[str], visible: Visible) -> Answer:
        """Answer a request whose path, after `/api/kgate/v1/`, is `parts`."""
        match parts:
            case ["trust", name]:
                data = self._trust.document(name)
                if data is None:
                    return error(404, "there is no such trust document")
                return json_bytes(data, _FRESH)
            case ["openapi.json"]:
                return json_answer(DOCUMENT)
            case ["attestations", "by-manifest", digest]:
                return _by_manifest(digest, visible)
            case ["attestations", org, name, revision, variant]:
                return _by_name(org, name, revision, variant, visible)
            case _:
                return error(404, "there is nothing at this address")


def _by_manifest(text: str, visible: Visible) -> Answer:
    try:
        digest = Digest(text.removeprefix("sha256:"))
    except InvalidInput:
        return _absent("not a manifest digest: give 64 hex digits", "malformed", status=400)
    found = [
        variant
        for variant in visible.view.manifests.get(digest, ())
        if visible.caller.sees(visible.name, str(variant.repo))
    ]
    if not found:
        return _absent("there is no attestation for this manifest", "unknown")
    return attestations(found)


def _by_name(org: str, name: str, revision: str, variant: str, visible: Visible) -> Answer:
    if found := find_variant(visible, org, name, revision, variant):
        return attestations([found])
    ref = f"{org}/{name}"
    for denial in told(visible, ref):
        if denial.variant == variant and revision in {str(denial.upstream), f"v{denial.version}"}:
            return _absent(
                f"{ref} {variant} was denied in lane {visible.name}",
                "denied",
                reasons=list(denial.reasons),
            )
    for item in withheld_from(visible, ref):
        if (item.variant, str(item.served)) == (variant, revision):
            word = "revoked" if item.revoked else "withheld"
            return _absent(f"{ref} {variant} is withheld: {item.reason}", word)
    return _absent("there is no attestation under this name", "unknown")


def withheld_from(visible: Visible, repo: str) -> tuple[Withheld, ...]:
    """Return what was published of a repository and is not served now, if the caller may know."""
    if not visible.caller.sees(visible.name, repo):
        return ()
    return visible.view.withheld.get(repo, ())


def told(visible: Visible, repo: str) -> tuple[Denial, ...]:
    """Return the denials of a repository that this caller may know of."""
    if not visible.caller.sees(visible.name, repo):
        return ()
    return visible.view.denials.get(repo, ())


def attestations(variants: Sequence[ProvenVariant]) -> Answer:
    """Return the manifest and every bundle about it, each once."""
    bundles = dict.fromkeys(bundle for variant in variants for bundle in variant.proof.bundles)
    parts = b",".join(list(bundles)[:MAX_BUNDLES])
    manifest = base64.b64encode(variants[0].proof.manifest)
    # The bundles are JSON already and go in as they are: their bytes are what a digest names.
    body = b'{"schema":%b,"manifest":"%b","bundles":[%b]}' % (
        json.dumps(SCHEMA).encode("ascii"),
        manifest,
        parts,
    )
    headers: list[Header] = [_FRESH, (b"etag", b'"%b"' % Digest.of(body).hex.encode("ascii"))]
    return json_bytes(body, *headers)


def _absent(
    message: str, reason: str, *, status: int = 404, reasons: list[dict[str, Any]] | None = None
) -> Answer:
    document: dict[str, Any] = {"error": message, "reason": reason}
    if reasons is not None:
        document["reasons"] = reasons
    return json_answer(document, _FRESH, status=status)
