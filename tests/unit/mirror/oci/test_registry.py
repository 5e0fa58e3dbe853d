from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest
import stamina

from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, NotFound, UpstreamError
from kgate_core.kernel import KernelRef
from kgate_mirror_server.oci import registry as module
from kgate_mirror_server.oci.connection import ATTEMPTS
from kgate_mirror_server.oci.credentials import Access, Place
from kgate_mirror_server.oci.registry import Registry
from kgate_mirror_server.oci.shape import EMPTY, INDEX, MANIFEST, Descriptor, Document
from tests.ocisim import Faults, Simulator, simulated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_mirror_server.oci.registry import Repository

DATA = os.urandom(300_000)
DIGEST = Digest.of(DATA)


@pytest.fixture(autouse=True)
def _without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with simulated() as found:
        yield found


def repository(simulator: Simulator, access: Access | None = None) -> Repository:
    place = Place.parse(f"oci://{simulator.address}/ns")
    return Registry(place, access).repository(KernelRef("Acme", "Relu"))


def opened(offset: int) -> Iterator[bytes]:
    for start in range(offset, len(DATA), 10_000):
        yield DATA[start : start + 10_000]


def push(target: Repository) -> int:
    return target.push_blob(DIGEST, len(DATA), opened)


def pull(target: Repository) -> bytes:
    return b"".join(target.pull_blob(DIGEST, len(DATA)))


def test_a_blob_goes_there_and_back_and_is_sent_once(simulator: Simulator) -> None:
    target = repository(simulator)
    assert target.name == "ns/acme/relu"
    assert push(target) == len(DATA)
    assert push(target) == 0
    assert pull(target) == DATA


def test_large_blobs_go_in_chunks(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UPLOAD_CHUNK", 70_000)
    target = repository(simulator)
    push(target)
    assert [method for method, *_ in simulator.requests].count("PATCH") == 5
    assert pull(target) == DATA


@pytest.mark.parametrize("cut", [1, 65_000, 250_000])
def test_a_cut_upload_goes_on_where_the_registry_says(simulator: Simulator, cut: int) -> None:
    simulator.faults.cut_upload_after = cut
    target = repository(simulator)
    assert push(target) == len(DATA)
    assert simulator.blobs[str(DIGEST)] == DATA


@pytest.mark.parametrize("ignore", [False, True])
def test_a_cut_download_goes_on_with_or_without_ranges(
    simulator: Simulator, *, ignore: bool
) -> None:
    target = repository(simulator)
    push(target)
    simulator.faults.cut_download_after = 100_000
    simulator.faults.ignore_ranges = ignore
    assert pull(target) == DATA


def test_a_blob_that_changed_in_our_store_is_never_finished_there(simulator: Simulator) -> None:
    target = repository(simulator)

    def spoiled(offset: int) -> Iterator[bytes]:
        yield (DATA[:-1] + b"\0")[offset:]

    with pytest.raises(IntegrityError, match="the stored bytes"):
        target.push_blob(Digest.of(b"other"), len(DATA), spoiled)
    assert simulator.blobs == {}


def test_an_endless_blob_ends_after_its_size(simulator: Simulator) -> None:
    target = repository(simulator)
    push(target)
    simulator.faults.endless = True
    assert len(pull(target)) <= len(DATA) + module.CHUNK


def test_a_busy_registry_is_asked_again_and_a_dead_one_is_given_up(
    simulator: Simulator,
) -> None:
    target = repository(simulator)
    simulator.faults.unavailable = 2
    assert not target.has_blob(DIGEST)
    simulator.faults.unavailable = 100
    with pytest.raises(UpstreamError, match="no answer in 4 attempts"):
        target.has_blob(DIGEST)


def test_manifests_are_compared_with_the_digest_that_was_asked_for(simulator: Simulator) -> None:
    target = repository(simulator)
    document = Document.of(INDEX, b'{"schemaVersion":2,"manifests":[]}')
    target.push_manifest(document.data, INDEX, "v1")
    digest = document.descriptor.digest
    assert target.manifest("v1").descriptor.digest == digest
    simulator.faults.spoil_manifests = True
    with pytest.raises(IntegrityError, match="has the digest"):
        target.manifest(digest)
    simulator.faults = Faults(wrong_header=True)
    with pytest.raises(IntegrityError, match="the registry says"):
        target.manifest("v1")
    with pytest.raises(NotFound):
        target.manifest("v2")


@pytest.mark.parametrize("api", [True, False])
def test_referrers_are_found_through_the_api_or_the_tag(simulator: Simulator, *, api: bool) -> None:
    simulator.faults.referrers = api
    target = repository(simulator)
    subject = Document.of(MANIFEST, b'{"schemaVersion":2}').descriptor
    assert target.referrers(subject.digest) == ()
    attached = []
    for number in range(3):
        fields = {
            "schemaVersion": 2,
            "artifactType": "text/plain",
            "number": number,
            "config": {"mediaType": EMPTY},
            "subject": subject.to_json(),
        }
        document = Document.of(MANIFEST, json.dumps(fields).encode())
        for _ in range(2):
            target.attach(document.data, document.descriptor, subject.digest)
        attached.append(document.descriptor.digest)
    assert {item.digest for item in target.referrers(subject.digest)} == set(attached)
    fallback = ("ns/acme/relu", f"sha256-{subject.digest.hex}")
    assert (fallback in simulator.manifests) is not api
    assert target.tags() == []
    if not api:
        kept = json.loads(simulator.manifests[fallback][1])["manifests"]
        assert [item["artifactType"] for item in kept] == ["text/plain"] * 3


def test_all_pages_of_a_list_are_read(simulator: Simulator) -> None:
    target = repository(simulator)
    for number in range(5):
        target.push_manifest(b"{}", INDEX, f"v{number}")
    assert target.tags() == [f"v{number}" for number in range(5)]


def test_a_token_is_fetched_with_the_users_credentials(
    simulator: Simulator, tmp_path: Path
) -> None:
    simulator.faults.token = "t0ken"
    config = tmp_path / "config.json"
    auth = base64.b64encode(b"kgate:secret").decode()
    config.write_text(json.dumps({"auths": {simulator.address: {"auth": auth}}}))
    target = repository(simulator, Access(config=config))
    push(target)
    assert pull(target) == DATA


def test_without_credentials_the_refusal_says_how_to_log_in(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    simulator.faults.token = "t0ken"
    with pytest.raises(UpstreamError, match="not allowed") as caught:
        push(repository(simulator))
    assert "t0ken" not in str(caught.value)


def test_credentials_do_not_follow_a_redirect_to_another_host(
    simulator: Simulator, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    auth = base64.b64encode(b"kgate:secret").decode()
    config.write_text(json.dumps({"auths": {simulator.address: {"auth": auth}}}))
    simulator.faults.token = "t0ken"
    with simulated() as storage:
        target = repository(simulator, Access(config=config))
        push(target)
        storage.blobs = simulator.blobs
        simulator.faults.redirect_to = f"http://localhost:{storage.address.rpartition(':')[2]}"
        assert pull(target) == DATA
        assert storage.requests
        assert [h for _, _, h in storage.requests if "Authorization" in h] == []


def test_a_netrc_file_is_not_used(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password private\n")
    repository(simulator).has_blob(DIGEST)
    assert [h for _, _, h in simulator.requests if "Authorization" in h] == []


@pytest.mark.parametrize(
    "text",
    ["registry.test/x", "oci://", "oci://a b/c", "oci://host/UPPER", "oci://host//x", "https://x"],
)
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Place.parse(text)


def test_a_name_that_no_registry_takes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no name for"):
        Place.parse("oci://host").repository(KernelRef("a", "b._c"))


def test_plain_http_is_for_this_machine_unless_said() -> None:
    access = Access()
    assert access.scheme("127.0.0.1:5000") == access.scheme("[::1]:5000") == "http"
    assert access.scheme("registry.test") == "https"
    assert Access(plain_http=True).scheme("registry.test") == "http"


def test_a_descriptor_that_is_none_is_refused(simulator: Simulator) -> None:
    target = repository(simulator)
    target.push_manifest(b'{"manifests":[{"digest":"sha256:x"}]}', INDEX, "v1")
    with pytest.raises(InvalidInput):
        target.manifest("v1").descriptors("manifests")
    assert Descriptor("a", DIGEST, 1).to_json() == {
        "mediaType": "a", "digest": str(DIGEST), "size": 1,
    }  # fmt: skip
