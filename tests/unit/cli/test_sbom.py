"""`kgate sbom` of a path, and `kgate sbom push` to a server that speaks Dependency-Track's API."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from tests.scankit import build_library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "odt_secret"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libkernel.so"
    path.write_bytes(build_library())
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["sbom", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_path_gets_a_reproducible_document(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = printed(capsys, str(library))
    assert first == printed(capsys, str(library))
    assert first["metadata"]["component"]["name"] == "libkernel.so"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert printed(capsys, str(library))["metadata"]["timestamp"].startswith("2023-11-14")


def test_bsi_reads_the_file_for_its_sha512(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (str(library), "--profile", "bsi", "--creator", "a@example.org")
    (reference,) = [
        item
        for component in printed(capsys, *words)["components"]
        for item in component.get("externalReferences", ())
    ]
    assert reference["hashes"][0]["content"] == hashlib.sha512(library.read_bytes()).hexdigest()


def test_spdx_is_printed_and_takes_no_profile(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, str(library), "--format", "spdx")["spdxVersion"] == "SPDX-2.3"
    assert main(["sbom", str(library), "--format", "spdx", "--profile", "bsi"]) == 2
    assert main(["sbom", str(library), "--profile", "bsi"]) == 2


def test_several_variants_need_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("torch-cpu", "torch-cuda"):
        folder = tmp_path / "build" / name
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
    assert main(["sbom", str(tmp_path)]) == 1
    assert "--variant: torch-cpu, torch-cuda" in capsys.readouterr().err
    chosen = printed(capsys, str(tmp_path), "--variant", "torch-cpu")
    assert [item["name"] for item in chosen["components"]] == ["metadata.json", "torch-cpu"]


@dataclass
class Server:
    """What a stand-in for the API server was sent."""

    url: str = ""
    uploads: list[EmailMessage] = field(default_factory=list)
    questions: int = 0

    def part(self, name: str) -> str:
        (found,) = [
            part
            for part in self.uploads[-1].iter_parts()
            if part.get_param("name", header="content-disposition") == name
        ]
        content = found.get_payload(decode=True)
        assert isinstance(content, bytes)
        return content.decode()


@contextmanager
def dependency_track(refuse: int = 0) -> Iterator[Server]:
    """Answer as Dependency-Track's API does: a token, then `processing` until the second time."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["X-Api-Key"] != KEY:
                self.answer(401, {})
            elif refuse:
                self.answer(refuse, {"title": "The uploaded BOM is invalid"})
            else:
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                message = BytesParser(policy=HTTP).parsebytes(head + body)
                assert isinstance(message, EmailMessage)
                server.uploads.append(message)
                self.answer(200, {"token": "7d3a-1"} if self.path == "/api/v1/bom" else {})

        def do_GET(self) -> None:
            assert self.path == "/api/v1/event/token/7d3a-1"
            server.questions += 1
            self.answer(200, {"processing": server.questions < 2})

        def answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def push(library: Path, url: str, key: str = KEY, *more: str) -> int:
    path = library.with_name("key")
    path.write_text(f"{key}\n")
    return main(["sbom", "push", str(library), "--dtrack", url, "--key-file", str(path), *more])


def test_the_flat_document_arrives_and_is_waited_for(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with dependency_track() as server:
        assert push(library, server.url, KEY, "--project", "ai/kernel@1") == 0
        assert server.questions == 2
    assert "processed" in capsys.readouterr().out
    assert (server.part("projectName"), server.part("projectVersion")) == ("ai/kernel", "1")
    sent = json.loads(server.part("bom"))
    assert sent["components"][0]["name"] == "libkernel.so"
    assert "evidence" not in sent["components"][0]


def test_a_key_that_is_not_accepted_is_exit_4_and_never_printed(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with dependency_track() as server:
        assert push(library, server.url, "wrong-key") == 4
    said = capsys.readouterr().err
    assert "BOM_UPLOAD" in said
    assert "wrong-key" not in said


def test_a_server_that_refuses_or_is_not_there_is_exit_3(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with dependency_track(refuse=400) as server:
        assert push(library, server.url) == 3
    assert "HTTP 400" in capsys.readouterr().err
    assert push(library, server.url) == 3
    assert "could not be reached" in capsys.readouterr().err
    assert push(library, "dtrack.example.org") == 4
