"""T20: no token in anything that a full run wrote, said or sent to somebody else."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.hubsim import HubSimulator, Status
from tests.ingestkit import make_site
from tests.mirrorkit import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
UPSTREAM_TOKEN = "hf_UpstreamTokenThatNobodyMaySee0123456789"


@pytest.fixture(scope="module")
def plain() -> Path:
    return build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)


# One process runs all commands: starting a program over and over is most of what they cost.
COMMANDS = """
import json, sys
from kgate_cli.main import main
for line in sys.stdin:
    code = main(json.loads(line))
    sys.stdout.flush()
    sys.stderr.flush()
    with open(sys.argv[1], "a") as codes:
        codes.write(f"{code}\\n")
"""


@dataclass
class Terminal:
    """A process that runs `kgate` commands; all that it says lies in two files."""

    site: Site
    folder: Path
    process: subprocess.Popen[bytes]

    @classmethod
    @contextmanager
    def opened(cls, site: Site, folder: Path) -> Iterator[Terminal]:
        folder.mkdir()
        command = [sys.executable, "-c", COMMANDS, str(folder / "codes")]
        with (
            (folder / "stdout").open("wb") as out,
            (folder / "stderr").open("wb") as err,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=site.folder
            ) as process,
        ):
            try:
                yield cls(site, folder, process)
            finally:
                process.kill()

    def kgate(self, *arguments: str) -> tuple[int, bytes]:
        """Return exit code and standard output of a command."""
        before = len(self.read("stdout"))
        done = len(self.read("codes").split())
        assert self.process.stdin is not None
        line = json.dumps([*arguments, "--config", str(self.site.config_path)])
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        until = time.monotonic() + 120
        while len(codes := self.read("codes").split()) == done:
            assert self.process.poll() is None, self.read("stderr")
            assert time.monotonic() < until, self.read("stderr")
            time.sleep(0.02)
        return int(codes[-1]), self.read("stdout")[before:]

    def read(self, name: str) -> bytes:
        path = self.folder / name
        return path.read_bytes() if path.exists() else b""


def forms(token: str) -> list[bytes]:
    """Return a token as it could be hidden in a file."""
    raw = token.encode()
    # The middle of its base64, whatever stands before it.
    encoded = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, raw.hex().encode(), *encoded]


def test_t20_no_token_is_in_a_log_a_report_a_bundle_an_error_or_a_redirect(
    plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[bytes] = []
    with HubSimulator() as hub:
        hub.publish(REPO, plain)
        site = make_site(tmp_path / "site", hub.url)
        token_file = tmp_path / "secret" / "token"
        token_file.parent.mkdir()
        token_file.write_text(UPSTREAM_TOKEN, encoding="utf-8")
        site.pin(f"repo: {REPO}, version: 1")
        text = site.config_path.read_text(encoding="utf-8").replace(
            f"upstream: {hub.url}", f"upstream: {{url: '{hub.url}', token_file: '{token_file}'}}"
        )
        assert "\nserve:" in text
        text = text.replace("\nserve:", "\nserve:\n  tokens: true", 1)
        site.config_path.write_text(text, encoding="utf-8")
        with Terminal.opened(site, tmp_path / "terminal") as terminal:
            # 1. Everything that succeeds, and the errors that upstream can cause.
            code, made = terminal.kgate(
                "token", "create", "pods", "--repo", "kernels-community/*", "--json"
            )
            assert code == 0, terminal.read("stderr")
            client_token = str(json.loads(made)["token"])
            assert len(client_token) > 20
            for arguments in (
                ("sync", "--report-dir", str(site.folder / "reports")),
                ("sync", "--json"),
                ("lock", "--upgrade", "all"),
                ("ls", "--json"),
                ("show", REPO),
                ("token", "list"),
                ("audit", "export", "--format", "jsonl"),
                ("bundle", "export", "--out", str(site.folder / "bundle")),
            ):
                assert terminal.kgate(*arguments)[0] == 0, (arguments, terminal.read("stderr"))
            assert {request.token for request in hub.requests} == {UPSTREAM_TOKEN}
            for fault in (Status(401), Status(403), Status(404), Status(418)):
                hub.inject(fault)
                assert terminal.kgate("lock", "--upgrade", "all")[0] != 0
                hub.heal()
            token_file.write_text(f"{UPSTREAM_TOKEN}\nand a second line", encoding="utf-8")
            assert terminal.kgate("lock", "--upgrade", "all")[0] == 4
            token_file.write_text(UPSTREAM_TOKEN, encoding="utf-8")
            assert terminal.read("stderr").count(b"error:") >= 5
            # The one place where a client's token is told is the answer to who created it.
            said += [terminal.read("stdout").replace(made, b"", 1), terminal.read("stderr")]
        # 2. What the mirror answers to somebody with the client's token, and to nobody.
        with site.mirror() as mirror:
            settings = mirror.serve_settings()
        with served(settings) as address:
            for path in (f"/api/kernels/{REPO}/refs", f"/api/kernels/{REPO}", "/metrics"):
                for token in (client_token, "wrong"):
                    request = Request(f"{address}{path}")
                    request.add_header("Authorization", f"Bearer {token}")
                    said.append(answer(request))
        logged = capfd.readouterr()
        said += [logged.out.encode(), logged.err.encode()]
    # 3. Everything that lies on the disk afterwards, but for the file that holds the token; the
    # database also row by row, as a value may lie on two of its pages.
    written = {str(path): path.read_bytes() for path in site.folder.rglob("*") if path.is_file()}
    assert len(written) > 20
    assert {"reports", "bundle"} <= {path.name for path in site.folder.iterdir()}
    database = site.folder / "kgate-data" / "kgate.db"
    with closing(sqlite3.connect(database)) as connection:
        written["rows"] = "\n".join(connection.iterdump()).encode()
    for token in (UPSTREAM_TOKEN, client_token):
        for form in forms(token):
            assert [path for path, data in written.items() if form in data] == []
            assert [text for text in said if form in text] == []


def answer(request: Request) -> bytes:
    """Return status line, headers and body of an answer, whatever it is."""
    from urllib.error import HTTPError

    try:
        with urlopen(request, timeout=10) as response:
            body: bytes = response.read()
            return str(response.headers).encode() + body
    except HTTPError as exc:
        return str(exc.headers).encode() + exc.read()


def test_t20_a_redirect_to_another_host_is_followed_without_the_token(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    from kgate_core.kernel import KernelRef, Revision
    from kgate_mirror_server.ports import UpstreamFile
    from kgate_mirror_server.settings.site import load_config
    from kgate_mirror_server.upstream import open_upstream

    seen: list[str | None] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"abc")

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{elsewhere.server_port}/blob")
            self.send_header("Content-Length", "0")
            self.end_headers()

    elsewhere = HTTPServer(("127.0.0.1", 0), Elsewhere)
    redirecting = HTTPServer(("127.0.0.1", 0), Redirecting)
    for server in (elsewhere, redirecting):
        Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{redirecting.server_port}"
        site = make_site(tmp_path / "site", url)
        (site.folder / "token").write_text(UPSTREAM_TOKEN, encoding="utf-8")
        text = site.config_path.read_text(encoding="utf-8").replace(
            f"upstream: {url}", f"upstream: {{url: '{url}', token_file: token}}"
        )
        site.config_path.write_text(text, encoding="utf-8")
        config = load_config(site.config_path)
        upstream = open_upstream(config, config.upstream)
        file = UpstreamFile("build/torch-cpu/a.py", 3, "0" * 40, None)
        commit = Revision("0" * 40)
        assert b"".join(upstream.read(KernelRef("acme", "relu"), commit, file)) == b"abc"
    finally:
        for server in (elsewhere, redirecting):
            server.shutdown()
            server.server_close()
    assert seen == [f"Bearer {UPSTREAM_TOKEN}", None]
