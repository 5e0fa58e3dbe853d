"""The shipped nginx configuration in front of a mirror: bytes by nginx, decisions by kgate."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from benchmarks.support import nginx
from kgate_mirror_server.serve.settings import SendFile
from tests.clients import run_ungated
from tests.mirrorkit import COMMIT, FILES, VARIANT, MirrorKit, make_mirror, served
from tests.services import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BIG = bytes(range(256)) * 4096
LARGE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/big.so"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> MirrorKit:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish(kit.variant({**FILES, "big.so": BIG}))
    return kit


@pytest.fixture(scope="module")
def front(kit: MirrorKit) -> Iterator[str]:
    settings = replace(kit.settings, send_file=SendFile.XACCEL)
    blobs = kit.settings.store / "blobs" / "sha256"
    with served(settings) as address:
        port = int(urlsplit(address).port or 0)
        with nginx.in_front(port, blobs, 1) as front:
            yield f"http://127.0.0.1:{front}"


def get(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=20
        ) as reply:
            return reply.status, reply.read(), {k.lower(): v for k, v in reply.headers.items()}
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read(), {k.lower(): v for k, v in exc.headers.items()}


def test_large_files_come_from_nginx_with_kgates_headers(front: str) -> None:
    status, body, headers = get(front + LARGE)
    assert (status, body) == (200, BIG)
    assert headers["x-repo-commit"] == str(COMMIT)
    assert len(headers["etag"].strip('"')) == 64
    assert "x-accel-redirect" not in headers
    assert get(front + LARGE, **{"If-None-Match": headers["etag"]})[0] == 304


def test_ranges_and_small_files_come_too(front: str) -> None:
    status, body, headers = get(front + LARGE, Range="bytes=1000-1999")
    assert (status, body) == (206, BIG[1000:2000])
    assert headers["x-repo-commit"] == str(COMMIT)
    assert get(front + LARGE, Range=f"bytes={len(BIG)}-")[0] == 416
    assert get(front + LARGE.replace("big.so", "layers.py"))[1] == FILES["layers.py"]


def test_nobody_reaches_a_blob_without_kgate(front: str, kit: MirrorKit) -> None:
    for file in kit.catalog.publications()[0].variants[0].files:
        place = f"/_kgate_blobs/{file.digest.hex[:2]}/{file.digest.hex}"
        for spelled in (place, place.replace("_kgate", "%5fkgate"), f"/x/..{place}"):
            status, body, _ = get(front + spelled)
            assert status == 404
            assert len(body) < 500


def test_encoded_slashes_reach_kgate_as_they_were_sent(front: str) -> None:
    status, body, _ = get(f"{front}/api/kernels/acme/relu/tree/refs%2Fheads%2Fv1/build")
    assert status == 200
    assert b"torch-cpu" in body


def test_nginx_takes_the_configuration_of_the_sidecar(tmp_path: Path) -> None:
    folder = nginx.CONFIG.parents[1] / "kustomize" / "components" / "nginx"
    text = (folder / "nginx.conf").read_text("utf-8")
    for old, new in (("/tmp/", f"{tmp_path}/"), ("/etc/nginx/conf.d", str(folder))):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "nginx.conf").write_text(text, encoding="utf-8")
    program = find_program("nginx", "nginx-light", "/usr/sbin/nginx")
    done = subprocess.run(
        [program, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_stock_client_loads_through_nginx(front: str, tmp_path: Path) -> None:
    program = """
import json, kernels
print(json.dumps(kernels.get_kernel("acme/relu", version=1).ANSWER))
"""
    assert run_ungated(program, tmp_path, endpoint=front) == 42
