"""T20: no token in anything that a full run wrote, said or sent to somebody else."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.hubsim import HubSimulator, Status
from tests.ingestkit import make_site
from tests.mirrorkit import served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
UPSTREAM_TOKEN = "hf_UpstreamTokenThatNobodyMaySee0123456789"


@pytest.fixture(scope="module")
def plain() -> Path:
    return build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)


def kgate(site: Site, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = "import sys; from kgate_cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments, "--config", str(site.config_path)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, cwd=site.folder)


def forms(token: str) -> list[bytes]:
    """Return a token as it could be hidden in a file."""
    raw = token.encode()
    # The middle of its base64, whatever stands before it.
    encoded = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, raw.hex().encode(), *encoded]


def test_t20_no_token_is_in_a_log_a_report_a_bundle_an_error_or_a_redirect(
    plain: Path, tmp_path: Path
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
        # 1. Everything that succeeds, and the errors that upstream can cause.
        made = kgate(site, "token", "create", "pods", "--repo", "kernels-community/*", "--json")
        assert made.returncode == 0, made.stderr
        client_token = made.stdout.decode().partition('"token": "')[2].partition('"')[0]
        assert len(client_token) > 20
        for arguments in (
            ("sync", "--report-dir", str(site.folder / "reports")),
            ("sync", "--json"),
            ("lock", "--upgrade", "all"),
            ("ls", "--json"),
            ("show", REPO),
            ("token", "list"),
            ("bundle", "export", "--out", str(site.folder / "bundle")),
        ):
            done = kgate(site, *arguments)
            assert done.returncode == 0, (arguments, done.stderr)
            said += [done.stdout, done.stderr]
        assert {request.token for request in hub.requests} == {UPSTREAM_TOKEN}
        for fault in (Status(401), Status(403), Status(404), Status(418)):
            hub.inject(fault)
            failed = kgate(site, "lock", "--upgrade", "all")
            hub.heal()
            assert failed.returncode != 0
            said += [failed.stdout, failed.stderr]
        token_file.write_text(f"{UPSTREAM_TOKEN}\nand a second line", encoding="utf-8")
        failed = kgate(site, "lock", "--upgrade", "all")
        assert failed.returncode == 4
        said += [failed.stdout, failed.stderr]
        token_file.write_text(UPSTREAM_TOKEN, encoding="utf-8")
        # 2. What the mirror answers to somebody with the client's token, and to nobody.
        with site.mirror() as mirror:
            settings = mirror.serve_settings()
        with served(settings) as address:
            for path in (f"/api/kernels/{REPO}/refs", f"/api/kernels/{REPO}", "/metrics"):
                for token in (client_token, "wrong"):
                    request = Request(f"{address}{path}")
                    request.add_header("Authorization", f"Bearer {token}")
                    said.append(answer(request))
    # 3. Everything that lies on the disk afterwards, but for the file that holds the token.
    written = [path for path in site.folder.rglob("*") if path.is_file()]
    assert len(written) > 20
    for token in (UPSTREAM_TOKEN, client_token):
        for form in forms(token):
            assert [path for path in written if form in path.read_bytes()] == []
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
