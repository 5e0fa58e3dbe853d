"""Evidence for people and programs: scan report, SBOM, decision and the rest of a variant.

Named by the catalog and checked by digest, not signed one by one: what a pod must believe is in
the attestations. Documents are sent as they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, KgateError, NotFound
from kgate_core.kernel import RepoType
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.serve.lookup import parse_ref
from kgate_mirror_server.serve.wire import error, json_answer, json_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_mirror_server.ports import BlobStore
    from kgate_mirror_server.serve.lookup import Visible
    from kgate_mirror_server.serve.view import ProvenVariant
    from kgate_mirror_server.serve.wire import Answer, Header

SCHEMA: Final = "kgate.dev/evidence/v1"
MAX_DOCUMENT: Final = 256 * 1024 * 1024  # bytes of one document, as the mirror's writer allows
_FRESH: Final = (b"cache-control", b"no-cache")


class EvidenceApi:
    """Answers requests below `/api/kgate/v1/evidence/`; reads blobs, so call it in a thread."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def answer(self, parts: Sequence[str], visible: Visible) -> Answer:
        """Answer a request whose path, after `/api/kgate/v1/evidence/`, is `parts`."""
        match parts:
            case ["by-manifest", digest, *rest]:
                found = _by_manifest(digest, visible)
            case [org, name, revision, variant, *rest]:
                found = find_variant(visible, org, name, revision, variant)
            case _:
                return error(404, "there is nothing at this address")
        match found, rest:
            case None, _:
                return error(404, "there is no evidence under this name")
            case _, []:
                return _listed(found)
            case _, [kind]:
                return self._document(found, kind)
            case _:
                return error(404, "there is nothing at this address")

    def _document(self, found: ProvenVariant, kind: str) -> Answer:
        digest = found.item.evidence.get(EvidenceKind(kind)) if kind in set(EvidenceKind) else None
        if digest is None:
            return error(404, f"there is no {kind[:40]} about this variant")
        try:
            with self._store.open(digest) as file:
                data = file.read(MAX_DOCUMENT + 1)
        except NotFound:
            return error(404, f"the {kind} about this variant is not kept any more")
        if Digest.of(data) != digest:
            raise KgateError(f"the stored document {digest} has changed")
        etag: Header = (b"etag", f'"{digest.hex}"'.encode("ascii"))
        return json_bytes(data, _FRESH, etag)


def find_variant(
    visible: Visible, org: str, name: str, revision: str, variant: str
) -> ProvenVariant | None:
    """Return a published variant that the caller may see, or None."""
    ref = parse_ref(org, name)
    if ref is None:
        return None
    for repo_type in RepoType:
        repo = visible.repo(ref, repo_type)
        view = repo.revisions.get(revision) if repo is not None else None
        if view is not None and variant in view.variants:
            return view.variants[variant]
    return None


def _by_manifest(text: str, visible: Visible) -> ProvenVariant | None:
    try:
        digest = Digest(text.removeprefix("sha256:"))
    except InvalidInput:
        return None
    return next(
        (
            variant
            for variant in visible.view.manifests.get(digest, ())
            if visible.caller.sees(visible.name, str(variant.repo))
        ),
        None,
    )


def _listed(found: ProvenVariant) -> Answer:
    return json_answer(
        {
            "schema": SCHEMA,
            "repo": str(found.repo),
            "revision": str(found.served),
            "variant": found.item.variant,
            "manifest": str(found.item.manifest),
            "evidence": {
                str(kind): str(digest) for kind, digest in sorted(found.item.evidence.items())
            },
        },
        _FRESH,
    )
