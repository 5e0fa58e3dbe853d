"""T15 to T19 and parts of T34, T35 against the running mirror, with the stock client and raw HTTP.

Each attack is carried out for real: on the mirror's disk, in its database, over its port.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from kgate_core.kernel import KernelRef
from tests.clients import run_ungated
from tests.mirrorkit import COMMIT, FILES, VARIANT, MirrorKit, make_mirror, served

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD = "/api/kernels/acme/relu/tree/v1/build"
LARGE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/_relu.abi3.so"
LOAD = """
import json, kernels
try:
    said = kernels.get_kernel("acme/relu", version=1).ANSWER
except FileNotFoundError as exc:
    said = "fallback"
print(json.dumps(said))
"""


@pytest.fixture
def kit(tmp_path: Path) -> MirrorKit:
    kit = make_mirror(tmp_path / "mirror")
    kit.publish()
    return kit


@pytest.fixture
def address(kit: MirrorKit) -> Iterator[str]:
    with served(kit.settings) as address:
        yield address


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a mirror that nobody changes."""
    kit = make_mirror(tmp_path_factory.mktemp("steady"))
    kit.publish()
    with served(kit.settings) as address:
        yield address


def get(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read(), dict(reply.headers)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read(), dict(exc.headers)


def raw(address: str, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; returns status (0 if the connection was just closed) and the rest."""
    parts = urlsplit(address)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=5) as wire:
        wire.sendall(request)
        reply = http.client.HTTPResponse(wire)
        try:
            reply.begin()
            return reply.status, reply.read()
        except (http.client.HTTPException, ConnectionError):
            return 0, b""


def until(check: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def spoil(path: Path) -> None:
    """Change one byte, keeping size and modification time as an attacker would."""
    before = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def file_of(kit: MirrorKit, name: str) -> Path:
    item = kit.catalog.publications()[0].variants[0]
    return kit.store.path(next(f.digest for f in item.files if f.path.endswith(name)))


@pytest.mark.parametrize("name", ["_relu.abi3.so", "layers.py"])
def test_t15_a_blob_changed_before_the_start_is_not_served(kit: MirrorKit, name: str) -> None:
    spoil(file_of(kit, name))
    with served(kit.settings) as address:
        status, body, _ = get(address + LARGE.replace("_relu.abi3.so", name))
        assert status in {404, 503}
        assert bytes(FILES[name]) != body
        assert len(body) < 1000
        until(lambda: get(address + BUILD)[1] == b"[]")


def test_t15_a_blob_changed_while_serving_is_not_served_and_the_client_falls_back(
    kit: MirrorKit, address: str, tmp_path: Path
) -> None:
    assert get(address + LARGE)[0] == 200
    spoil(file_of(kit, ".so"))
    status, body, _ = get(address + LARGE)
    assert status == 503
    assert b"damaged" in body
    until(lambda: get(address + BUILD)[1] == b"[]")
    assert run_ungated(LOAD, tmp_path, endpoint=address) == "fallback"


def test_t15_a_repaired_blob_is_served_again(kit: MirrorKit, address: str) -> None:
    path = file_of(kit, ".so")
    spoil(path)
    assert get(address + LARGE)[0] == 503
    (damage,) = kit.store.scrub()
    kit.store.remove(damage.digest)
    kit.put(FILES["_relu.abi3.so"])
    until(lambda: get(address + LARGE)[:2] == (200, FILES["_relu.abi3.so"]))


def test_t16_a_row_without_evidence_is_not_served(
    kit: MirrorKit, address: str, tmp_path: Path
) -> None:
    """The attacker writes to the database, and even to the store, but holds no key."""
    files = {**FILES, "__init__.py": b"ANSWER = 'owned'\n"}
    evil = kit.variant(files, repo=KernelRef("acme", "relu"), served=COMMIT)
    engine = create_engine(kit.settings.database)
    with engine.begin() as connection:
        for file in evil.files:
            if file.path.endswith("__init__.py"):
                connection.execute(
                    text("UPDATE served_file SET digest = :d, size = :s, oid = :o WHERE path = :p"),
                    {"d": str(file.digest), "s": file.size, "o": file.oid, "p": file.path},
                )
        connection.execute(
            text("UPDATE published_variant SET manifest = :m"), {"m": str(evil.manifest)}
        )
        connection.execute(text("UPDATE meta SET generation = generation + 1"))
    engine.dispose()
    until(lambda: get(address + BUILD)[1] == b"[]")
    assert run_ungated(LOAD, tmp_path, endpoint=address) == "fallback"


def test_t16_a_row_copied_to_another_name_is_not_served(kit: MirrorKit, address: str) -> None:
    engine = create_engine(kit.settings.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE publication SET repo = 'trusted/kernel'"))
        connection.execute(text("UPDATE branch SET repo = 'trusted/kernel'"))
        connection.execute(text("UPDATE meta SET generation = generation + 1"))
    engine.dispose()
    until(lambda: get(address + BUILD)[1] == b"[]")
    assert get(f"{address}/api/kernels/trusted/kernel/tree/v1/build")[1] == b"[]"


CLIMBING = [
    "..", ".", "%2e%2e", "%2E%2E%2F", "..%2f", "%2f", "%2F%2Fetc", "%5c..%5c", "..%c0%af",
    "%00", "a%00b", "%0a", "%ff", "%c3%28", "\u202e".encode().hex("%"), "%E2%80%AE", "//", "",
    "\N{CYRILLIC SMALL LETTER A}cme".encode("utf-8").hex(), "%D0%B0cme", "~root", "a" * 300,
    "-", "--", "a--b", ".git", "$(id)", "'", '"', "<x>", "%25%32%65", "con", "*", "?x", ";x", "#",
]  # fmt: skip
PLACES = [
    "/{0}", "/{0}/{0}", "/api/{0}", "/api/kernels/{0}", "/api/kernels/{0}/relu",
    "/api/kernels/acme/{0}/refs", "/api/kernels/acme/relu/{0}", "/api/kernels/acme/relu/tree/{0}",
    "/api/kernels/acme/relu/tree/v1/{0}", "/api/kernels/acme/relu/tree/v1/build/{0}/{0}",
    "/api/kernels/acme/relu/revision/{0}", "/api/models/{0}/relu", "/kernels/{0}/relu/resolve/v1/x",
    "/kernels/acme/relu/resolve/{0}/x", "/kernels/acme/relu/resolve/v1/{0}",
    "/kernels/acme/relu/resolve/v1/build/{0}/metadata.json",
    "/kernels/acme/relu/resolve/v1/{0}/{0}/{0}/etc/passwd", "/acme/relu/resolve/main/{0}",
    "/api/organizations/{0}/overview", "/api/kgate/v1/trust/{0}", "/api/kgate/v1/{0}",
    "/api/kgate/v1/attestations/{0}/{0}/{0}/{0}", "/api/kgate/v1/attestations/by-manifest/{0}",
    "/k/{0}/{0}", "/l/{0}/api/kernels/acme/relu/refs", "/l/{0}", "/{0}/../../../../etc/passwd",
]  # fmt: skip


def test_t17_no_malformed_address_gets_a_server_error_or_a_strange_file(steady: str) -> None:
    port = int(urlsplit(steady).port or 0)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    strange = []
    for place in PLACES:
        for part in CLIMBING:
            for method in ("GET", "HEAD"):
                target = place.format(part)
                connection.putrequest(method, target, skip_accept_encoding=True)
                connection.endheaders()
                reply = connection.getresponse()
                body = reply.read()
                fine = reply.status in {200, 400, 404} and b"root:" not in body
                if reply.status == 200 and method == "GET":
                    fine = fine and isinstance(json.loads(body), dict | list)
                if reply.status == 404 and target.startswith("/api/kernels/acme/relu/tree"):
                    code = reply.headers.get("X-Error-Code")
                    fine = fine and code in {"RevisionNotFound", "EntryNotFound"}
                if not fine:
                    strange.append((method, target, reply.status, body[:80]))
    connection.close()
    assert strange == []


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://other.test/etc/passwd HTTP/1.1",
        b"GET \x00 HTTP/1.1",
        b"GET /\xff\xfe HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET " + b"/a" * 40_000 + b" HTTP/1.1",
        b"GET /" + b"%2e" * 3000 + b" HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT evil:443 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET / HTTP/9.9",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1",
    ],
)
def test_t17_broken_request_lines_are_refused(steady: str, request_line: bytes) -> None:
    status, body = raw(steady, request_line + b"\r\nHost: mirror\r\nConnection: close\r\n\r\n")
    assert status == 0 or 400 <= status < 500
    assert b"root:" not in body
    assert get(steady + "/healthz")[0] == 200


def test_t17_queries_and_headers_that_make_no_sense_are_answered(steady: str) -> None:
    for query in (
        "?recursive=%ff",
        "?cursor=%00",
        "?" + "a=b&" * 500,
        "?" + "x" * 5000,
        "?limit=-5",
    ):
        assert get(f"{steady}/api/kernels/acme/relu/tree/v1{query}")[0] in {200, 400}
    for headers in ({"Range": "bytes=" + "0-," * 3000}, {"If-None-Match": '"' * 5000},
                    {"Accept": "\xff"}, {"Host": "<evil>"}):  # fmt: skip
        assert get(steady + LARGE, **headers)[0] in {200, 206, 400}


def test_t19_every_writing_method_is_refused_everywhere(steady: str) -> None:
    port = int(urlsplit(steady).port or 0)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for method in ("POST", "PUT", "PATCH", "DELETE", "MKCOL", "LOCK"):
        for target in (
            "/api/repos/create",
            "/api/repos/delete",
            "/api/kernels/acme/relu/preupload/v1",
            "/api/kernels/acme/relu/commit/v1",
            "/api/kernels/acme/relu/branch/v9",
            "/l/experimental/api/kernels/acme/relu/commit/v1",
            "/kernels/acme/relu/resolve/v1/x",
            "/api/kgate/v1/trust/timestamp.json",
            "/k/acme/relu",
            "/nothing",
        ):
            reply = sent(connection, method, target)
            assert reply.status == 403, (method, target)
            assert reply.headers["X-Error-Message"] == "kgate mirror is read-only"
    connection.close()


def sent(connection: http.client.HTTPConnection, method: str, target: str) -> Any:
    """Send a body that nobody reads; as every HTTP client, try anew if the server hung up first.

    RFC 9112 9.3.1: a connection may be closed at any time between two requests, and is, after a
    body that was refused without being read.
    """
    for attempt in (1, 2, 3):
        try:
            connection.request(method, target, body=b"{}")
            reply = connection.getresponse()
            reply.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            connection.close()
            assert attempt < 3, (method, target, "no answer")
        else:
            return reply
    raise AssertionError


PUBLISHER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from kgate_core.kernel import Revision
from tests.unit.mirror.catalogcases import a_publication, a_variant
from kgate_core.digest import Digest
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.store.disk import DiskStore
catalog, store = SqlCatalog(sys.argv[2]), DiskStore(Path(sys.argv[3]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    data = number.to_bytes(4, "big") * 50_000
    store.put(Digest.of(data), len(data), [data[:1000], data[1000:]])
    variants = tuple(a_variant(f"torch-{name}") for name in ("cpu", "cuda", "rocm"))
    catalog.publish(a_publication(served=Revision(f"{number:040x}"), variants=variants))
"""


def test_t34_a_killed_publisher_leaves_no_half_publication_and_no_bad_blob(tmp_path: Path) -> None:
    from kgate_mirror_server.catalog.sql import SqlCatalog
    from kgate_mirror_server.store.disk import DiskStore

    url = f"sqlite:///{tmp_path / 'kgate.db'}"
    root = str(Path(__file__).parents[2])
    seen = 0
    for pause in (0.02, 0.11, 0.23, 0.31):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, root, url, str(tmp_path / "store")],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        catalog, store = SqlCatalog(url), DiskStore(tmp_path / "store")
        publications = catalog.publications()
        assert all(len(item.variants) == 3 for item in publications)
        assert all(len(part.files) == 2 for item in publications for part in item.variants)
        assert list(store.scrub()) == []
        assert sum(1 for item in publications if item.version == 1) == (1 if publications else 0)
        seen = len(publications)
    assert seen > 0


FULL = """
import sys
from pathlib import Path
from kgate_core.digest import Digest
from kgate_core.errors import KgateError
from kgate_mirror_server.store.disk import DiskStore
root = Path(sys.argv[1])
store, kept, large = DiskStore(root), b"kept" * 1000, b"x" * 1_000_000
store.put(Digest.of(kept), len(kept), [kept])
try:
    store.put(Digest.of(large), len(large), [large])
except KgateError as exc:
    print(exc.message, "|", exc.hint)
print(sorted(path.name for path in root.rglob("*") if path.is_file()) == [Digest.of(kept).hex])
print(store.open(Digest.of(kept)).read() == kept)
"""


def test_t35_a_full_disk_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    """On a real file system of 256 kB, mounted in a namespace of its own."""
    script = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    message, clean, kept = done.stdout.splitlines()
    assert "No space left on device" in message
    assert "the disk or quota is full" in message
    assert (clean, kept) == ("True", "True")


def test_t35_with_the_database_gone_what_was_published_is_served_on(
    kit: MirrorKit, address: str
) -> None:
    (kit.root / "kgate.db").write_bytes(b"no database any more")
    time.sleep(0.5)
    assert get(address + LARGE)[:2] == (200, FILES["_relu.abi3.so"])
    assert get(address + "/healthz")[0] == 200
