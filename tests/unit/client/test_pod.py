"""The gate and what a process makes of its answers, with a library that only counts."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from kgate_client import process
from kgate_client.asked import Asked
from kgate_client.blocked import KgateBlocked
from kgate_client.process import build
from kgate_client.request import Request
from kgate_core.trust import Mode
from kgate_signer.keys import FileKey
from tests.podkit import COMMIT, FILES, REPO, VARIANT
from tests.podkit import Pod as PodFiles
from tests.trustkit import lane_of, manifest_of, role_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kgate_client.pod import Pod

NAME = "_plain_0001"
PLAIN = {
    "__init__.py": b"from .numbers import FACTOR\n",
    "numbers.py": b"FACTOR = 2\n",
    "metadata.json": json.dumps({"id": NAME, "name": "plain", "version": 1}).encode(),
}


@dataclass
class Library:
    """Stands in for `kernels`."""

    registered: dict[Path, ModuleType] = field(default_factory=dict)
    ungated: int = 0

    def find(self, path: Path) -> ModuleType | None:
        return self.registered.get(path)

    def register(self, path: Path, module: ModuleType, sealed: Path) -> None:
        assert sealed.is_dir()
        self.registered[path] = module

    def context(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def load_ungated(self) -> ModuleType:
        self.ungated += 1
        return ModuleType("ungated")


@pytest.fixture(autouse=True)
def _clean_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("_plain"):
            del sys.modules[name]


@pytest.fixture
def files(tmp_path: Path) -> PodFiles:
    return PodFiles.make(tmp_path, files=PLAIN)


def _build(files: PodFiles, **changes: str | None) -> Pod:
    return build(files.environment(**changes))


def _ask(
    files: PodFiles, library: Library, asked: Asked | None = None, *depends: ModuleType
) -> Request:
    return Request(asked or Asked(REPO, COMMIT), files.variant(), depends, library)


def _reports(files: PodFiles) -> list[Any]:
    lines = (files.home / "report.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _refusal(pod: Pod, request: Request) -> str:
    with pytest.raises(KgateBlocked) as caught:
        pod.load(request)
    return caught.value.reason


def test_a_cleared_kernel_is_imported_once_and_registered(files: PodFiles) -> None:
    pod, library = _build(files), Library()

    module = pod.load(_ask(files, library))
    again = pod.load(_ask(files, library))

    assert module is again
    assert module.FACTOR == 2
    assert library.registered == {files.variant(): module}
    assert [answer.trace.kernel for answer in pod.loaded()] == [f"{REPO}@{COMMIT}"]
    assert pod.digest_of(module) == manifest_of(PLAIN).digest
    assert pod.digest_of(ModuleType("other")) is None
    assert pod.reporter.counts == {"loaded": 1}


def test_the_same_bytes_from_another_path_are_the_same_module(files: PodFiles) -> None:
    pod, library = _build(files), Library()
    module = pod.load(_ask(files, library))
    plain = files.home / VARIANT
    plain.mkdir()
    for path, data in PLAIN.items():
        (plain / path).write_bytes(data)

    assert pod.load(Request(Asked(), plain, (), library)) is module


def test_a_loaded_path_does_not_answer_other_questions(files: PodFiles) -> None:
    pod, library = _build(files), Library()
    pod.load(_ask(files, library))

    assert _refusal(pod, _ask(files, library, Asked("acme/other", "v1"))) == "wrong-identity"
    assert _refusal(pod, _ask(files, library, Asked(REPO, "b" * 40))) == "wrong-identity"


def test_a_refusal_is_remembered_but_not_for_ever(files: PodFiles) -> None:
    pod, library = _build(files), Library()
    added = files.variant() / "added.py"
    added.write_text("")
    assert _refusal(pod, _ask(files, library)) == "integrity"
    added.unlink()

    assert _refusal(pod, _ask(files, library)) == "integrity"
    pod._monotonic = lambda: sys.float_info.max
    assert pod.load(_ask(files, library)).FACTOR == 2


def test_an_import_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = PLAIN | {"__init__.py": b"from . import numbers\nraise RuntimeError('no GPU')\n"}
    files = PodFiles.make(tmp_path, files=broken)
    pod, library = _build(files), Library()

    with pytest.raises(RuntimeError, match="no GPU"):
        pod.load(_ask(files, library))

    assert not [name for name in sys.modules if name.startswith(NAME)]
    assert library.registered == {}
    assert [report["outcome"] for report in _reports(files)] == ["import-error"]


def test_a_newer_build_may_take_the_place_of_an_older_one(files: PodFiles) -> None:
    newer = PLAIN | {"numbers.py": b"FACTOR = 3\n"}
    commit = "c" * 40
    files.cache_kernel(newer, commit=commit)
    files.admit(newer, commit=commit)
    pod, library = _build(files), Library()

    old = pod.load(_ask(files, library))
    new = pod.load(Request(Asked(REPO, commit), files.variant(commit=commit), (), library))

    assert (old.FACTOR, new.FACTOR) == (2, 3)
    assert sys.modules[NAME] is new


def test_a_failed_newer_build_puts_the_older_one_back(files: PodFiles) -> None:
    newer = PLAIN | {"__init__.py": b"1 / 0\n"}
    commit = "c" * 40
    files.cache_kernel(newer, commit=commit)
    files.admit(newer, commit=commit)
    pod, library = _build(files), Library()
    old = pod.load(_ask(files, library))

    with pytest.raises(ZeroDivisionError):
        pod.load(Request(Asked(REPO, commit), files.variant(commit=commit), (), library))

    assert sys.modules[NAME] is old


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metadata.json": b"[]"}, "not an object"),
        ({"metadata.json": b"{}"}, "'id' is missing"),
        ({"metadata.json": b"{"}, "not JSON"),
    ],
)
def test_metadata_that_is_none_is_refused(
    tmp_path: Path, changed: Mapping[str, bytes], said: str
) -> None:
    files = PodFiles.make(tmp_path, files=PLAIN, admitted=False)
    odd = {**PLAIN, **changed}
    for path, data in changed.items():
        files.materialise(path).write_bytes(data)
    manifest = manifest_of(odd)
    files.write_attestations(manifest, files.bundle(manifest, PLAIN))
    pod = _build(files)

    assert _refusal(pod, _ask(files, Library())) == "invalid-input"
    assert said in _reports(files)[0]["message"]


def test_a_variant_without_metadata_is_refused(tmp_path: Path) -> None:
    files = PodFiles.make(tmp_path, files=PLAIN, admitted=False)
    (files.variant() / "metadata.json").unlink()
    bare = {path: data for path, data in PLAIN.items() if path != "metadata.json"}
    files.write_attestations(manifest_of(bare), files.bundle(manifest_of(bare), PLAIN))

    assert _refusal(_build(files), _ask(files, Library())) == "invalid-input"


def test_a_variant_without_a_module_does_not_load(tmp_path: Path) -> None:
    odd = {path: data for path, data in PLAIN.items() if path != "__init__.py"}
    files = PodFiles.make(tmp_path, files=odd)

    with pytest.raises(FileNotFoundError, match="No kernel module"):
        _build(files).load(_ask(files, Library()))


def test_a_variant_with_an_inner_package_loads(tmp_path: Path) -> None:
    inner = {f"plain/{path}": data for path, data in PLAIN.items() if path.endswith(".py")}
    files = PodFiles.make(tmp_path, files=inner | {"metadata.json": PLAIN["metadata.json"]})

    assert _build(files).load(_ask(files, Library())).FACTOR == 2


def test_only_admitted_dependencies_are_accepted_where_they_are_named(tmp_path: Path) -> None:
    files = PodFiles.make(tmp_path, files=PLAIN)
    needy = PLAIN | {"metadata.json": PLAIN["metadata.json"].replace(b"0001", b"0002")}
    commit = "d" * 40
    files.cache_kernel(needy, commit=commit)
    files.admit(needy, commit=commit, depends=(manifest_of(FILES).digest,))
    pod, library = _build(files), Library()
    module = pod.load(_ask(files, library))
    request = Request(Asked(REPO, commit), files.variant(commit=commit), (module,), library)

    assert _refusal(pod, request) == "dependency"


def test_offline_without_any_attestation_it_says_so(tmp_path: Path) -> None:
    files = PodFiles.make(tmp_path, files=PLAIN, admitted=False)

    assert _refusal(_build(files), _ask(files, Library())) == "no-attestation"
    assert "offline" in _reports(files)[0]["message"]


def test_no_room_for_a_private_copy_is_a_refusal(
    files: PodFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = _build(files)

    def full(_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(pod.sealed), "stage", full)

    assert _refusal(pod, _ask(files, Library())) == "cannot-seal"


def test_metadata_swapped_after_it_was_digested_is_refused(
    files: PodFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = _build(files, KGATE_MODE=None)
    monkeypatch.setattr("kgate_client.gate.digest_files", lambda _: manifest_of(PLAIN))
    files.materialise("metadata.json").write_bytes(b"{}")

    answer = pod.gate.check(Asked(), files.variant(), seal=False)

    assert getattr(answer, "message", "") == "metadata.json changed while it was read"


def test_observe_only_looks(files: PodFiles) -> None:
    own = _own_lane(files.home / "observe", Mode.OBSERVE)
    pod, library = _build(own, KGATE_LANE="own"), Library()

    assert pod.load(_ask(own, library)).__name__ == "ungated"
    (own.variant() / "added.py").write_text("")
    pod.load(_ask(own, library))
    library.registered[own.variant()] = ModuleType("there")
    pod.load(_ask(own, library))

    assert library.ungated == 3
    assert [(r["outcome"], r["reason"]) for r in _reports(own)] == [
        ("observed", ""),
        ("observed", "integrity"),
    ]
    assert not (own.cache / "sealed").exists()


def test_observe_survives_a_gate_that_breaks(
    files: PodFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = _own_lane(files.home / "observe", Mode.OBSERVE)
    pod, library = _build(own, KGATE_LANE="own"), Library()
    monkeypatch.setattr(type(pod.gate), "check", lambda *_, **__: 1 / 0)

    assert pod.load(_ask(own, library)).__name__ == "ungated"


def test_warn_loads_what_it_complains_about_once(
    files: PodFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    own = _own_lane(files.home / "warn", Mode.WARN)
    (own.variant() / "added.py").write_text("")
    pod, library = _build(own, KGATE_LANE="own"), Library()

    module = pod.load(_ask(own, library))
    library.registered[own.variant()] = module

    assert pod.load(_ask(own, library)) is module
    assert library.ungated == 1
    assert capsys.readouterr().err.count("Loaded all the same: mode warn does not stop it.") == 1


def test_warn_loads_the_verified_copy_of_what_is_signed(files: PodFiles) -> None:
    own = _own_lane(files.home / "warn", Mode.WARN)
    pod, library = _build(own, KGATE_LANE="own"), Library()

    assert pod.load(_ask(own, library)).FACTOR == 2
    assert library.ungated == 0


@pytest.mark.parametrize(
    ("wanted", "pinned", "mode"),
    [
        (None, False, Mode.ENFORCE),
        ("observe", False, Mode.OBSERVE),
        ("warn", False, Mode.ENFORCE),
        ("strict", False, Mode.STRICT),
        (None, True, Mode.ENFORCE),
        ("observe", True, Mode.ENFORCE),
        ("strict", True, Mode.STRICT),
    ],
)
def test_the_environment_may_only_tighten(
    files: PodFiles, wanted: str | None, mode: Mode, *, pinned: bool
) -> None:
    root = str(files.root) if pinned else None

    assert _build(files, KGATE_MODE=wanted, KGATE_TRUST_ROOT=root).mode() is mode


def test_a_pinned_root_without_any_metadata_sets_no_floor(files: PodFiles) -> None:
    environment = {"KGATE_CACHE": str(files.home / "empty"), "KGATE_MODE": "observe"}

    assert _build(files, **environment).mode() is Mode.OBSERVE


def test_failures_outside_of_the_gate_are_reported_like_refusals(files: PodFiles) -> None:
    for mode, outcome in (("enforce", "fallback"), ("strict", "raised")):
        pod = _build(files, KGATE_MODE=mode)
        blocked = pod.blocked(f"{REPO}@v1", "not-found", "no such kernel", asked=Asked(REPO, "v1"))
        assert blocked.reason == "not-found"
        assert _reports(files)[-1]["outcome"] == outcome


def test_an_endpoint_is_only_tried_online(files: PodFiles) -> None:
    assert _build(files).unreachable() == ""
    online = _build(files, HF_HUB_OFFLINE=None)
    assert "no connection to 127.0.0.1:9" in online.unreachable()
    assert online.unreachable() == online.unreachable()


def test_stale_metadata_is_mentioned_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = _own_lane(tmp_path, Mode.ENFORCE, age=timedelta(minutes=30))
    pod = _build(own, KGATE_LANE="own")

    pod.load(_ask(own, Library()))

    assert "the trust metadata is 30 min old" in capsys.readouterr().err


def test_after_a_fork_the_locks_are_free(files: PodFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = _build(files)
    pod.store.write("a", b"")
    held = (pod._turn, pod.keeper._lock, pod.store._lock, pod.reporter._lock, process._making)
    monkeypatch.setattr(process, "_made", [pod])

    process._after_fork()

    now = (pod._turn, pod.keeper._lock, pod.store._lock, pod.reporter._lock, process._making)
    assert all(one is not other for one, other in zip(held, now, strict=True))


def _own_lane(home: Path, mode: Mode, *, age: timedelta = timedelta(0)) -> PodFiles:
    key = FileKey.generate()
    lane = lane_of("own", {"admit": role_of(key)}, mode=mode)
    files = PodFiles.make(home, lane, files=PLAIN, keys=(key,), age=age)
    other = PodFiles(files.home, files.trust)
    manifest = manifest_of(PLAIN)
    vsa = files.trust.vsa(manifest)
    kernel = type(vsa.kernel).parse_purl(
        vsa.kernel.purl.replace(str(vsa.kernel.repo), REPO).replace(
            str(vsa.kernel.revision), COMMIT
        )
    )
    bundle = files.trust.bundle(
        manifest,
        key,
        kernel=kernel,
        upstream_revision=kernel.revision,
        metadata_id=NAME,
        lane="own",
    )
    other.write_attestations(manifest, bundle)
    return other
