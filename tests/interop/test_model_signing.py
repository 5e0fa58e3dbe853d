"""`model_signing verify key` accepts our model signature, and nothing but the very files."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from kgate_signer.keys import FileKey
from kgate_signer.modelsigning import sign_model
from tests.interop import toolbox
from tests.trustkit import FILES, make_trust, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.matrix

KEY = FileKey.generate()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a variant directory beside its signature and public key."""
    folder = tmp_path / "torch-cpu"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (tmp_path / "model.sig").write_bytes(sign_model(manifest_of(), "acme/relu", KEY))
    (tmp_path / "kgate.pub").write_text(KEY.public_key().pem)
    return folder


def verify(model: Path) -> str | None:
    """Return None if the tool accepts the directory, else what it said."""
    # pyOpenSSL is imported by the tool but not declared by it.
    tool = toolbox.python("model-signing", "model-signing==1.1.1", "pyOpenSSL")
    parent = model.parent
    done = subprocess.run(
        [
            tool, "-m", "model_signing", "verify", "key", model,
            "--signature", parent / "model.sig", "--public_key", parent / "kgate.pub",
            # By default the tool passes over .git and .gitignore, whatever the signature says.
            "--no-ignore-git-paths",
        ],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    return None if done.returncode == 0 else done.stdout + done.stderr


def test_the_tool_accepts_the_signed_files(model: Path) -> None:
    assert verify(model) is None


def test_the_tool_refuses_changed_extra_and_missing_files(model: Path) -> None:
    (model / "extra.py").write_bytes(b"")
    assert "Extra files" in (verify(model) or "")
    (model / "extra.py").unlink()
    (model / ".gitignore").write_bytes(b"*")
    assert "Extra files" in (verify(model) or "")
    (model / ".gitignore").unlink()
    (model / "__init__.py").write_bytes(b"import os")
    assert "Hash mismatch" in (verify(model) or "")
    (model / "__init__.py").unlink()
    assert "Missing files" in (verify(model) or "")


def test_the_tool_refuses_another_key_and_another_kind_of_statement(model: Path) -> None:
    (model.parent / "kgate.pub").write_text(FileKey.generate().public_key().pem)
    assert "Key mismatch" in (verify(model) or "")
    kit = make_trust()
    (model.parent / "kgate.pub").write_text(kit.admit.public_key().pem)
    (model.parent / "model.sig").write_bytes(kit.bundle(manifest_of()))
    assert verify(model) is not None
