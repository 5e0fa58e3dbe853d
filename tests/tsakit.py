"""A real timestamp authority on loopback: `openssl ts` behind an HTTP server, with its own keys."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from kgate_core.timestamp import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = timestamps.test
[tsa]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[ts]
serial = {folder}/serial
default_policy = 1.2.3.4
digests = sha256
ess_cert_id_alg = sha256
signer_digest = sha256
accuracy = secs:1
clock_precision_digits = {digits}
"""


@dataclass
class LocalAuthority:
    """Keys and certificates of an authority in a folder, made anew for each test."""

    folder: Path
    curve: str = "prime256v1"
    broken: bool = field(default=False)
    days: int = 30
    """How long its certificates last."""
    digits: int = 3
    """Decimals of a second. Trailing zeros are left out, which some readers do not expect."""

    def __post_init__(self) -> None:
        (self.folder / "openssl.cnf").write_text(
            SETTINGS.format(folder=self.folder, digits=self.digits)
        )
        (self.folder / "serial").write_text("01\n")
        kind = (
            ["rsa:2048"]
            if self.curve == "rsa"
            else ["ec", "-pkeyopt", f"ec_paramgen_curve:{self.curve}"]
        )
        common = ["-newkey", *kind, "-nodes", "-config", "openssl.cnf"]
        self.openssl("req", "-x509", *common, "-keyout", "ca.key", "-out", "ca.pem",
                     "-extensions", "ca", "-days", str(self.days),
                     "-subj", "/CN=ca.test")  # fmt: skip
        self.openssl("req", *common, "-keyout", "tsa.key", "-out", "tsa.csr")
        self.openssl("x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                     "-out", "tsa.pem", "-extfile", "openssl.cnf", "-extensions", "tsa",
                     "-days", str(self.days))  # fmt: skip

    def openssl(self, *arguments: str, question: bytes = b"") -> bytes:
        command = ["openssl", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, input=question, capture_output=True, check=True
        )
        return done.stdout

    def answer(self, question: bytes, *, chain: bool = True) -> bytes:
        """Return the DER response to a DER request.

        With a chain OpenSSL writes the certificates unsorted, which strict readers refuse.
        """
        (self.folder / "question.tsq").write_bytes(question)
        return self.openssl("ts", "-reply", "-config", "openssl.cnf", "-section", "ts",
                            "-queryfile", "question.tsq", "-signer", "tsa.pem",
                            "-inkey", "tsa.key",
                            *(("-chain", "ca.pem") if chain else ()))  # fmt: skip

    @property
    def chain(self) -> list[bytes]:
        """Return the certificates in DER, the authority's own first."""
        return [
            load_pem_x509_certificate((self.folder / name).read_bytes()).public_bytes(Encoding.DER)
            for name in ("tsa.pem", "ca.pem")
        ]

    def pinned(self, now: datetime) -> Authority:
        """Return the authority as trust metadata pins it."""
        certificate = load_pem_x509_certificate((self.folder / "tsa.pem").read_bytes())
        pem = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        year = timedelta(days=365)
        return Authority("timestamps.test", pem.decode(), now - year, now + year)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve the authority on loopback and give its URL."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the interface's name
                question = self.rfile.read(int(self.headers["Content-Length"]))
                answer = b"out of order" if authority.broken else authority.answer(question)
                self.send_response(200)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing: a test's output is its own."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()
