"""Serving systems that fetch models through the mirror: KServe's storage initializer (`hf://`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.mirrorkit import commit_of, make_mirror, publish_model, served

pytestmark = pytest.mark.matrix

HOME: Final = Path(__file__).parents[2] / ".cache" / "clients" / "kserve-0.21.0"
MODEL: Final = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": b"weights" * 1000,
    "sub/vocab.txt": b"a b c",
}
PROGRAM: Final = """
import json, sys
from pathlib import Path
from kserve_storage import Storage
Storage.download(sys.argv[1], sys.argv[2])
root = Path(sys.argv[2])
found = {str(p.relative_to(root)): p.stat().st_size for p in root.rglob("*")
         if p.is_file() and ".cache" not in p.parts}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    if not (HOME / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "-q", "kserve-storage==0.21.0"]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (HOME / "complete").touch()
    return HOME / "bin" / "python"


@pytest.mark.parametrize("uri", ["hf://acme/model", f"hf://acme/model:{commit_of('model')}"])
def test_kserve_fetches_a_mirrored_model(python: Path, tmp_path: Path, uri: str) -> None:
    kit = make_mirror(tmp_path / "mirror")
    publish_model(kit, MODEL)
    with served(kit.settings) as address:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": address,
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [str(python), "-c", PROGRAM, uri, str(tmp_path / "models")],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        name: len(data) for name, data in MODEL.items()
    }
