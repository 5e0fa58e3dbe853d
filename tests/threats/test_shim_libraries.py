"""T44 and T05 for native code: which library the loader takes, with real compiled libraries."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.podkit import COMMIT, FILES, REPO, Pod

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HELPER = "int helper(void) { return %d; }\n"
EXTENSION = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
extern int helper(void);
static PyObject *number(PyObject *self, PyObject *args) { return PyLong_FromLong(helper()); }
static PyMethodDef methods[] = {{"number", number, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "", -1, methods};
PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&module); }
"""
GET_NUMBER = f"""
import json
from kernels import get_kernel
try:
    print(json.dumps(get_kernel({REPO!r}, revision={COMMIT!r}).number()))
except FileNotFoundError as exc:
    print(json.dumps([exc.reason, exc.message]))
"""


def _compile(folder: Path, source: str, output: str, *flags: str) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "a C compiler is needed: make test installs one"
    (folder / "source.c").write_text(source)
    include = sysconfig.get_paths()["include"]
    command = [compiler, "-shared", "-fPIC", f"-I{include}", "source.c", "-o", output, *flags]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / output


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with another library of the same name."""
    folder = tmp_path_factory.mktemp("evil")
    _compile(folder, HELPER % 666, "libhelper.so", "-Wl,-soname,libhelper.so")
    return folder


def _files(folder: Path, runpath: str = "$ORIGIN") -> Mapping[str, bytes]:
    helper = _compile(folder, HELPER % 42, "libhelper.so", "-Wl,-soname,libhelper.so")
    native = _compile(
        folder, EXTENSION, "_native.abi3.so", "-L.", "-lhelper", f"-Wl,-rpath,{runpath}"
    )
    return FILES | {
        "__init__.py": b"from ._native import number\n",
        "libhelper.so": helper.read_bytes(),
        "_native.abi3.so": native.read_bytes(),
    }


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path, files=_files(tmp_path))


def test_native_code_runs_from_the_private_copy(pod: Pod) -> None:
    program = GET_NUMBER + (
        "\nmaps = open('/proc/self/maps').read()"
        "\nprint(json.dumps([line.split()[-1] for line in maps.splitlines() if 'helper' in line]))"
    )
    result = pod.run(program)

    assert result.stdout.splitlines()[0] == "42"
    assert all(path.startswith(str(pod.cache / "sealed")) for path in result.value)


def test_t44_a_library_from_ld_library_path_is_refused(pod: Pod, evil: Path) -> None:
    ungated = pod.run(
        GET_NUMBER, LD_LIBRARY_PATH=str(evil), KGATE_DISABLE="1", KGATE_TRUST_ROOT=None
    )
    gated = pod.run_fresh(GET_NUMBER, LD_LIBRARY_PATH=str(evil))

    assert ungated.value == 666
    assert gated.value[0] == "library-replaced"
    assert "LD_LIBRARY_PATH" in gated.value[1]


def test_t44_a_library_that_is_loaded_already_is_refused(pod: Pod, evil: Path) -> None:
    program = f"import ctypes\nctypes.CDLL({str(evil / 'libhelper.so')!r})\n" + GET_NUMBER

    result = pod.run(program)

    assert result.value[0] == "library-replaced"
    assert "is loaded already" in result.value[1]


@pytest.mark.parametrize("runpath", ["$ORIGIN/..", "EVIL"])
def test_t44_a_search_path_out_of_the_variant_is_refused(
    tmp_path: Path, evil: Path, runpath: str
) -> None:
    pod = Pod.make(tmp_path, files=_files(tmp_path, runpath.replace("EVIL", str(evil))))

    assert pod.run(GET_NUMBER).value[0] == "library-replaced"


def test_t05_a_library_swapped_after_the_check_is_not_what_is_loaded(pod: Pod, evil: Path) -> None:
    library = pod.materialise("libhelper.so")
    program = (
        f"""
import shutil, sys
def swap(event, arguments):
    if event == "os.rename" and ".staging" in str(arguments[0]):
        shutil.copy({str(evil / "libhelper.so")!r}, {str(library)!r})
sys.addaudithook(swap)
"""
        + GET_NUMBER
    )

    result = pod.run(program)

    assert result.value == 42
    assert library.read_bytes() == (evil / "libhelper.so").read_bytes()


def test_t01_a_changed_byte_of_a_library_falls_back(pod: Pod) -> None:
    library = pod.materialise("_native.abi3.so")
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)

    assert pod.run(GET_NUMBER).value[0] == "integrity"


def test_a_library_that_is_no_library_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    files = FILES | {"_native.abi3.so": b"\x7fELF\x02\x01" + b"\xff" * 500}
    pod = Pod.make(tmp_path, files=files)

    result = pod.run(GET_NUMBER)

    assert result.value[0] == "invalid-input"
    assert json.dumps(result.value).count("not a well-formed library") == 1
