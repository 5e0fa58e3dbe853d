"""What a pod gets: a small install that starts by itself, costs nothing and needs no extra."""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pod.conftest import PodEnvironment

pytestmark = pytest.mark.slow


def test_the_base_install_needs_cryptography_and_nothing_else(
    pod_environment: PodEnvironment,
) -> None:
    with zipfile.ZipFile(pod_environment.wheel) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(name).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]

    assert [line for line in required if "extra ==" not in line] == [
        f"Requires-Dist: {importlib.metadata.requires('kgate')[0]}"  # type: ignore[index]  # above
    ]
    assert "cryptography" in required[0]


def test_the_wheel_starts_the_shim_in_every_interpreter(pod_environment: PodEnvironment) -> None:
    program = (
        "import sys, json; print(json.dumps(['kgate_client.autoload' in sys.modules,"
        " sorted(name for name in sys.modules if name.startswith('kgate'))]))"
    )
    for flags in ((), ("-I",), ("-E", "-s")):
        done = pod_environment.run("python", *flags, "-c", program)
        assert json.loads(done.stdout) == [
            True,
            ["kgate_client", "kgate_client.autoload", "kgate_client.blocked"],
        ]
    bare = pod_environment.run("python", "-S", "-c", program)
    assert json.loads(bare.stdout) == [False, []]


def test_starting_the_shim_imports_nothing_else(pod_environment: PodEnvironment) -> None:
    program = """
import json, os, sys
before = set(sys.modules)
import kgate_client.autoload
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = pod_environment.run("python", "-S", "-c", _with_site(pod_environment) + program)

    assert json.loads(done.stdout) == [
        "kgate_client",
        "kgate_client.autoload",
        "kgate_client.blocked",
    ]


def test_a_broken_install_neither_stops_a_program_nor_says_a_word(
    pod_environment: PodEnvironment,
) -> None:
    package = pod_environment.site / "kgate_client"
    hidden = package.rename(package.with_name("hidden"))
    try:
        done = pod_environment.run("python", "-c", "print('runs')")
    finally:
        hidden.rename(package)

    assert (done.stdout, done.stderr, done.returncode) == ("runs\n", "", 0)


def test_doctor_works_in_an_empty_environment(pod_environment: PodEnvironment) -> None:
    done = pod_environment.run("kgate", "doctor", "--json")
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}

    assert done.returncode == 0, done.stdout + done.stderr
    assert checks["hook"]["status"] == "ok"
    assert checks["client"]["detail"] == "kernels is not installed: nothing loads kernels here"
    assert "OpenSSL" in checks["crypto"]["detail"]
    assert pod_environment.run("kgate", "doctor").stdout.startswith("✓ versions")


def test_other_commands_name_the_extra_that_has_them(pod_environment: PodEnvironment) -> None:
    done = pod_environment.run("kgate", "sync", "--locked")

    assert done.returncode == 2
    assert 'pip install "kgate[cli]"' in done.stderr


def test_without_a_trust_root_the_answer_is_a_configuration_error(
    pod_environment: PodEnvironment,
) -> None:
    done = pod_environment.run("kgate", "trust", "show")

    assert done.returncode == 4
    assert "no trust root is pinned" in done.stderr


def test_usage_and_version(pod_environment: PodEnvironment) -> None:
    assert pod_environment.run("kgate", "--version").stdout.startswith("kgate 0.")
    assert pod_environment.run("kgate", "nonsense").returncode == 2
    assert pod_environment.run("kgate").returncode == 2


def test_the_whole_gate_runs_on_the_base_install(pod_environment: PodEnvironment) -> None:
    program = """
import json, sys
import kgate_client.process, kgate_client.pod, kgate_client.channel
import kgate_client.doctor, kgate_client.wrappers
tops = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(tops - set(sys.stdlib_module_names) - {"__main__"})))
"""
    done = pod_environment.run("python", "-c", program)

    found = set(json.loads(done.stdout))
    assert {name for name in found if not name.startswith("_")} <= {
        "cffi",
        "cryptography",
        "kgate_client",
        "kgate_core",
        "pycparser",
        "sitecustomize",
    }


def _with_site(environment: PodEnvironment) -> str:
    return f"import sys; sys.path.insert(0, {str(environment.site)!r})\n"
