"""What people type in a pod: doctor, verify, trust; and the two functions for plain code."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import kgate_client
from kgate_client import autoload, doctor, entry, plain
from kgate_client.blocked import KgateBlocked
from kgate_client.doctor import Status, examine
from kgate_client.trustview import view
from kgate_client.verification import verify_path
from kgate_core.errors import (
    IntegrityError,
    InvalidInput,
    KgateError,
    NotFound,
    TrustError,
    UpstreamError,
)
from kgate_signer.trustchanges import revoke_digest, revoke_key
from tests.podkit import COMMIT, FILES, REPO, VARIANT, Pod
from tests.trustkit import manifest_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


def _checks(pod: Pod, **changes: str | None) -> dict[str, doctor.Check]:
    return {check.name: check for check in examine(pod.environment(**changes)).checks}


def test_a_healthy_pod_is_found_healthy(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoload, "active", lambda: True)
    report = examine(pod.environment())

    assert report.healthy, list(report.lines())
    assert report.kernels == (
        {
            "kernel": f"{REPO}@{COMMIT}",
            "variant": VARIANT,
            "manifest": str(manifest_of(FILES).digest),
            "outcome": "loads",
            "reason": "",
            "message": "",
        },
    )
    document = json.loads(json.dumps(report.to_json()))
    assert (document["schema"], document["ok"]) == ("kgate.dev/doctor/v1", True)
    assert any(line.endswith(f"{VARIANT}: loads") for line in report.lines())


def test_what_would_not_load_is_said_with_its_reason(pod: Pod) -> None:
    (pod.variant() / "added.py").write_text("")
    (pod.variant().parent / "README").write_text("")
    report = examine(pod.environment(HF_HUB_CACHE=str(pod.hub)))

    assert [kernel["outcome"] for kernel in report.kernels] == ["falls back"]
    assert "added.py is not in the signed manifest" in "\n".join(report.lines())


def test_each_thing_that_is_missing_is_named(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _checks(pod, KGATE_TRUST_ROOT=None)["trust root"].status is Status.PROBLEM
    observing = _checks(pod, KGATE_TRUST_ROOT=None, KGATE_MODE="observe")["trust root"]
    assert (observing.status, "unchecked" in observing.detail) == (Status.NOTE, True)
    warning = _checks(pod, KGATE_TRUST_ROOT=None, KGATE_MODE="warn")["mode"]
    assert "KGATE_MODE=warn needs a trust root" in warning.detail
    nonsense = _checks(pod, KGATE_TRUST_ROOT="/etc/passwd")
    assert "is no trust root" in nonsense["trust root"].detail
    assert "trust" not in nonsense
    assert "cannot be read" in _checks(pod, KGATE_TRUST_ROOT="/nowhere")["trust root"].detail
    assert "no lane 'x'" in _checks(pod, KGATE_LANE="x")["trust"].detail
    empty = _checks(pod, KGATE_CACHE=str(pod.home / "empty"))["trust"]
    assert empty.status is Status.PROBLEM
    assert empty.hint
    assert "KGATE_DISABLE" in _checks(pod, KGATE_DISABLE="1", KGATE_TRUST_ROOT=None)["hook"].detail
    monkeypatch.setattr(autoload, "active", lambda: False)
    assert _checks(pod)["hook"].detail == "not active"
    monkeypatch.setattr(autoload, "active", lambda: True)
    monkeypatch.setattr(doctor, "_site_folders", lambda: ("/nowhere",))
    assert "no kgate-autoload.pth" in _checks(pod)["hook"].detail


def test_the_mode_that_binds_is_told_from_the_one_that_was_wished_for(pod: Pod) -> None:
    assert _checks(pod)["mode"].status is Status.OK
    assert "weaker than what is signed" in _checks(pod, KGATE_MODE="observe")["mode"].detail
    assert "taken as enforce" in _checks(pod, KGATE_MODE="off")["mode"].detail


@pytest.mark.parametrize(
    ("age", "status", "said"),
    [(0, Status.OK, "issued"), (1, Status.NOTE, "not fresh"), (30, Status.PROBLEM, "")],
)
def test_the_age_of_the_trust_metadata_is_judged(
    tmp_path: Path, age: int, status: Status, said: str
) -> None:
    check = _checks(Pod.make(tmp_path, age=timedelta(hours=age)))["trust"]

    assert check.status is status
    assert said in check.detail


def test_an_endpoint_is_tried(pod: Pod) -> None:
    assert _checks(pod)["endpoint"].detail == "offline: no socket is opened"
    assert "no connection" in _checks(pod, HF_HUB_OFFLINE=None)["endpoint"].detail
    unset = _checks(pod, HF_HUB_OFFLINE=None, HF_ENDPOINT=None)["endpoint"]
    assert unset.status is Status.NOTE


def test_variables_that_change_what_loads_are_mentioned(pod: Pod) -> None:
    checks = _checks(pod, DO_NOT_TRACK="1", LOCAL_KERNELS="a/b=/c")

    assert "DO_NOT_TRACK is set" in checks["telemetry"].detail
    assert checks["environment"].detail == "LOCAL_KERNELS=a/b=/c"


def test_caches_are_described(pod: Pod) -> None:
    assert "0 verified copies" in _checks(pod)["cache"].detail
    assert "read-only or shared" in _checks(pod, KGATE_CACHE=str(pod.root))["cache"].detail
    bare = examine(pod.environment(HF_HOME=None, HOME=None))
    assert bare.kernels == ()
    assert any("each process" in check.detail for check in bare.checks)


def test_an_unknown_client_is_a_problem() -> None:
    versions = {"kernels": "9.9.0"}

    assert doctor._check_client(versions).status is Status.PROBLEM
    assert doctor._check_client({"kernels": None}).status is Status.NOTE
    assert doctor._version("no-such-package") is None


def test_verify_shows_the_steps_of_a_yes_and_of_a_no(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in pod.environment(KGATE_TRUST_ROOT=None).items():
        monkeypatch.setenv(name, value)
    (pod.variant() / "__pycache__").mkdir()
    command = ["verify", str(pod.variant()), "--root", str(pod.root)]

    assert entry.run(command) == entry.YES
    said = capsys.readouterr().out
    assert "✓ 4 signature" in said
    assert "· __pycache__ is bytecode" in said
    assert f"verified: {REPO}@{COMMIT}" in said

    (pod.variant() / "added.py").write_text("")
    assert entry.run([*command, "--json"]) == entry.NO
    document = json.loads(capsys.readouterr().out)
    assert document["reason"] == "integrity"
    assert entry.run(command) == entry.NO
    assert "rejected (integrity)" in capsys.readouterr().out
    assert entry.run(["verify", "/nowhere"]) == entry.CONFIGURATION
    assert "→ name a variant" in capsys.readouterr().err


def test_a_path_that_is_none_is_a_wrong_argument(pod: Pod) -> None:
    with pytest.raises(InvalidInput, match="not a directory"):
        verify_path(pod.home / "nowhere", {})


def test_what_a_pod_believes_can_be_read(pod: Pod) -> None:
    kit = pod.trust
    trust = revoke_digest(kit.trust, manifest_of(FILES).digest, "CVE-1", kit.offline, now=kit.now)
    keyid = kit.approve.public_key().keyid
    pod = pod.with_trust(revoke_key(trust, keyid, "lost", kit.offline, now=kit.now))

    seen = view(pod.environment(), refresh=False)
    tried = view(pod.environment(HF_HUB_OFFLINE=None), refresh=True)

    said = "\n".join(seen.lines())
    assert "(this pod)" in said
    assert "CVE-1" in said
    assert f"key {keyid}" in said
    assert seen.to_json()["lanes"] == {"experimental": "enforce", "production": "enforce"}
    assert tried.problem
    assert f"problem   {tried.problem}" in "\n".join(tried.lines())


def test_the_base_commands_answer_with_the_codes_of_the_contract(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in pod.environment().items():
        monkeypatch.setenv(name, value)

    assert entry.run(["trust", "show"]) == entry.YES
    assert entry.run(["doctor", "--json"]) in {entry.YES, entry.NO}
    assert entry.run(["sync"]) == entry.USAGE
    assert entry.run(["nonsense"]) == entry.USAGE
    assert entry.run(["--help"]) == entry.YES
    assert 'pip install "kgate[cli]"' in capsys.readouterr().err
    assert [
        entry._code(error("x"))
        for error in (UpstreamError, NotFound, IntegrityError, TrustError, KgateError)
    ] == [3, 1, 1, 4, 4]


def test_the_full_command_line_takes_over_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = ModuleType("kgate_cli.main")
    vars(full)["main"] = lambda: 7
    monkeypatch.setitem(sys.modules, "kgate_cli.main", full)
    monkeypatch.setattr(entry, "full_cli", lambda: True)
    monkeypatch.setattr(sys, "argv", ["kgate", "sync"])
    assert entry.main() == 7
    monkeypatch.setattr(sys, "argv", ["kgate", "cache", "--help"])
    assert entry.main() == entry.YES
    assert entry.main(["--help"]) == entry.YES


def test_a_closed_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: Any) -> Any:
        raise BrokenPipeError

    monkeypatch.setattr(entry, "_doctor", closed)
    assert entry.run(["doctor"]) == entry.YES


class _Kernels:
    """Stands in for the library in the functions for plain code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        self.answer: Any = None
        module = ModuleType("kernels")
        vars(module)["get_kernel"] = self._get
        monkeypatch.setitem(sys.modules, "kernels", module)
        monkeypatch.setattr(plain, "start", lambda: True)

    def _get(self, repo: str, **options: Any) -> Any:
        self.asked.append((repo, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_load_gives_the_kernel_or_what_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = _Kernels(monkeypatch)
    kernels.answer = "module"
    assert kgate_client.load("a/b", version=1, backend="cpu") == "module"
    assert kernels.asked == [("a/b", {"version": 1, "revision": None, "backend": "cpu"})]

    kernels.answer = ImportError("undefined symbol")
    assert kgate_client.load("a/b", version=1, fallback="own") == "own"
    with pytest.raises(KgateBlocked, match="undefined symbol"):
        kgate_client.load("a/b", version=1)
    kernels.answer = KgateBlocked("a/b", "revoked", "m")
    with pytest.raises(KgateBlocked) as caught:
        kgate_client.load("a/b", version=1)
    assert caught.value is kernels.answer


def test_a_decorated_function_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = _Kernels(monkeypatch)
    module = ModuleType("kernel")
    vars(module)["double"] = lambda x: x * 2

    @kgate_client.fallback("a/b", "double", version=1)
    def double(x: float) -> float:
        return x + x + 0.5

    kernels.answer = module
    assert [double(1), double(2)] == [2, 4]
    assert len(kernels.asked) == 1

    kernels.answer = KgateBlocked("a/b", "revoked", "m")
    other = kgate_client.fallback("a/b", "double", version=1)(lambda x: -x)
    assert [other(1), other(2)] == [-1, -2]
    assert len(kernels.asked) == 2


def test_the_package_offers_these_names_and_no_others() -> None:
    refusals = {"KgateBlocked", "KgateRefusal", "KgateStopped"}
    assert set(kgate_client.__all__) == refusals | {"fallback", "load", "runtime_sbom"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kgate_client.nothing  # noqa: B018  # the access is the test


def test_a_refusal_survives_the_way_between_processes() -> None:
    import pickle

    refusal = pickle.loads(pickle.dumps(KgateBlocked("a/b", "revoked", "CVE-1")))

    assert (refusal.kernel, refusal.reason, refusal.message) == ("a/b", "revoked", "CVE-1")
    assert isinstance(refusal, FileNotFoundError)
