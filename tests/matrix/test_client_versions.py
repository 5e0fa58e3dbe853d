"""The same promises on every supported minor version of `kernels`, each in its own environment.

The versions are fetched from the package registry into .cache/clients at first use, each beside the
test environment's torch. The oldest runs in `make test`, those between in `make test-matrix`; the
newest is what the test environment itself has, and is covered by tests/threats.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kgate_client.hook import supported_versions
from tests.podkit import COMMIT, MODEL, REPO, Pod

CLIENTS: Final = Path(__file__).parents[2] / ".cache" / "clients"
# What each version needs beside the packages of the test environment.
EARLIER: Final = {
    "0.13.0": ("--no-deps", "huggingface_hub==1.20.1", "httpx", "httpcore", "h11", "anyio"),
    "0.14.1": ("--no-deps", "kernels-data"),
    "0.15.2": ("--no-deps", "kernels-data"),
    "0.16.2": ("--no-deps", "kernels-data"),
}

WAYS: Final = """
import json, pathlib, sys
import kernels, kernels.utils
variant = pathlib.Path({variant!r})
old = kernels.__version__ if hasattr(kernels, "__version__") else ""
package = ("double",) if "{version}".startswith("0.13") else ()
ways = {{
    "get_kernel": lambda: kernels.get_kernel({repo!r}, revision={commit!r}),
    "version": lambda: kernels.get_kernel({repo!r}, version=1),
    "positional": lambda: kernels.get_kernel({repo!r}, {commit!r}),
    "get_local_kernel": lambda: kernels.get_local_kernel(variant, *package),
    "LayerRepository": lambda: kernels.LayerRepository(
        {repo!r}, layer_name="Double", revision={commit!r}).load(),
    "other": lambda: kernels.get_kernel("acme/other", version=1),
}}
outcomes = {{}}
for name, way in ways.items():
    try:
        way()
        outcomes[name] = "loaded"
    except FileNotFoundError as exc:
        outcomes[name] = getattr(exc, "reason", str(exc))
print(json.dumps(outcomes))
"""


OLDEST: Final = "0.13.0"
_PARAMETERS: Final = [
    pytest.param(version, marks=() if version == OLDEST else pytest.mark.matrix)
    for version in sorted(EARLIER)
]


@pytest.fixture(params=_PARAMETERS, scope="module")
def client(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return a version and the search path that has it."""
    version: str = request.param
    folder = CLIENTS / version
    if not (folder / "ready").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
        subprocess.run(
            [*command, *EARLIER[version], f"kernels=={version}"],
            check=True,
            timeout=300,
        )
        (folder / "ready").touch()
    return version, str(folder)


def test_every_supported_version_is_in_the_matrix_or_in_the_test_environment() -> None:
    tested = {version.rpartition(".")[0] for version in EARLIER}

    assert set(supported_versions()) == tested | {"0.17"}


def _local(pod: Pod) -> str:
    return f"{REPO}={pod.variant()}:acme/other={pod.variant()}"


def _ways(pod: Pod, version: str) -> str:
    return WAYS.format(variant=str(pod.variant()), repo=REPO, commit=COMMIT, version=version)


def test_an_admitted_kernel_loads_and_answers_for_nothing_else(
    tmp_path: Path, client: tuple[str, str]
) -> None:
    pod = Pod.make(tmp_path)

    result = pod.run_fresh(_ways(pod, client[0]), PYTHONPATH=client[1], LOCAL_KERNELS=_local(pod))

    assert result.value.pop("other") == "wrong-identity"
    assert set(result.value.values()) == {"loaded"}
    assert f"kernel ran from {pod.cache / 'sealed'}" in result.stdout
    assert result.reports[0]["host"]["kernels"] or client[0] == "0.13.0"


def test_an_unsigned_kernel_loads_in_no_way(tmp_path: Path, client: tuple[str, str]) -> None:
    pod = Pod.make(tmp_path, admitted=False)

    result = pod.run_fresh(_ways(pod, client[0]), PYTHONPATH=client[1], LOCAL_KERNELS=_local(pod))

    assert set(result.value.values()) == {"no-attestation", "wrong-identity"}
    assert "kernel ran" not in result.stdout


def test_a_model_runs_its_fallback(tmp_path: Path, client: tuple[str, str]) -> None:
    pod = Pod.make(tmp_path)
    program = MODEL + "\nprint(json.dumps(run()))"
    variables = {"PYTHONPATH": client[1], "LOCAL_KERNELS": _local(pod)}

    loaded = pod.run_fresh(program, **variables)
    (pod.variant() / "added.py").write_text("")
    refused = pod.run_fresh(program, **variables)

    assert loaded.value == {"outcome": "loaded", "value": [2.0, 2.0]}
    assert refused.value == {"outcome": "fallback", "value": [2.0, 2.0]}


def test_a_dead_endpoint_costs_no_retries(tmp_path: Path, client: tuple[str, str]) -> None:
    pod = Pod.make(tmp_path)
    program = MODEL + "\nimport time\nstart = time.monotonic()\nresult = run(version=1)\n"
    program += "print(json.dumps([result['outcome'], time.monotonic() - start]))"

    result = pod.run_fresh(
        program,
        PYTHONPATH=client[1],
        HF_HUB_OFFLINE=None,
        HF_ENDPOINT="http://127.0.0.1:9",
    )

    assert result.value[0] == "fallback"
    assert result.value[1] < 5
    assert {report["reason"] for report in result.reports} == {"unreachable"}


def test_reloading_the_module_does_not_open_the_gate(
    tmp_path: Path, client: tuple[str, str]
) -> None:
    pod = Pod.make(tmp_path, admitted=False)
    program = "import importlib, kernels.utils\nimportlib.reload(kernels.utils)\n"
    program += _ways(pod, client[0])

    result = pod.run_fresh(program, PYTHONPATH=client[1], LOCAL_KERNELS=_local(pod))

    assert "loaded" not in result.value.values()
