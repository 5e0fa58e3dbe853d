from __future__ import annotations

import pytest

from kgate_scanner import python
from kgate_scanner.python import PythonFacts, read_python


def read(source: str | bytes) -> PythonFacts:
    data = source.encode() if isinstance(source, str) else source
    return read_python(memoryview(data), "a.py")


def rules(source: str | bytes) -> set[str]:
    return {finding.rule for finding in read(source).findings}


IN_FUNCTION = {
    "exec(text)": "KG-PY-002",
    "eval('1 + 1')": "KG-PY-002",
    "import runpy; runpy.run_path(p)": "KG-PY-002",
    "import os; os.system('id')": "KG-PY-003",
    "import os as o; o.system('id')": "KG-PY-003",
    "from os import system as s; s('id')": "KG-PY-003",
    "import os; getattr(os, 'system')('id')": "KG-PY-003",
    "__import__('os').system('id')": "KG-PY-003",
    "import importlib; importlib.import_module('os').system('id')": "KG-PY-003",
    "import os; run = os.system; run('id')": "KG-PY-003",
    "import subprocess; subprocess.run(['id'])": "KG-PY-003",
    "from subprocess import Popen; Popen('id')": "KG-PY-003",
    "import os; os.execv('/bin/sh', [])": "KG-PY-003",
    "import socket; socket.create_connection(('a', 1))": "KG-PY-004",
    "import urllib.request; urllib.request.urlopen(u)": "KG-PY-004",
    "import requests; requests.post(u)": "KG-PY-004",
    "from huggingface_hub import snapshot_download; snapshot_download('a')": "KG-PY-004",
    "import ctypes; ctypes.CDLL('x.so')": "KG-PY-005",
    "import ctypes; ctypes.cdll.LoadLibrary('x.so')": "KG-PY-005",
    "import torch; torch.ops.load_library(p)": "KG-PY-005",
    "import pickle; pickle.loads(b)": "KG-PY-006",
    "import torch; torch.load(p)": "KG-PY-006",
    "import numpy as np; np.load(p, allow_pickle=True)": "KG-PY-006",
    "import yaml; yaml.load(t)": "KG-PY-006",
    "from torch.utils.cpp_extension import load_inline; load_inline('x')": "KG-PY-007",
    "import cupy; cupy.RawKernel('x', 'y')": "KG-PY-007",
    "import base64; exec(base64.b64decode(t))": "KG-PY-008",
    "import zlib; code = zlib.decompress(t); eval(code)": "KG-PY-008",
    "exec(compile(bytes.fromhex(t), 'x', 'exec'))": "KG-PY-008",
    "open('x', 'w')": "KG-PY-009",
    "open('x', mode='ab')": "KG-PY-009",
    "from pathlib import Path; Path('x').open('w')": "KG-PY-009",
    "from pathlib import Path; Path('x').write_text('')": "KG-PY-009",
    "import shutil; shutil.rmtree('x')": "KG-PY-009",
    "x = 'HF_TOKEN'": "KG-PY-011",
    "open('/root/.ssh/id_rsa')": "KG-PY-011",
    "import sys; sys.modules['json'] = 1": "KG-PY-012",
    "import torch; torch.nn.functional.gelu = 1": "KG-PY-012",
    "import torch; setattr(torch.nn, 'x', 1)": "KG-PY-012",
    "from torch.nn import functional; functional.gelu = f": "KG-PY-012",
    "import sys; sys.settrace(f)": "KG-PY-012",
    "__import__(name)": "KG-PY-014",
    "import importlib; importlib.import_module(name)": "KG-PY-014",
    "import importlib.util; importlib.util.spec_from_file_location('a', p)": "KG-PY-014",
    "import os; os.environ['A'] = 'b'": "KG-PY-016",
    "import os; os.environ.update(A='b')": "KG-PY-016",
}


@pytest.mark.parametrize("body", IN_FUNCTION)
def test_each_risky_call_is_found_however_its_name_is_reached(body: str) -> None:
    expected = IN_FUNCTION[body]
    found = rules(f"def f(p, b, t, u, text, name):\n    {body}\n")
    # What runs hidden code also runs text, and that is said once as what it is.
    assert expected in found
    assert "KG-PY-010" not in found


HARMLESS = (
    "import re; re.compile('x')",
    "import subprocess, socket, pickle",
    "import torch; torch.load(p, weights_only=True)",
    "import torch; torch.compile(f)",
    "import numpy; numpy.load(p)",
    "import yaml; yaml.load(t, Loader=yaml.SafeLoader)",
    "open('x')",
    "open('wax')",
    "import os; os.open('wb', 0)",
    "open('x', 'rb')",
    "import importlib; importlib.import_module('json')",
    "self.system('id')",
    "model.eval()",
    "import torch; torch.ops.relu.relu(x)",
    "class A:\n  pass\nA.x = 1",
    "from .layers import A\nA.x = 1",
    "import shutil; shutil.which('nvcc')",
    "x = 'TOKENIZER'",
    "'https://huggingface.co'",
)


@pytest.mark.parametrize("source", HARMLESS)
def test_ordinary_code_is_not_complained_about(source: str) -> None:
    assert rules(source) == set()


@pytest.mark.parametrize(
    ("source", "at_import"),
    [
        ("import os\nos.system('id')\n", True),
        ("import os\nclass A:\n    x = os.system('id')\n", True),
        ("import os\ndef f(x=os.system('id')): pass\n", True),
        ("import os\n@os.system\ndef f(): pass\n", True),
        ("import os\nif True:\n    os.system('id')\n", True),
        ("import os\nx = lambda: os.system('id')\n", False),
        ("import os\nasync def f():\n    os.system('id')\n", False),
        ("import os\nif __name__ == '__main__':\n    os.system('id')\n", False),
        ("import os\nif __name__ == '__main__':\n    pass\nelse:\n    os.system('id')\n", True),
    ],
)
def test_what_importing_alone_does_is_told_apart(source: str, *, at_import: bool) -> None:
    assert ("KG-PY-010" in rules(source)) is at_import


def test_a_finding_names_the_line() -> None:
    (first, second) = read("import os\n\nos.system('id')\n").findings
    assert (first.rule, first.line, first.seen) == ("KG-PY-003", 3, "calls os.system")
    assert second.line == 3


def test_gpu_kernels_are_listed_with_their_parameters() -> None:
    source = """
import triton
import triton.language as tl
from triton import jit

@triton.autotune(configs=[], key=[])
@triton.jit
def add(x_ptr, n, /, y_ptr, *, BLOCK: tl.constexpr, FLAG: "tl.constexpr"): pass

@jit(do_not_specialize=["n"])
def mul(x_ptr): pass

def helper(): pass
"""
    facts = read(source).facts
    assert facts["imports"] == ["triton"]
    assert facts["kernels"] == [
        {
            "name": "add",
            "language": "triton",
            "line": 8,
            "parameters": ["x_ptr", "n", "y_ptr", "BLOCK", "FLAG"],
            "constexpr": ["BLOCK", "FLAG"],
        },
        {
            "name": "mul",
            "language": "triton",
            "line": 11,
            "parameters": ["x_ptr"],
            "constexpr": [],
        },
    ]


def test_reading_never_runs_anything(tmp_path: object) -> None:
    marker = f"{tmp_path}/ran"
    read(f"open({marker!r}, 'w').write('x')\nraise SystemExit(3)\n")
    assert not __import__("pathlib").Path(marker).exists()


@pytest.mark.parametrize(
    ("source", "rule", "complete"),
    [
        ("def f(:\n", "KG-PY-001", True),
        ("x = 1\0", "KG-PY-001", True),
        (b"# coding: utf-7\n+AGE-", "KG-PY-013", False),
        (b"# coding: nonsense\n", "KG-PY-013", False),
        (b"\xff\xfe", "KG-PY-013", False),
        ("access = 'user\u202e \u2066'\n", "KG-PY-013", True),
        ("x = '\u200b'\n", "KG-PY-013", True),
        ("(" * 5000 + ")" * 5000, "KG-PY-001", True),
        ("-" * 200_000 + "1", "KG-PY-015", False),
        ("x = " + "+".join("1" for _ in range(50_000)), "KG-PY-015", False),
    ],
)
def test_source_that_cannot_be_read_is_a_finding(
    source: str | bytes, rule: str, *, complete: bool
) -> None:
    found = read(source)
    assert {finding.rule for finding in found.findings} == {rule}
    assert found.complete is complete


def test_source_beyond_the_limit_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "MAX_SOURCE", 10)
    assert rules("x = 1234567\n") == {"KG-PY-015"}


def test_a_byte_order_mark_and_latin_1_are_ordinary() -> None:
    assert rules(b"\xef\xbb\xbfx = 1\n") == set()
    assert read(b"# coding: latin-1\nx = '\xe9'\n").facts["encoding"] == "iso-8859-1"
