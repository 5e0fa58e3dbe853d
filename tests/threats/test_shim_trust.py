"""T29, T30, T40 and T41: revoked and stale trust, unknown clients, a loosened environment."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kgate_core.kernel import KernelRef
from kgate_core.trust import Mode
from kgate_signer.keys import FileKey
from kgate_signer.trustchanges import revoke_digest, revoke_key
from tests.podkit import FILES, GET, MODEL, Pod, lock_of
from tests.trustkit import lane_of, manifest_of, role_of

RUN_MODEL = MODEL + "\nprint(json.dumps(run()))"
MINUTE = timedelta(minutes=1)


def _pod_in_lane(home: Path, **changes: object) -> Pod:
    """Return a pod whose kernel is admitted in a lane `own` with these floors."""
    key = FileKey.generate()
    age = changes.pop("age", timedelta(0))
    assert isinstance(age, timedelta)
    lane = lane_of("own", {"admit": role_of(key)}, **changes)
    pod = Pod.make(home, lane, keys=(key,), age=age, admitted=False)
    pod = replace(pod, trust=replace(pod.trust, admit=key))
    pod.admit(FILES, lane="own")
    return pod


def test_t29_a_revoked_kernel_in_a_warm_cache_falls_back(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    assert pod.run(GET).value["outcome"] == "loaded"
    kit = pod.trust
    manifest = manifest_of(FILES)
    pod = pod.with_trust(
        revoke_digest(kit.trust, manifest.digest, "CVE-2026-31337", kit.offline, now=kit.now)
    )

    result = pod.run(RUN_MODEL)

    assert result.value == {"outcome": "fallback", "value": [2.0, 2.0]}
    assert result.reports[0]["reason"] == "revoked"
    assert "CVE-2026-31337" in result.stderr


def test_t29_one_revoked_file_is_enough(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    kit = pod.trust
    digest = manifest_of(FILES).by_path["numbers.py"].digest
    pod = pod.with_trust(revoke_digest(kit.trust, digest, "bad file", kit.offline, now=kit.now))

    assert pod.run(GET).value["reason"] == "revoked"


def test_t28_nothing_by_a_revoked_key_loads(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    kit = pod.trust
    keyid = kit.admit.public_key().keyid
    pod = pod.with_trust(revoke_key(kit.trust, keyid, "stolen", kit.offline, now=kit.now))

    assert pod.run(GET).value["reason"] == "revoked-key"


@pytest.mark.parametrize(
    ("age", "outcome", "warned"),
    [
        (timedelta(0), "loaded", False),
        (5 * MINUTE, "loaded", True),
        (30 * MINUTE, "fallback", True),
    ],
)
def test_t29_stale_trust_is_reported_first_and_refused_later(
    tmp_path: Path, age: timedelta, outcome: str, *, warned: bool
) -> None:
    pod = _pod_in_lane(tmp_path, age=age, soft_staleness=2 * MINUTE, hard_staleness=20 * MINUTE)

    result = pod.run(GET, KGATE_LANE="own")

    assert result.value["outcome"] == outcome
    assert result.value.get("reason", "stale-trust") == "stale-trust"
    assert ("min old" in result.stderr or "s old" in result.stderr) is warned


def test_t30_a_pinned_root_of_another_site_vouches_for_nothing(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path / "one")
    other = Pod.make(tmp_path / "two")

    result = pod.run(GET, KGATE_TRUST_ROOT=str(other.root))

    assert result.value["reason"] == "no-trust"


def test_no_trust_root_means_fallback_and_one_clear_line(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)

    result = pod.run(RUN_MODEL, KGATE_TRUST_ROOT=None)

    assert result.value["outcome"] == "fallback"
    said = [line for line in result.stderr.splitlines() if line.startswith("kgate:")]
    assert len(said) == 1
    assert "no trust root is pinned" in said[0]


def test_a_trust_root_that_is_not_there_means_fallback(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)

    assert pod.run(GET, KGATE_TRUST_ROOT="/nowhere/root.json").value["reason"] == "no-trust"


def _install_another(home: Path, version: str) -> str:
    """Make an environment say that it has another version of kernels; returns its search path."""
    folder = home / "site"
    info = folder / f"kernels-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    return str(folder)


def test_t40_an_unknown_version_of_the_client_loads_nothing(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    path = _install_another(tmp_path, "9.9.0")

    result = pod.run_fresh(RUN_MODEL, PYTHONPATH=path)

    assert result.value == {"outcome": "fallback", "value": [2.0, 2.0]}
    assert result.reports[0]["reason"] == "unknown-client"
    assert "kernels 9.9.0 is not a version that this kgate knows" in result.stderr


def test_t40_observe_leaves_an_unknown_client_alone(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    path = _install_another(tmp_path, "9.9.0")

    result = pod.run_fresh(RUN_MODEL, PYTHONPATH=path, KGATE_MODE="observe", KGATE_TRUST_ROOT=None)

    assert result.value["outcome"] == "loaded"


@pytest.mark.parametrize("name", ["_import_from_path", "DepTreeNode", "resolve_kernel_tree"])
def test_t40_a_moved_load_point_loads_nothing(tmp_path: Path, name: str) -> None:
    pod = Pod.make(tmp_path)
    found = importlib.util.find_spec("kernels")
    assert found is not None
    assert found.origin is not None
    overlay = tmp_path / "overlay" / "kernels"
    shutil.copytree(
        Path(found.origin).parent, overlay, ignore=shutil.ignore_patterns("__pycache__", "cli")
    )
    for source in overlay.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        source.write_text(text.replace(name, f"{name}_elsewhere"), encoding="utf-8")

    result = pod.run_fresh(RUN_MODEL, PYTHONPATH=str(overlay.parent))

    assert result.value == {"outcome": "fallback", "value": [2.0, 2.0]}
    assert result.reports[0]["reason"] == "unknown-client"
    assert "does not look as expected" in result.stderr


def test_t40_reloading_the_clients_modules_does_not_open_the_gate(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    program = """
import importlib
import kernels, kernels.deps, kernels.importer, kernels.load
for module in (kernels.importer, kernels.deps, kernels.load, kernels):
    importlib.reload(module)
""" + GET.replace("from kernels import", "from kernels.load import")

    result = pod.run(program)

    assert result.value["reason"] == "no-attestation"
    assert "kernel ran" not in result.stdout


@pytest.mark.parametrize("loosened", ["observe", "warn", "off", ""])
def test_t41_the_environment_cannot_go_below_the_signed_mode(tmp_path: Path, loosened: str) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    result = pod.run(GET, KGATE_MODE=loosened)

    assert result.value["outcome"] == "fallback"
    assert result.reports[0]["mode"] == "enforce"


def test_t41_switching_the_shim_off_is_ignored_under_a_pinned_root(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    result = pod.run(GET, KGATE_DISABLE="1")

    assert result.value["outcome"] == "fallback"
    assert "KGATE_DISABLE is ignored" in result.stderr


def test_t41_an_unknown_lane_has_no_lower_floor(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    result = pod.run(GET, KGATE_LANE="anything-goes", KGATE_MODE="observe")

    assert result.value["outcome"] == "fallback"


def test_t41_waiting_until_the_metadata_expires_does_not_loosen_the_mode(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False, age=timedelta(days=400))

    result = pod.run(GET, KGATE_MODE="observe")

    assert result.value["outcome"] == "fallback"
    assert result.reports[0]["mode"] == "enforce"


def test_t41_changing_the_environment_inside_the_program_changes_nothing(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    program = "import os\nos.environ['KGATE_MODE'] = 'observe'\n" + GET

    assert pod.run(program).value["outcome"] == "fallback"


def test_the_environment_may_tighten(tmp_path: Path) -> None:
    pod = _pod_in_lane(tmp_path, mode=Mode.OBSERVE)
    (pod.variant() / "added.py").write_text("")

    observed = pod.run(GET, KGATE_LANE="own")
    enforced = pod.run(GET, KGATE_LANE="own", KGATE_MODE="enforce")

    assert observed.value["outcome"] == "loaded"
    assert observed.reports[0]["outcome"] == "observed"
    assert observed.reports[0]["reason"] == "integrity"
    assert enforced.value["outcome"] == "fallback"


def test_warn_loads_and_complains(tmp_path: Path) -> None:
    pod = _pod_in_lane(tmp_path, mode=Mode.WARN)
    (pod.variant() / "added.py").write_text("")

    result = pod.run(GET, KGATE_LANE="own")

    assert result.value["outcome"] == "loaded"
    assert "added.py is not in the signed manifest" in result.stderr
    assert result.reports[0]["outcome"] == "warned"


def test_strict_raises_what_nobody_takes_for_a_fallback(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    program = (
        MODEL
        + """
from kgate_client import KgateStopped
try:
    outcome = run()["outcome"]
except KgateStopped as exc:
    outcome = [exc.reason, isinstance(exc, FileNotFoundError)]
print(json.dumps(outcome))
"""
    )
    assert pod.run(program, KGATE_MODE="strict").value == ["no-attestation", False]
    insisting = program.replace("run()", "run(use_fallback=KernelizeFallback.ALL)").replace(
        "from kgate_client", "from kernels import KernelizeFallback\nfrom kgate_client"
    )
    assert pod.run(insisting, KGATE_MODE="strict").value == ["no-attestation", False]
    assert pod.run(program).value == "fallback"


def test_a_lock_admits_only_what_it_holds(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path)
    lock = tmp_path / "kgate.lock"

    lock.write_bytes(lock_of())
    assert pod.run(GET, KGATE_LOCK=str(lock)).value["outcome"] == "loaded"
    lock.write_bytes(lock_of(repo=KernelRef("acme", "other")))
    assert pod.run(GET, KGATE_LOCK=str(lock)).value["reason"] == "not-locked"
    lock.unlink()
    assert pod.run(GET, KGATE_LOCK=str(lock)).value["reason"] == "invalid-input"
