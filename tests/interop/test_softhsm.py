"""Keys in a PKCS#11 token: SoftHSM stands for the HSM, its own tool puts the key into it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kgate_core.bundle import Bundle
from kgate_signer.keys import FileKey, write_private_file
from tests.interop import toolbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.matrix

PIN = "271828"
# What a signing process does with a key URI, in an environment that has the PKCS#11 binding.
SIGN = """
import sys
from kgate_core.errors import TrustError
from kgate_core.statement import Statement, Subject
from kgate_core.digest import Digest
from kgate_signer.keys import from_uri
from kgate_signer.sign import sign_statement

statement = Statement.of((Subject("a", Digest.of(b"a")),), "https://x.test/v1", {})
try:
    key = from_uri(sys.argv[1])
    for _ in range(3):
        print(sign_statement(statement, key).decode())
except TrustError as error:
    sys.exit(f"{error.message} | {error.hint}")
"""


@dataclass
class Token:
    """A token with one P-256 key, as its administrator set it up."""

    folder: Path
    key: FileKey
    environment: dict[str, str]

    def sign(self, uri: str) -> subprocess.CompletedProcess[str]:
        requirements = ("python-pkcs11==0.10.1", "securesystemslib==1.6.0", "cryptography")
        return subprocess.run(
            [toolbox.python("pkcs11", *requirements), "-c", SIGN, uri],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def token(tmp_path: Path) -> Token:
    root = toolbox.debian("softhsm2", "libsofthsm2")
    module = root / "usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    (tmp_path / "tokens").mkdir()
    key = FileKey.generate()
    write_private_file(tmp_path / "key.pem", key.to_pem(None))
    environment = {"SOFTHSM2_CONF": str(settings)}
    tool = (root / "usr/bin/softhsm2-util", "--module", module, "--pin", PIN)
    toolbox.run(*tool, "--init-token", "--free", "--label=kgate", "--so-pin=16180", **environment)
    toolbox.run(
        *tool, "--import", tmp_path / "key.pem", "--token=kgate", "--label=admit", "--id=02",
        **environment,
    )  # fmt: skip
    (tmp_path / "key.pem").unlink()
    (tmp_path / "admit.pub").write_text(key.public_key().pem)
    write_private_file(tmp_path / "pin", f"{PIN}\n".encode())
    write_private_file(tmp_path / "wrong-pin", b"314159")
    path = ":".join(str(toolbox.REPOSITORY / part) for part in ("core", "signer"))
    return Token(tmp_path, key, environment | {"PYKCS11LIB": str(module), "PYTHONPATH": path})


URI = "hsm:2?label=kgate&public-key-file=admit.pub&pin-file=pin"


def test_a_key_that_never_leaves_its_token_signs_what_pods_verify(token: Token) -> None:
    done = token.sign(URI)
    assert done.returncode == 0, done.stderr
    bundles = [Bundle.parse(line.encode()) for line in done.stdout.splitlines()]
    assert len(bundles) == 3
    public = token.key.public_key()
    for bundle in bundles:
        assert bundle.hint == public.hint
        assert public.verify(bundle.envelope.signature, bundle.envelope.signed_bytes)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (URI.replace("file=pin", "file=wrong-pin"), "did not answer (PinIncorrect)"),
        (URI.replace("label=kgate", "label=other"), "did not answer (ValueError)"),
        (URI.replace("hsm:2", "hsm:9"), "did not answer (ValueError)"),
        (URI.replace("admit.pub", "other.pub"), "signed with another key"),
    ],
    ids=["wrong PIN", "no such token", "no such key", "another public key"],
)
def test_a_token_that_does_not_serve_is_a_trust_error_without_the_pin(
    token: Token, uri: str, said: str
) -> None:
    (token.folder / "other.pub").write_text(FileKey.generate().public_key().pem)
    done = token.sign(uri)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert PIN not in done.stderr
    assert "314159" not in done.stderr


def test_an_absent_hsm_is_a_trust_error(token: Token) -> None:
    for module in ("/nowhere/libhsm.so", ""):
        token.environment["PYKCS11LIB"] = module
        done = token.sign(URI)
        assert (done.returncode, done.stdout) == (1, "")
        assert "is its library installed" in done.stderr
