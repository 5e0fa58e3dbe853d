"""The server process: several workers, certificates that change, and an orderly end."""

from __future__ import annotations

import datetime as dt
import http.client
import multiprocessing
import os
import re
import ssl
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kgate_core.errors import KgateError
from kgate_mirror_server.serve.server import OnlyOne, run
from kgate_mirror_server.serve.settings import ServeSettings, TlsFiles
from tests.mirrorkit import FILES, VARIANT, MirrorKit, free_port, make_mirror, served

if TYPE_CHECKING:
    from pathlib import Path

LARGE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/big.so"
BIG = os.urandom(1024) * 40_000


@pytest.fixture
def kit(tmp_path: Path) -> MirrorKit:
    kit = make_mirror(tmp_path)
    kit.publish(kit.variant({**FILES, "big.so": BIG}))
    return kit


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return bytes(reply.read())


def test_two_workers_serve_and_count_together(kit: MirrorKit) -> None:
    with served(replace(kit.settings, workers=2)) as address:
        place = f"{address}/api/kernels/acme/relu/tree/v1?recursive=true"
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(read, [place] * 60))) == 1
        time.sleep(0.5)
        text = read(f"{address}/metrics").decode()
        found = re.search(r"^kgate_cold_starts_total (\d+)$", text, re.MULTILINE)
        assert found
        assert found[1] == "60"


def test_large_files_come_whole_and_in_ranges_over_the_wire(kit: MirrorKit) -> None:
    with served(kit.settings) as address:
        assert read(address + LARGE) == BIG
        for start, end in ((0, 9), (5_000_000, 30_000_000), (len(BIG) - 1, len(BIG) - 1)):
            request = urllib.request.Request(
                address + LARGE, headers={"Range": f"bytes={start}-{end}"}
            )
            with urllib.request.urlopen(request, timeout=30) as reply:
                assert reply.status == 206
                assert reply.read() == BIG[start : end + 1]


def test_a_download_in_flight_ends_well_when_the_server_is_told_to_stop(kit: MirrorKit) -> None:
    settings = replace(kit.settings, port=free_port(), drain_seconds=20)
    process = start(settings)
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=30)
    connection.request("GET", LARGE, headers={"Range": "bytes=0-"})
    reply = connection.getresponse()
    data = reply.read(100_000)
    process.terminate()
    time.sleep(0.5)
    data += reply.read()
    assert data == BIG
    process.join(30)
    assert process.exitcode == 0
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection("127.0.0.1", settings.port, timeout=5).connect()


def certificate(folder: Path, name: str) -> TlsFiles:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(folder / "tls.crt", folder / "tls.key")
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return files


def peer_name(port: int) -> str | None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        raw = connection.sock.getpeercert(binary_form=True)
        connection.close()
    except OSError:
        return None
    assert raw is not None
    (name,) = x509.load_der_x509_certificate(raw).subject.get_attributes_for_oid(
        NameOID.COMMON_NAME
    )
    return str(name.value)


@pytest.mark.slow
def test_a_new_certificate_is_used_without_a_restart(kit: MirrorKit) -> None:
    settings = replace(kit.settings, port=free_port(), tls=certificate(kit.root, "first"))
    process = start(settings, wait=False)
    try:
        until(lambda: peer_name(settings.port) == "first")
        certificate(kit.root, "second")
        until(lambda: peer_name(settings.port) == "second", seconds=40)
        assert process.is_alive()
    finally:
        process.terminate()
        process.join(30)


def test_a_port_that_is_taken_is_an_error_and_not_silence(kit: MirrorKit, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = replace(kit.settings, port=taken.getsockname()[1])
        result = tmp_path / "result"
        process = multiprocessing.get_context("spawn").Process(
            target=run_and_tell, args=(settings, result)
        )
        process.start()
        process.join(30)
        assert not process.is_alive()
        assert "KgateError" in result.read_text()


def test_one_process_of_several_refreshes_the_timestamp(tmp_path: Path) -> None:
    calls: list[str] = []
    first = OnlyOne(tmp_path / "lock", lambda: calls.append("first"))
    second = OnlyOne(tmp_path / "lock", lambda: calls.append("second"))
    for one in (first, second, first, second):
        one()
    assert calls == ["first", "first"]
    assert first._held is not None
    os.close(first._held)
    second()
    assert calls[-1] == "second"


def run_and_tell(settings: ServeSettings, result: Path) -> None:
    try:
        run(settings)
    except KgateError as exc:
        result.write_text(f"{type(exc).__name__}: {exc.message}")


def start(settings: ServeSettings, *, wait: bool = True) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=run, args=(settings,))
    process.start()
    if wait:
        until(lambda: _answers(settings.port))
    return process


def _answers(port: int) -> bool:
    try:
        read(f"http://127.0.0.1:{port}/readyz")
    except OSError:
        return False
    return True


def until(check: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
