"""Serving systems that fetch models through the mirror.

KServe's storage initializer (`hf://`) itself; and the fetch at start of a server that reads a
manifest with repository, revision and file names (KernelPort's form), by a program written here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.clients import run_ungated
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


MANIFEST: Final = """\
id: tiny
source: {kind: huggingface, repo: acme/model, revision: %s}
format: safetensors
files: [config.json, model.safetensors]
cache: {dir: %s}
runtime: {device: cpu}
"""
FETCH: Final = """
import json, yaml
from pathlib import Path
from huggingface_hub import snapshot_download
manifest = yaml.safe_load(Path("manifest.yaml").read_text())
source = manifest["source"]
assert source["kind"] == "huggingface"
folder = Path(snapshot_download(
    source["repo"], revision=source["revision"], allow_patterns=manifest["files"],
    cache_dir=manifest["cache"]["dir"],
))
missing = [name for name in manifest["files"] if not (folder / name).is_file()]
found = {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
print(json.dumps({"ready": not missing, "files": found}))
"""


@pytest.mark.parametrize("revision", ["main", str(commit_of("model"))])
def test_a_fetch_at_start_by_a_manifest_gets_the_files_it_names(
    tmp_path: Path, revision: str
) -> None:
    kit = make_mirror(tmp_path / "mirror")
    publish_model(kit, MODEL)
    (tmp_path / "manifest.yaml").write_text(MANIFEST % (revision, tmp_path / "cache"))
    with served(kit.settings) as address:
        said = run_ungated(FETCH, tmp_path, endpoint=address)
    named = ("config.json", "model.safetensors")
    assert said == {"ready": True, "files": {name: len(MODEL[name]) for name in named}}
