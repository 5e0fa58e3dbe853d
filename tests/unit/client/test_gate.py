"""The gate's steps against a mirror, a lock and a library path, without importing anything."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_client.answer import Cleared, Refused
from kgate_client.asked import Asked
from kgate_client.attestations import AttestationFinder, Attested
from kgate_client.process import build
from kgate_core.digest import Digest
from kgate_core.errors import NotFound, UpstreamError
from kgate_core.kernel import KernelRef
from kgate_core.lock import LockedVariant
from kgate_signer.trustchanges import revoke_digest
from tests.podkit import COMMIT, FILES, REPO, VARIANT, Pod, lock_of
from tests.trustkit import manifest_of
from tests.unit.client.test_closure import elf

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_client.answer import Answer

NAME = f"{REPO}/{COMMIT}/{VARIANT}"


class Mirror:
    """Serves attestations by name."""

    def __init__(self) -> None:
        self.documents: dict[str, Attested] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None

    def attestations(self, name: str) -> bytes:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        if name not in self.documents:
            raise NotFound("denied: require-signature")
        return self.documents[name].to_bytes()


@pytest.fixture
def mirror() -> Mirror:
    return Mirror()


def _check(pod: Pod, mirror: Mirror | None = None, asked: Asked | None = None) -> Answer:
    shim = build(pod.environment())
    shim.gate._finder = AttestationFinder(shim.store, mirror)
    return shim.gate.check(asked or Asked(REPO, COMMIT), pod.variant(), seal=False)


def _reason(answer: Answer) -> tuple[str, str]:
    assert isinstance(answer, Refused), answer
    return answer.reason, answer.message


def test_an_empty_cache_is_filled_by_asking_once(tmp_path: Path, mirror: Mirror) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    manifest = manifest_of(FILES)
    mirror.documents[NAME] = Attested(manifest, (pod.bundle(manifest, FILES),))

    assert isinstance(_check(pod, mirror), Cleared)
    assert isinstance(_check(pod, mirror), Cleared)
    assert isinstance(_check(pod), Cleared)
    assert mirror.asked == [NAME]


def test_a_worn_out_attestation_is_replaced_by_a_newer_one(tmp_path: Path, mirror: Mirror) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    manifest = pod.admit(FILES, valid_until=pod.trust.now.replace(year=2020))
    assert _reason(_check(pod))[0] == "expired"
    assert _reason(_check(pod, mirror))[0] == "expired"
    mirror.error = UpstreamError("down")
    assert _reason(_check(pod, mirror))[0] == "expired"

    mirror.error = None
    mirror.documents[NAME] = Attested(manifest, (pod.bundle(manifest, FILES),))
    assert isinstance(_check(pod, mirror), Cleared)


def test_a_mirrors_no_carries_its_reason(tmp_path: Path, mirror: Mirror) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    assert _reason(_check(pod, mirror)) == ("no-attestation", "denied: require-signature")
    mirror.error = UpstreamError("the mirror is down")
    assert _reason(_check(pod, mirror)) == (
        "no-attestation",
        "no attestation in the cache, and the mirror is down",
    )


def test_files_other_than_those_that_were_signed_are_named(tmp_path: Path, mirror: Mirror) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    manifest = manifest_of(FILES)
    mirror.documents[NAME] = Attested(manifest, (pod.bundle(manifest, FILES),))
    (pod.variant() / "added.py").write_text("")

    expected = ("integrity", "added.py is not in the signed manifest")
    assert _reason(_check(pod, mirror)) == expected
    assert _reason(_check(pod)) == expected


def test_what_is_revoked_is_not_asked_about_again(tmp_path: Path, mirror: Mirror) -> None:
    pod = Pod.make(tmp_path)
    kit = pod.trust
    digest = manifest_of(FILES).digest
    pod = pod.with_trust(revoke_digest(kit.trust, digest, "CVE-1", kit.offline, now=kit.now))

    assert _reason(_check(pod, mirror))[0] == "revoked"
    assert mirror.asked == []


def test_request_and_files_must_agree(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)

    assert _reason(_check(pod, asked=Asked("acme/other", "v1")))[0] == "wrong-identity"
    assert _reason(_check(pod, asked=Asked(REPO, "v2")))[0] == "wrong-identity"
    assert isinstance(_check(pod, asked=Asked(REPO, "v1")), Cleared)
    assert isinstance(_check(pod, asked=Asked(str(pod.variant()), "v0")), Cleared)


OTHER = LockedVariant(Digest.of(b"other"), 1, 1)
SAME = LockedVariant(manifest_of(FILES).digest, 1, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"pin": "v2"}, None),
        ({"repo": KernelRef("acme", "other")}, "not-locked"),
        ({"lane": "production"}, "not-locked"),
        ({"variants": {"torch-cuda": SAME}}, "not-locked"),
        ({"variants": {VARIANT: OTHER}}, "not-locked"),
        (None, "invalid-input"),
    ],
)
def test_a_lock_narrows_what_may_load(
    tmp_path: Path, changes: dict[str, Any] | None, reason: str | None
) -> None:
    pod = Pod.make(tmp_path)
    lock = tmp_path / "kgate.lock"
    if changes is not None:
        lock.write_bytes(lock_of(**changes))
    shim = build(pod.environment(KGATE_LOCK=str(lock)))

    for asked in (Asked(REPO, COMMIT), Asked(REPO, "v1")):
        answer = shim.gate.check(asked, pod.variant(), seal=False)
        assert (answer.reason if isinstance(answer, Refused) else None) == reason


def test_a_library_that_would_be_replaced_is_refused(tmp_path: Path) -> None:
    files = FILES | {
        "a.so": elf(needed=("libb.so",), runpath="$ORIGIN"),
        "libb.so": elf(soname="libb.so"),
    }
    pod = Pod.make(tmp_path, files=files)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(pod.variant() / "libb.so", elsewhere)
    shim = build(pod.environment(LD_LIBRARY_PATH=str(elsewhere)))

    answer = shim.gate.check(Asked(REPO, COMMIT), pod.variant())

    assert _reason(answer)[0] == "library-replaced"
    assert list((pod.cache / "sealed").iterdir()) == []
    assert isinstance(_check(pod), Cleared)


def test_the_copy_is_cleared_away_when_reading_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = Pod.make(tmp_path)
    shim = build(pod.environment())

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kgate_client.gate.copy_files", fail)
    with pytest.raises(KeyboardInterrupt):
        shim.gate.check(Asked(REPO, COMMIT), pod.variant())

    assert list((pod.cache / "sealed").iterdir()) == []


def test_the_second_process_compares_instead_of_copying(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    (pod.cache / "names").rename(tmp_path / "forgotten")
    steps = []
    for _ in range(2):
        answer = build(pod.environment()).gate.check(Asked(REPO, COMMIT), pod.variant())
        steps.append(set(answer.trace.timings))

    assert steps[0] == {"trust", "copy", "verify", "seal"}
    assert steps[1] == {"trust", "compare", "verify"}


def test_a_name_for_people_is_the_best_that_is_known(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    plain = tmp_path / "plain" / VARIANT
    shutil.copytree(pod.variant(), plain)
    gate = build(pod.environment()).gate

    assert gate.check(Asked(), pod.variant()).trace.kernel == f"{REPO}@{COMMIT}"
    assert gate.check(Asked(REPO, "v1"), plain).trace.kernel == REPO
    assert gate.check(Asked(), plain).trace.kernel == "a kernel"
    assert replace(gate.check(Asked(), plain).trace, repo=REPO).kernel == REPO
