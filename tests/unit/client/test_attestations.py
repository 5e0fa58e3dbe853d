from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kgate_client.attestations import AttestationFinder, Attested
from kgate_client.store import DocumentStore
from kgate_core.errors import InvalidInput, KgateError, NotFound
from tests.trustkit import FILES, make_trust, manifest_of

if TYPE_CHECKING:
    from kgate_core.manifest import Manifest

NAME = "acme/relu/" + "a" * 40 + "/torch-cpu"


class _Mirror:
    def __init__(self, documents: dict[str, Attested]) -> None:
        self.documents = documents

    def attestations(self, name: str) -> bytes:
        if name not in self.documents:
            raise NotFound(name)
        return self.documents[name].to_bytes()


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return manifest_of(FILES)


@pytest.fixture(scope="module")
def attested(manifest: Manifest) -> Attested:
    return Attested(manifest, (make_trust().bundle(manifest),))


def test_a_document_survives_the_way_to_disk_and_back(attested: Attested) -> None:
    assert Attested.parse(attested.to_bytes()) == attested


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "kgate.dev/attestations/v2"}, "unknown schema"),
        ({"manifest": "***"}, "not base64"),
        ({"manifest": "e30="}, "manifest"),
        ({"bundles": None}, "bundles"),
    ],
)
def test_other_documents_are_refused(attested: Attested, change: dict[str, str], said: str) -> None:
    document = json.loads(attested.to_bytes()) | change

    with pytest.raises(InvalidInput, match=said):
        Attested.parse(json.dumps(document).encode())


def test_what_was_fetched_is_found_again_by_name_and_by_files(attested: Attested) -> None:
    store = DocumentStore(None)
    finder = AttestationFinder(store, _Mirror({NAME: attested}))
    digest = attested.manifest.digest
    assert finder.online
    assert finder.cached(digest) is None
    assert finder.hint(NAME) is None

    assert finder.fetch(NAME, digest) == attested
    offline = AttestationFinder(store, None)

    assert not offline.online
    assert offline.cached(digest) == attested
    assert offline.hint(NAME) == attested


def test_without_a_name_the_mirror_is_asked_by_manifest(attested: Attested) -> None:
    digest = attested.manifest.digest
    finder = AttestationFinder(
        DocumentStore(None), _Mirror({f"by-manifest/{digest.hex}": attested})
    )

    assert finder.fetch(None, digest) == attested
    with pytest.raises(NotFound):
        finder.fetch(NAME, digest)


def test_offline_nothing_is_fetched(manifest: Manifest) -> None:
    with pytest.raises(KgateError, match="offline"):
        AttestationFinder(DocumentStore(None), None).fetch(NAME, manifest.digest)


def test_bundles_about_several_revisions_are_kept_together(manifest: Manifest) -> None:
    kit = make_trust()
    first, second = kit.bundle(manifest), kit.bundle(manifest, metadata_id="other")
    mirror = _Mirror({NAME: Attested(manifest, (first,))})
    finder = AttestationFinder(DocumentStore(None), mirror)
    finder.fetch(NAME, manifest.digest)
    mirror.documents[NAME] = Attested(manifest, (second,))

    found = finder.fetch(NAME, manifest.digest)

    assert found.bundles == (second, first)
    assert finder.cached(manifest.digest) == found


def test_a_damaged_cache_is_no_answer(attested: Attested, manifest: Manifest) -> None:
    store = DocumentStore(None)
    finder = AttestationFinder(store, None)
    path = f"attestations/{manifest.digest.hex}.json"

    store.write(path, b"{}")
    assert finder.cached(manifest.digest) is None
    other = manifest_of(FILES | {"more.py": b""})
    store.write(path, Attested(other, attested.bundles).to_bytes())
    assert finder.cached(manifest.digest) is None
    store.write(f"names/{NAME}", b"\xff not a digest")
    assert finder.hint(NAME) is None
