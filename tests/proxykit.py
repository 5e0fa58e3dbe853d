"""Proxies and TLS in front of a loopback server, for tests: real sockets, threads, no libraries."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 65536  # bytes


@dataclass
class Listener:
    """A server on an ephemeral port whose connections run in threads; stopped with `with`."""

    taken: list[str] = field(default_factory=list)
    """What came in: request lines of a proxy."""

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(5)
        self._socket.close()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.serve(connection)

    def serve(self, connection: socket.socket) -> None:
        raise NotImplementedError


class Proxy(Listener):
    """An HTTP proxy: plain requests and CONNECT."""

    def serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (piece := connection.recv(PIECE)):
            head += piece
        line, _, rest = head.partition(b"\r\n")
        self.taken.append(line.decode())
        method, target, _ = line.decode().split(" ")
        if method == "CONNECT":
            host, _, port = target.partition(":")
            with socket.create_connection((host, int(port))) as server:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                exchange(connection, server)
            return
        parts = urlsplit(target)
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        # One request for each connection: the next may be for another server.
        rest = rest.replace(b"onnection: keep-alive", b"onnection: close", 1)
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as server:
            server.sendall(f"{method} {path} HTTP/1.1\r\n".encode() + rest)
            exchange(connection, server)


class Swallower(Listener):
    """Takes everything and answers nothing."""

    def serve(self, connection: socket.socket) -> None:
        self.taken.append("connection")
        while connection.recv(PIECE):
            pass


@dataclass
class TlsFront(Listener):
    """Ends TLS before a plain server."""

    backend: int = 0
    certificate: Path | None = None
    key: Path | None = None

    def serve(self, connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.certificate is not None
        context.load_cert_chain(self.certificate, self.key)
        with (
            context.wrap_socket(connection, server_side=True) as inner,
            socket.create_connection(("127.0.0.1", self.backend)) as server,
        ):
            exchange(inner, server)


def exchange(first: socket.socket, second: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=carry, args=(second, first), daemon=True)
    back.start()
    carry(first, second)
    back.join(30)


def private_ca(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private hub")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "hub.pem", folder / "hub.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
