"""A live OCI registry for tests: Debian's docker-registry on an ephemeral port of 127.0.0.1.

It knows the distribution API of 2022: no referrers API, so the fallback tag is what gets tested;
`tests.ocisim` has the rest. User `kgate`, password `secret`, where a password is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
import json
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.mirrorkit import free_port
from tests.services import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_core.digest import Digest

START = 20  # seconds
# bcrypt of "secret", the only kind that the registry reads.
HTPASSWD = "kgate:$2y$05$UgnMZhHAyfZfc2nFnWoiV.8Ywvb6jMEiZZlZgyzDpVsjibw/YjoiW\n"


@dataclass(frozen=True)
class LiveRegistry:
    """A running registry."""

    address: str
    """host:port"""
    folder: Path
    ca_file: Path | None = None

    @property
    def url(self) -> str:
        """As kgate names it."""
        return f"oci://{self.address}"

    def blob(self, digest: Digest) -> Path:
        """The file in which the registry keeps a blob or manifest."""
        hexa = digest.hex
        root = self.folder / "data/docker/registry/v2/blobs/sha256"
        return root / hexa[:2] / hexa / "data"

    def login(self, folder: Path, user: str = "kgate", password: str = "secret") -> Path:
        """Write a Docker configuration with credentials for this registry."""
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        path = folder / "docker.json"
        path.write_text(json.dumps({"auths": {self.address: {"auth": auth}}}))
        return path


@contextlib.contextmanager
def live_registry(
    folder: Path, *, password: bool = False, tls: bool = False
) -> Iterator[LiveRegistry]:
    """Run a registry; with `password` it asks for one, with `tls` it has a private CA's key."""
    program = find_program("docker-registry", "docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": http,
    }
    ca_file = None
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if tls:
        ca_file = make_certificates(folder)
        http["tls"] = {
            "certificate": str(folder / "server.pem"),
            "key": str(folder / "server-key.pem"),
        }
    path = folder / "config.yml"
    path.write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(path)], stdout=log, stderr=log)
    try:
        _wait(process, port, folder / "log")
        yield LiveRegistry(f"127.0.0.1:{port}", folder, ca_file)
    finally:
        process.terminate()
        process.wait(10)


def make_certificates(folder: Path) -> Path:
    """Write a private CA and a certificate for 127.0.0.1; returns the CA's file."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private CA")])

    def build(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    ca = build(issuer, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    own = build(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")]), key.public_key()
    ).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        critical=False,
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(own.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server-key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.pem"


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1)
        except urllib.error.HTTPError:
            return  # it asks for TLS or a password: it is there
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the registry did not start: {log.read_text(errors='replace')}")
