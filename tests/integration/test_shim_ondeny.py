"""What becomes of each refused kernel: the fallback, the version of before, or an error."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kgate_core.digest import Digest
from kgate_core.kernel import Revision
from kgate_core.lock import LockedVariant
from kgate_core.ondeny import OnDeny
from kgate_signer import trustchanges
from tests.podkit import COMMIT, FILES, MODEL, REPO, VARIANT, Pod, lock_of
from tests.trustkit import EXPERIMENTAL, manifest_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NEWER = "fedcba9876543210fedcba9876543210fedcba98"
BETTER = FILES | {"numbers.py": b"FACTOR = 20\n"}
GET = f"""
import json
from kernels import get_kernel
from kgate_client import KgateRefusal
try:
    print(json.dumps(get_kernel({REPO!r}, version=1).double(1)))
except KgateRefusal as exc:
    print(json.dumps([type(exc).__name__, exc.reason]))
"""


def _choose(pod: Pod, choices: Mapping[str, OnDeny], **fields: Any) -> Pod:
    """Sign choices into the pod's lane."""
    lane = pod.trust.trusted().lanes[EXPERIMENTAL]
    lane = replace(lane, on_deny=choices, **fields)
    return pod.with_trust(
        trustchanges.set_lane(pod.trust.trust, lane, pod.trust.offline, now=pod.trust.now)
    )


def _move_branch(pod: Pod, *, admitted: bool) -> None:
    """Let v1 mean another commit, as a mirror and a download would."""
    pod.cache_kernel(BETTER, commit=NEWER)
    if admitted:
        pod.admit(BETTER, commit=NEWER)


def _revoke(pod: Pod, digest: Digest) -> Pod:
    trust = trustchanges.revoke_digest(
        pod.trust.trust, digest, "CVE-1", pod.trust.offline, now=pod.trust.now
    )
    return pod.with_trust(trust)


def test_without_a_choice_a_refused_kernel_falls_back(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    assert pod.run(GET).value == 2
    _move_branch(pod, admitted=False)

    assert pod.run(GET).value == ["KgateBlocked", "no-attestation"]


def test_the_version_of_before_goes_on_where_that_is_signed(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path), {REPO: OnDeny.KEEP_PREVIOUS})
    assert pod.run(GET).value == 2
    _move_branch(pod, admitted=False)

    kept = pod.run(GET)

    assert kept.value == 2
    assert [(r["outcome"], r["reason"]) for r in kept.reports] == [("kept", "no-attestation")]
    assert kept.reports[0]["revision"] == COMMIT
    assert f"Kept {COMMIT[:12]}, which was verified before" in kept.stderr
    assert "kernel ran from " + str(pod.cache / "sealed") in kept.stdout


def test_a_pod_that_never_ran_it_has_nothing_to_keep(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path), {REPO: OnDeny.KEEP_PREVIOUS})
    _move_branch(pod, admitted=False)

    assert pod.run(GET).value == ["KgateBlocked", "no-attestation"]


def test_a_revoked_version_is_never_kept(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path), {REPO: OnDeny.KEEP_PREVIOUS})
    assert pod.run(GET).value == 2
    _move_branch(pod, admitted=True)
    assert pod.run(GET).value == 20
    old, new = manifest_of(FILES).digest, manifest_of(BETTER).digest

    back = _revoke(pod, new).run(GET)
    both = _revoke(_revoke(pod, new), old).run(GET)

    assert back.value == 2
    assert [(r["outcome"], r["reason"]) for r in back.reports] == [("kept", "revoked")]
    assert both.value == ["KgateBlocked", "revoked"]


def test_a_spoilt_copy_of_before_is_not_kept(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path), {REPO: OnDeny.KEEP_PREVIOUS})
    assert pod.run(GET).value == 2
    _move_branch(pod, admitted=False)
    copy = pod.cache / "sealed" / manifest_of(FILES).digest.hex / "numbers.py"
    copy.chmod(0o600)
    copy.write_bytes(b"FACTOR = 9\n")
    copy.chmod(0o400)

    assert pod.run(GET).value == ["KgateBlocked", "no-attestation"]


def test_a_commit_asked_for_by_a_person_is_not_answered_by_another(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path), {"*": OnDeny.KEEP_PREVIOUS})
    assert pod.run(GET).value == 2
    _move_branch(pod, admitted=False)

    exact = pod.run(GET.replace("version=1", f"revision={NEWER!r}"))

    assert exact.value == ["KgateBlocked", "no-attestation"]


def test_a_dead_mirror_leaves_the_version_of_before_to_functions_and_layers(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path), {"*": OnDeny.KEEP_PREVIOUS})
    assert pod.run(GET).value == 2
    online = {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": "http://127.0.0.1:9"}

    function = pod.run(GET, **online)
    layer = pod.run(MODEL + "\nprint(json.dumps(run(version=1)))", **online)

    assert function.value == 2
    assert layer.value == {"outcome": "loaded", "value": [2.0, 2.0]}
    assert {(r["outcome"], r["reason"]) for r in (*function.reports, *layer.reports)} == {
        ("kept", "unreachable")
    }


def test_blocking_one_kernel_stops_callers_that_would_fall_back(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path, admitted=False), {REPO: OnDeny.BLOCK})
    program = MODEL + (
        "\nfrom kgate_client import KgateStopped\n"
        "try:\n    print(json.dumps(run()))\n"
        "except KgateStopped as exc:\n    print(json.dumps(exc.reason))\n"
    )

    stopped = pod.run(program)

    assert stopped.value == "no-attestation"
    assert [r["outcome"] for r in stopped.reports] == ["raised"]


def test_t41_the_environment_may_only_tighten_a_choice(tmp_path: Path) -> None:
    pod = _choose(Pod.make(tmp_path, admitted=False), {"*": OnDeny.BLOCK})

    loosened = pod.run(GET, KGATE_ON_DENY=f"{REPO}=keep-previous,*=fallback")
    signed_nothing = _choose(pod, {}).run(GET, KGATE_ON_DENY="block")
    nonsense = _choose(pod, {}).run(GET, KGATE_ON_DENY="perhaps")

    assert loosened.value == ["KgateStopped", "no-attestation"]
    assert signed_nothing.value == ["KgateStopped", "no-attestation"]
    assert nonsense.value == ["KgateStopped", "no-attestation"]
    assert "'perhaps' is not one of" in nonsense.stderr


def test_the_lock_may_wish_and_what_is_signed_may_be_stricter(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    lock = tmp_path / "kgate.lock"
    lock.write_bytes(lock_of(on_deny=OnDeny.KEEP_PREVIOUS))
    assert pod.run(GET, KGATE_LOCK=str(lock)).value == 2
    (pod.variant() / "added.py").write_text("")

    kept = pod.run(GET, KGATE_LOCK=str(lock))
    assert (kept.value, kept.reports[0]["outcome"]) == (2, "kept")
    signed = _choose(pod, {"*": OnDeny.FALLBACK}).run(GET, KGATE_LOCK=str(lock))
    assert signed.value == ["KgateBlocked", "integrity"]


TRANSFORMERS = f"""
import json
from transformers.integrations import hub_kernels
from kgate_client import KgateStopped
hub_kernels._HUB_KERNEL_MAPPING["double"] = {{"repo_id": {REPO!r}, "version": 1}}
try:
    found = hub_kernels.lazy_load_kernel("double")
    print(json.dumps(found and found.double(1)))
except KgateStopped as exc:
    print(json.dumps(exc.reason))
"""


def test_strict_is_not_swallowed_by_transformers(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    assert pod.run(TRANSFORMERS).value is None
    assert pod.run(TRANSFORMERS, KGATE_MODE="strict").value == "no-attestation"
    # Nor is what the client itself says where the mirror has no build of it.
    missing = TRANSFORMERS.replace('version": 1', 'version": 7')
    assert pod.run(missing, KGATE_MODE="strict").value == "version-not-found"


def test_strict_has_no_use_for_a_fallback_in_plain_code(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    program = f"""
import json, kgate_client
try:
    print(json.dumps(kgate_client.load({REPO!r}, version=1, fallback="own")))
except kgate_client.KgateStopped as exc:
    print(json.dumps(exc.reason))
"""
    assert pod.run(program).value == "own"
    assert pod.run(program, KGATE_MODE="strict").value == "no-attestation"


# Canary pools and rollbacks.


def _locked(files: Mapping[str, bytes], commit: str) -> bytes:
    return lock_of(
        commit=Revision(commit), variants={VARIANT: LockedVariant(manifest_of(files).digest, 1, 1)}
    )


def test_a_canary_pool_runs_the_new_version_on_all_its_replicas(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    _move_branch(pod, admitted=True)
    lock = tmp_path / "kgate.lock"
    lock.write_bytes(_locked(FILES, COMMIT))
    lock.with_name("kgate.blue.lock").write_bytes(_locked(BETTER, NEWER))

    replicas = [pod.run(GET, KGATE_LOCK=str(lock), KGATE_CANARY="blue").value for _ in range(3)]
    others = [pod.run(GET, KGATE_LOCK=str(lock), KGATE_CANARY=pool).value for pool in ("", "green")]

    # What `version=1` means comes from the pool's lock, not from what the branch says by now.
    assert replicas == [20, 20, 20]
    assert others == [2, 2]


def test_a_layer_follows_the_lock_too(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    _move_branch(pod, admitted=True)
    lock = tmp_path / "kgate.lock"
    lock.write_bytes(_locked(FILES, COMMIT))

    result = pod.run(MODEL + "\nprint(json.dumps(run(version=1)))", KGATE_LOCK=str(lock))

    assert result.value["outcome"] == "loaded"
    assert result.reports[0]["revision"] == COMMIT


def test_t41_a_rollback_names_only_locks_that_are_signed(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    _move_branch(pod, admitted=True)
    old, new = _locked(FILES, COMMIT), _locked(BETTER, NEWER)
    lock = tmp_path / "kgate.lock"
    pod = _choose(pod, {}, locks={"*": frozenset({Digest.of(new)})})

    lock.write_bytes(new)
    assert pod.run(GET, KGATE_LOCK=str(lock)).value == 20
    lock.write_bytes(old)
    refused = pod.run(GET, KGATE_LOCK=str(lock))
    assert refused.value == ["KgateBlocked", "lock-not-allowed"]
    assert pod.run(GET).value == ["KgateBlocked", "lock-not-allowed"]  # nor without any

    both = _choose(pod, {}, locks={"*": frozenset({Digest.of(new), Digest.of(old)})})
    assert both.run(GET, KGATE_LOCK=str(lock)).value == 2


def test_t41_a_pod_that_names_itself_into_a_pool_gets_that_pools_locks_only(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    _move_branch(pod, admitted=True)
    old, new = _locked(FILES, COMMIT), _locked(BETTER, NEWER)
    lock = tmp_path / "kgate.lock"
    lock.write_bytes(new)
    locks = {"*": frozenset({Digest.of(old)}), "blue": frozenset({Digest.of(new)})}
    pod = _choose(pod, {}, locks=locks)

    outcomes = {
        pool: pod.run(GET, KGATE_LOCK=str(lock), KGATE_CANARY=pool).value
        for pool in ("", "blue", "green")
    }

    refused = ["KgateBlocked", "lock-not-allowed"]
    assert outcomes == {"": refused, "blue": 20, "green": refused}
    assert json.loads(old)["schema"] == "kgate.dev/lock/v1"
