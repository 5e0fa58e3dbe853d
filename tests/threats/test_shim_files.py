"""T01 to T05 and T43: what somebody does to a kernel's files in a pod, carried out for real."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.podkit import COMMIT, FILES, GET, MODEL, REPO, Pod
from tests.repos import plant_bytecode, plant_sourceless

if TYPE_CHECKING:
    from pathlib import Path

MARK = "import pathlib; pathlib.Path({path!r}).write_text('ran')"
RUN_MODEL = MODEL + "\nprint(json.dumps(run()))"


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


def test_an_admitted_kernel_loads_from_its_private_copy(pod: Pod) -> None:
    result = pod.run(RUN_MODEL)

    assert result.value == {"outcome": "loaded", "value": [2.0, 2.0]}
    assert f"kernel ran from {pod.cache / 'sealed'}" in result.stdout
    assert [report["outcome"] for report in result.reports] == ["loaded"]
    assert "kgate" not in result.stderr


def test_t01_a_byte_changed_at_the_same_length_falls_back(tmp_path: Path) -> None:
    files = FILES | {"_ops.so": b"\x7fELF" + bytes(4096)}
    pod = Pod.make(tmp_path, files=files)
    library = pod.materialise("_ops.so")
    library.write_bytes(b"\x7fELF" + bytes(4095) + b"\x01")

    result = pod.run(RUN_MODEL)

    assert result.value == {"outcome": "fallback", "value": [2.0, 2.0]}
    assert result.reports[0]["reason"] == "integrity"
    assert "_ops.so has sha256:" in result.reports[0]["message"]
    assert "kernel ran" not in result.stdout


def test_t01_a_changed_byte_is_found_although_a_sealed_copy_exists(pod: Pod) -> None:
    assert pod.run(GET).value["outcome"] == "loaded"
    pod.materialise("numbers.py").write_bytes(b"FACTOR = 3\n")

    result = pod.run(GET)

    assert result.value["reason"] == "integrity"
    assert "kernel ran" not in result.stdout


@pytest.mark.parametrize("attack", ["changed", "added", "removed"])
def test_t02_a_changed_added_or_removed_source_falls_back(pod: Pod, attack: str) -> None:
    ran = pod.home / "ran"
    code = MARK.format(path=str(ran)).encode()
    match attack:
        case "changed":
            pod.materialise("numbers.py").write_bytes(code + b"\nFACTOR = 2\n")
        case "added":
            (pod.variant() / "sitecustomize.py").write_bytes(code)
        case _:
            (pod.variant() / "later.py").unlink()

    result = pod.run(RUN_MODEL)

    assert result.value == {"outcome": "fallback", "value": [2.0, 2.0]}
    assert result.reports[0]["reason"] == "integrity"
    assert not ran.exists()


def test_t03_planted_bytecode_is_reported_and_never_executed(pod: Pod) -> None:
    ran = pod.home / "ran"
    plant_bytecode(pod.variant(), MARK.format(path=str(ran)))

    result = pod.run(RUN_MODEL)

    assert result.value == {"outcome": "loaded", "value": [2.0, 2.0]}
    assert result.reports[0]["ignored_bytecode"] == ["__pycache__"]
    assert not ran.exists()


def test_t03_the_same_bytecode_runs_without_the_gate(pod: Pod) -> None:
    ran = pod.home / "ran"
    plant_bytecode(pod.variant(), MARK.format(path=str(ran)))

    result = pod.run(RUN_MODEL, KGATE_DISABLE="1", KGATE_TRUST_ROOT=None)

    assert result.value["outcome"] == "loaded"
    assert ran.exists()


def test_t03_bytecode_planted_in_the_private_copy_is_not_executed(pod: Pod) -> None:
    ran = pod.home / "ran"
    assert pod.run(GET).value["outcome"] == "loaded"
    sealed = next(path for path in (pod.cache / "sealed").iterdir())
    sealed.chmod(0o700)
    plant_bytecode(sealed, MARK.format(path=str(ran)))

    result = pod.run(RUN_MODEL)

    assert result.value == {"outcome": "loaded", "value": [2.0, 2.0]}
    assert not ran.exists()


def test_t03_bytecode_without_a_source_falls_back(pod: Pod) -> None:
    ran = pod.home / "ran"
    plant_sourceless(pod.variant(), MARK.format(path=str(ran)))

    result = pod.run(RUN_MODEL)

    assert result.value["outcome"] == "fallback"
    assert "bytecode without its source" in result.reports[0]["message"]
    assert not ran.exists()


def test_t04_a_link_out_of_the_repository_falls_back(pod: Pod) -> None:
    outside = pod.home / "outside.py"
    outside.write_bytes(FILES["numbers.py"])
    file = pod.variant() / "numbers.py"
    file.unlink()
    file.symlink_to(outside)

    result = pod.run(RUN_MODEL)

    assert result.value["outcome"] == "fallback"
    assert "is a link that leaves" in result.reports[0]["message"]


def test_t04_a_linked_directory_falls_back(pod: Pod) -> None:
    elsewhere = pod.home / "elsewhere"
    elsewhere.mkdir()
    (pod.variant() / "more").symlink_to(elsewhere)

    assert pod.run(RUN_MODEL).value["outcome"] == "fallback"


def test_t04_a_file_shared_with_a_writer_does_not_change_what_runs(pod: Pod) -> None:
    shared = pod.home / "shared.py"
    shared.write_bytes(FILES["later.py"])
    file = pod.variant() / "later.py"
    file.unlink()
    file.hardlink_to(shared)
    program = f"""
import json, pathlib
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
pathlib.Path({str(shared)!r}).write_text("VALUE = 'evil'")
print(json.dumps(kernel.lazily()))
"""
    assert pod.run(program).value == "signed"


def test_t05_files_swapped_after_the_check_do_not_run(pod: Pod) -> None:
    evil = {
        "numbers.py": "FACTOR = 666\n",
        "__init__.py": "from .numbers import FACTOR\ndouble = lambda x: x * FACTOR\n",
    }
    for path in evil:
        pod.materialise(path)
    program = f"""
import json, pathlib, sys
variant = pathlib.Path({str(pod.variant())!r})
swapped = []

def swap(event, arguments):
    # The copy gets its final name: every check is over, nothing has been imported yet.
    if event == "os.rename" and ".staging" in str(arguments[0]) and not swapped:
        swapped.append(True)
        for path, text in {evil!r}.items():
            (variant / path).write_text(text)

sys.addaudithook(swap)
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
print(json.dumps([swapped, kernel.double(1)]))
"""
    assert pod.run(program).value == [[True], 2]


def test_t05_without_the_gate_the_swapped_file_runs(pod: Pod) -> None:
    pod.materialise("numbers.py").write_text("FACTOR = 666\n")
    program = f"""
import json
from kernels import get_kernel
print(json.dumps(get_kernel({REPO!r}, revision={COMMIT!r}).double(1)))
"""
    assert pod.run(program, KGATE_DISABLE="1", KGATE_TRUST_ROOT=None).value == 666


def test_t43_modules_swapped_or_dropped_later_are_never_imported(pod: Pod) -> None:
    pod.materialise("later.py")
    program = f"""
import importlib, inspect, json, pathlib
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
variant = pathlib.Path({str(pod.variant())!r})
(variant / "later.py").write_text("VALUE = 'evil'")
(variant / "dropped.py").write_text("VALUE = 'evil'")
try:
    importlib.import_module(kernel.__name__ + ".dropped")
    dropped = "imported"
except ModuleNotFoundError:
    dropped = "not found"
from importlib import import_module
later = import_module(kernel.__name__ + ".later")
bytecode = pathlib.Path(later.__cached__).exists()
print(json.dumps([kernel.lazily(), dropped, inspect.getsource(later), bytecode]))
"""
    assert pod.run(program).value == ["signed", "not found", "VALUE = 'signed'\n", False]


def test_t43_a_source_changed_in_the_private_copy_is_refused_when_imported(pod: Pod) -> None:
    program = f"""
import json, os, pathlib
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
later = pathlib.Path(kernel.__file__).with_name("later.py")
later.chmod(0o600)
later.write_text("VALUE = 'evil'")
try:
    print(json.dumps(kernel.lazily()))
except Exception as exc:
    print(json.dumps(str(exc)))
"""
    assert "is not what its manifest lists" in pod.run(program).value


def test_a_spoilt_private_copy_is_replaced_by_a_new_one(pod: Pod) -> None:
    first = pod.run(GET).value["file"]
    sealed = pod.cache / "sealed"
    spoilt = next(sealed.iterdir()) / "numbers.py"
    spoilt.chmod(0o600)
    spoilt.write_text("FACTOR = 666\n")
    program = f"""
import json
from kernels import get_kernel
kernel = get_kernel({REPO!r}, revision={COMMIT!r})
print(json.dumps([kernel.double(1), kernel.__file__]))
"""
    value, file = pod.run(program).value

    assert value == 2
    assert file != first


def test_the_copy_belongs_to_its_owner_alone(pod: Pod) -> None:
    assert pod.run(GET).value["outcome"] == "loaded"

    sealed = next((pod.cache / "sealed").iterdir())
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in sealed.iterdir()}

    assert oct(sealed.stat().st_mode & 0o777) == "0o500"
    assert set(modes.values()) == {"0o400"}
    assert set(modes) == set(json.loads(json.dumps(list(FILES))))
