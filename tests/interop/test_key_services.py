"""Keys in key services: AWS KMS as moto speaks it, and Vault's transit engine as a stand-in does.

moto is another implementation of the service's API (with one thing put right, see SERVE); the
stand-in for Vault answers the one request that hvac makes for a signature. Neither is the service
itself, and those of Google and Azure have nothing here that could speak for them.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from kgate_core.bundle import Bundle
from kgate_core.keys import Algorithm, PublicKey
from kgate_signer.keys import FileKey
from tests.interop import toolbox
from tests.interop.test_softhsm import SIGN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.matrix

MOTO = ("moto[kms,server]==5.2.5", "boto3==1.44.5", "securesystemslib==1.6.0", "cryptography")
VAULT = ("hvac==2.4.0", "securesystemslib==1.6.0", "cryptography")
# A key service with one signing key in it; ends when its standard input does.
SERVE = """
import json, sys, boto3
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from moto.kms.utils import ECDSAPrivateKey
from moto.server import ThreadedMotoServer

def sign(self, message, signing_algorithm):
    # moto 5.2.5 passes over MessageType and hashes a digest once more; the service does not.
    return self.private_key.sign(message, ec.ECDSA(utils.Prehashed(SHA256())))

ECDSAPrivateKey.sign = sign
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://{host}:{port}"
kms = boto3.client("kms", endpoint_url=url)
key = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["KeyId"]
other = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["KeyId"]
kms.create_alias(AliasName="alias/admit", TargetKeyId=key)
der = kms.get_public_key(KeyId=key)["PublicKey"].hex()
print(json.dumps({"url": url, "key": key, "other": other, "der": der}), flush=True)
sys.stdin.read()
server.stop()
"""
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "the secret of the account",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_MAX_ATTEMPTS": "1",
}


def sign(
    tools: Path, folder: Path, uri: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    path = ":".join(str(toolbox.REPOSITORY / part) for part in ("core", "signer"))
    return subprocess.run(
        [tools, "-c", SIGN, uri],
        cwd=folder,
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def check_signed(done: subprocess.CompletedProcess[str], public: PublicKey) -> None:
    assert done.returncode == 0, done.stderr
    bundles = [Bundle.parse(line.encode()) for line in done.stdout.splitlines()]
    assert len(bundles) == 3
    for bundle in bundles:
        assert bundle.hint == public.hint
        assert public.verify(bundle.envelope.signature, bundle.envelope.signed_bytes)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def amazon() -> Iterator[dict[str, str]]:
    with subprocess.Popen(
        [toolbox.python("moto", *MOTO), "-c", SERVE],
        env=ACCOUNT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate("")


def test_a_key_in_aws_kms_signs_what_pods_verify(amazon: dict[str, str], tmp_path: Path) -> None:
    public = PublicKey.from_der(bytes.fromhex(amazon["der"]))
    (tmp_path / "admit.pub").write_text(public.pem)
    environment = ACCOUNT | {"AWS_ENDPOINT_URL": amazon["url"]}
    tools = toolbox.python("moto", *MOTO)
    for name in (amazon["key"], "alias/admit"):
        uri = f"awskms:{name}?public-key-file=admit.pub"
        check_signed(sign(tools, tmp_path, uri, environment), public)
    other = f"awskms:{amazon['other']}?public-key-file=admit.pub"
    assert "signed with another key" in refused(sign(tools, tmp_path, other, environment))
    none = "awskms:alias/none?public-key-file=admit.pub"
    assert "did not answer (NotFoundException)" in refused(sign(tools, tmp_path, none, environment))


def test_an_aws_kms_that_is_away_is_a_trust_error(tmp_path: Path) -> None:
    (tmp_path / "admit.pub").write_text(FileKey.generate().public_key().pem)
    tools = toolbox.python("moto", *MOTO)
    uri = "awskms:alias/admit?public-key-file=admit.pub"
    away = ACCOUNT | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    said = refused(sign(tools, tmp_path, uri, away))
    assert "did not answer (EndpointConnectionError)" in said
    assert ACCOUNT["AWS_SECRET_ACCESS_KEY"] not in said


@dataclass
class Transit:
    """Vault's transit engine as far as hvac asks it: sign with the key of a name and version."""

    key: FileKey
    token: str = "s.the-token"
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve on loopback; yields the address."""
        transit = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the interface's name
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                transit.asked.append(self.path)
                allowed = self.headers["X-Vault-Token"] == transit.token
                found = self.path.startswith("/v1/transit/sign/admit")
                answer: dict[str, object] = {"errors": ["permission denied"]}
                if allowed and found and request["key_version"] == 1:
                    signature = transit.key.sign(base64.b64decode(request["input"]))
                    text = f"vault:v1:{base64.b64encode(signature).decode()}"
                    answer = {"data": {"signature": text, "key_version": 1}}
                data = json.dumps(answer).encode()
                self.send_response(200 if "data" in answer else 403)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_POST  # noqa: N815  # the same interface

            def log_message(self, *_: object) -> None:
                """Say nothing: a test's output is its own."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_key_in_vault_signs_what_pods_verify(algorithm: Algorithm, tmp_path: Path) -> None:
    transit = Transit(FileKey.generate(algorithm))
    public = transit.key.public_key()
    (tmp_path / "admit.pub").write_text(public.pem)
    tools = toolbox.python("vault", *VAULT)
    uri = "hv:admit/1?public-key-file=admit.pub"
    with transit.served() as url:
        environment = {"VAULT_ADDR": url, "VAULT_TOKEN": transit.token}
        check_signed(sign(tools, tmp_path, uri, environment), public)
        assert transit.asked
        wrong = environment | {"VAULT_TOKEN": "s.another"}
        said = refused(sign(tools, tmp_path, uri, wrong))
        assert "did not answer (Forbidden)" in said
        assert "s.another" not in said
        later = refused(sign(tools, tmp_path, uri.replace("/1", "/2"), environment))
        assert "did not answer (Forbidden)" in later
    assert "did not answer (ConnectionError)" in refused(sign(tools, tmp_path, uri, environment))
