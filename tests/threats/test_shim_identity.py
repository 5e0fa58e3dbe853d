"""T06 to T09 and T42: a kernel that is signed, but not the one that was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.podkit import COMMIT, FILES, GET, MODEL, REPO, VARIANT, Pod

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "acme/other"
OLDER = "f" * 40


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


def _get(repo: str, pin: str) -> str:
    return GET.replace(f"{REPO!r}, revision={COMMIT!r}", f"{repo!r}, {pin}")


def test_t06_a_signed_kernel_served_under_another_name_falls_back(pod: Pod) -> None:
    pod.cache_kernel(FILES, repo=OTHER)

    result = pod.run(_get(OTHER, f"revision={COMMIT!r}"))

    assert result.value["outcome"] == "fallback"
    assert result.value["reason"] == "wrong-identity"


def test_t06_a_signed_kernel_served_as_another_revision_falls_back(pod: Pod) -> None:
    pod.cache_kernel(FILES, commit=OLDER)

    result = pod.run(_get(REPO, f"revision={OLDER!r}"))

    assert result.value["reason"] == "wrong-identity"
    assert OLDER in result.value["message"]


def test_t06_a_branch_that_points_to_another_version_falls_back(pod: Pod) -> None:
    refs = pod.variant().parents[3] / "refs"
    (refs / "v2").write_text(COMMIT)

    result = pod.run(_get(REPO, "version=2"))

    assert result.value["reason"] == "wrong-identity"
    assert "asked for version 2, these files are version 1" in result.value["message"]


def test_t06_the_version_that_was_admitted_loads(pod: Pod) -> None:
    assert pod.run(_get(REPO, "version=1")).value["outcome"] == "loaded"


def test_t06_a_decision_about_another_variant_falls_back(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    manifest = pod.admit(FILES)
    other = pod.bundle(manifest, FILES)
    pod.write_attestations(manifest, other)
    universal = pod.variant().rename(pod.variant().with_name("torch-universal"))

    result = pod.run(GET)

    assert universal.exists()
    assert result.value["reason"] == "wrong-identity"
    assert "asked for variant torch-universal" in result.value["message"]


T07 = """
import importlib, json, os, pathlib, sys
import kernels
import torch
from torch import nn
from kernels import (FuncRepository, LayerRepository, LocalFuncRepository, LocalLayerRepository,
                     LockedFuncRepository, LockedLayerRepository, Mode, get_kernel,
                     get_local_kernel, get_locked_kernel, kernelize, load_kernel,
                     register_kernel_mapping, use_kernel_forward_from_hub)
from kernels.cli import benchmark
from kernels.cli.benchmark import discover_benchmark_classes
import kernels.deps, kernels.importer
variant = pathlib.Path({variant!r})
repo, commit = {repo!r}, {commit!r}
lock = pathlib.Path("kernels.lock")
lock.write_text(json.dumps([{{"dependency": {{"repo-id": repo, "version": 1}},
                             "lock": {{"commit": commit}}}}]))
script = pathlib.Path("benchmark.py")
script.write_text("print('script ran')")
benchmark.MISSING_DEPS.clear()  # of its tables only
pathlib.Path("repo/benchmarks").mkdir(parents=True, exist_ok=True)
pathlib.Path("repo/benchmarks/benchmark.py").write_text("print('script ran')")

@use_kernel_forward_from_hub("Double")
class Double(nn.Module):
    def forward(self, x):
        return x + x

def mapped():
    register_kernel_mapping(
        {{"Double": {{"cpu": LayerRepository(repo, layer_name="Double", revision=commit)}}}})
    kernelize(nn.Sequential(Double()), mode=Mode.INFERENCE, device="cpu", use_fallback=False)

def reloaded():
    for name in ("importer", "deps", "load"):
        importlib.reload(sys.modules["kernels." + name])
    return sys.modules["kernels.load"].get_kernel(repo, revision=commit)

ways = {{
    "get_kernel": lambda: get_kernel(repo, revision=commit),
    "trust_remote_code": lambda: get_kernel(repo, revision=commit, trust_remote_code=True),
    "version": lambda: get_kernel(repo, version=1),
    "get_local_kernel": lambda: get_local_kernel(variant.parents[1]),
    "get_local_kernel of a variant": lambda: get_local_kernel(variant),
    "load_kernel": lambda: load_kernel(repo, lockfile=lock),
    "get_locked_kernel": lambda: get_locked_kernel(repo, lockfile=lock),
    "LayerRepository": lambda: LayerRepository(repo, layer_name="Double", version=1).load(),
    "LocalLayerRepository": lambda: LocalLayerRepository(
        variant.parents[1], layer_name="Double").load(),
    "LockedLayerRepository": lambda: LockedLayerRepository(
        repo, lockfile=lock, layer_name="Double").load(),
    "FuncRepository": lambda: FuncRepository(repo, func_name="double", version=1).load(),
    "LocalFuncRepository": lambda: LocalFuncRepository(
        variant.parents[1], func_name="double").load(),
    "LockedFuncRepository": lambda: LockedFuncRepository(
        repo, lockfile=lock, func_name="double").load(),
    "a registered mapping": mapped,
    "deps._import_from_path": lambda: kernels.deps._import_from_path(variant, deps={{}}),
    "importer._import_from_path": lambda: kernels.importer._import_from_path(variant, deps={{}}),
    "benchmark": lambda: discover_benchmark_classes(script, pathlib.Path(".")),
    "kernels benchmark": lambda: benchmark.run_benchmark(
        repo_id="./repo", branch=None, version=None, iterations=1, warmup=1),
    "after reloads": reloaded,
}}
outcomes = {{}}
for name, way in ways.items():
    try:
        way()
        outcomes[name] = "loaded"
    except FileNotFoundError as exc:
        outcomes[name] = type(exc).__name__
print(json.dumps(outcomes))
"""


def _t07(pod: Pod) -> str:
    return T07.format(variant=str(pod.variant()), repo=REPO, commit=COMMIT)


def test_t07_every_way_to_load_an_unsigned_kernel_is_refused(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    result = pod.run(_t07(pod), LOCAL_KERNELS=None)

    assert set(result.value.values()) == {"KgateBlocked"}
    assert len(result.value) == 19
    assert "kernel ran" not in result.stdout
    assert "script ran" not in result.stdout


def test_t07_every_way_to_load_an_admitted_kernel_works(pod: Pod) -> None:
    outcomes = pod.run(_t07(pod)).value

    assert outcomes.pop("benchmark") == outcomes.pop("kernels benchmark") == "KgateBlocked"
    assert set(outcomes.values()) == {"loaded"}


def test_t07_local_kernels_and_a_cache_of_ones_own_are_gated(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    local = pod.run(
        _get("acme/anything", "version=1"), LOCAL_KERNELS=f"acme/anything={pod.variant()}"
    )
    moved = pod.hub.rename(pod.home / "prefilled")
    cached = pod.run(GET, KERNELS_CACHE=str(moved))

    assert local.value["outcome"] == "fallback"
    assert cached.value["outcome"] == "fallback"
    assert cached.value["reason"] == "no-attestation"


@pytest.mark.parametrize("name", ["json", "torch", "os.path", "class", "kgate_client"])
def test_t08_a_kernel_may_not_take_the_name_of_a_module(tmp_path: Path, name: str) -> None:
    metadata = json.loads(FILES["metadata.json"]) | {"id": name}
    files = FILES | {"metadata.json": json.dumps(metadata).encode()}
    pod = Pod.make(tmp_path, files=files)

    result = pod.run(GET)

    assert result.value["reason"] == "module-name"
    assert "kernel ran" not in result.stdout


def test_t08_the_id_in_the_files_must_be_the_signed_one(tmp_path: Path) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    pod.admit(FILES, metadata_id="_another_0001")

    assert pod.run(GET).value["reason"] == "wrong-identity"


def test_t09_an_unsigned_dependency_stops_the_kernel_that_wants_it(tmp_path: Path) -> None:
    metadata = json.loads(FILES["metadata.json"]) | {
        "id": "_needy_0001",
        "name": "needy",
        "kernel-depends": [{"repo-id": REPO, "version": 1}],
    }
    needy = FILES | {
        "metadata.json": json.dumps(metadata).encode(),
        "__init__.py": b"from kernels import get_kernel_dep\n"
        b"factor = get_kernel_dep('acme/double').FACTOR\n",
    }
    pod = Pod.make(tmp_path, admitted=False)
    pod.cache_kernel(needy, repo="acme/needy")
    pod.admit(needy, repo="acme/needy")
    program = _get("acme/needy", f"revision={COMMIT!r}")

    refused = pod.run(program)
    pod.admit(FILES)
    loaded = pod.run(program)

    assert refused.value["outcome"] == "fallback"
    assert refused.reports[0]["repo"] == REPO
    assert loaded.value["outcome"] == "loaded"


def test_t42_an_admitted_kernel_does_not_answer_for_another(pod: Pod) -> None:
    program = f"""
import json
from kernels import get_kernel
outcomes = []
for repo in ("acme/other", {REPO!r}, "acme/other"):
    try:
        get_kernel(repo, version=1)
        outcomes.append("loaded")
    except FileNotFoundError as exc:
        outcomes.append(exc.reason)
print(json.dumps(outcomes))
"""
    snapshot = pod.variant().parents[1]

    result = pod.run(program, LOCAL_KERNELS=f"acme/other={snapshot}")

    assert result.value == ["wrong-identity", "loaded", "wrong-identity"]


def test_t42_nor_from_a_plain_directory_that_says_nothing(pod: Pod) -> None:
    plain = pod.home / VARIANT
    plain.mkdir()
    for path, data in FILES.items():
        (plain / path).write_bytes(data)

    other = pod.run(_get(OTHER, "version=1"), LOCAL_KERNELS=f"{OTHER}={plain}")
    same = pod.run(_get(REPO, "version=1"), LOCAL_KERNELS=f"{REPO}={plain}")

    assert other.value["reason"] == "wrong-identity"
    assert same.value["outcome"] == "loaded"


def test_t42_a_model_asking_for_another_kernel_runs_its_fallback(pod: Pod) -> None:
    snapshot = pod.variant().parents[1]
    program = MODEL + "\nprint(json.dumps(run(repo='acme/other', revision='v1')))"

    result = pod.run(program, LOCAL_KERNELS=f"acme/other={snapshot}")

    assert result.value == {"outcome": "fallback", "value": [2.0, 2.0]}
