"""Events: what is sent, to whom, and that nothing waits for or fails with a webhook."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from kgate_cli.main import main
from kgate_core.errors import TrustError
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.events import MAX_EVENTS, Event, Events, deliver
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.serve.alarm import Alarm
from kgate_mirror_server.serve.reports import Ungated
from kgate_mirror_server.serve.settings import AlarmSettings
from kgate_mirror_server.settings.site import load_config
from tests import repos
from tests.ingestkit import make_site, now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
EVENT = Event("kernel.denied", "acme/relu@v1", "denied by no-bytecode")


class Receiver:
    """A webhook on this machine that keeps what it is told."""

    def __init__(self, status: int, delay: float) -> None:
        self.requests: list[tuple[dict[str, str], Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((dict(self.headers), json.loads(body)))
                time.sleep(delay)
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@contextmanager
def receiver(status: int = 204, delay: float = 0.0) -> Iterator[Receiver]:
    made = Receiver(status, delay)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def send(settings: Events, count: int = 1, token: bytes = b"", patience: float = 5.0) -> str:
    return deliver(
        settings, "https://a.test", [EVENT] * count, now(),
        read_file=lambda _name: token, patience=patience,
    )  # fmt: skip


def test_one_request_carries_all_events_and_the_token_of_the_file() -> None:
    with receiver() as hook:
        settings = Events(webhook_url=hook.url, token_file=Path("token"))
        assert send(settings, MAX_EVENTS + 1, b"secret\n") == ""
    ((headers, body),) = hook.requests
    assert headers["Authorization"] == "Bearer secret"
    assert (body["schema"], body["site"]) == ("kgate.dev/events/v1", "https://a.test")
    assert (len(body["events"]), body["omitted"]) == (MAX_EVENTS, 1)
    assert body["events"][0]["kind"] == "kernel.denied"


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_or_points_elsewhere_is_reported_and_not_followed(
    status: int,
) -> None:
    with receiver(status) as hook:
        assert f"answered {status}" in send(Events(webhook_url=hook.url))
    assert len(hook.requests) == 1


def test_a_webhook_that_is_slow_is_not_waited_for() -> None:
    with receiver(delay=0.6) as hook:
        begun = time.monotonic()
        assert "may not have arrived" in send(Events(webhook_url=hook.url), patience=0.1)
        assert time.monotonic() - begun < 0.5


def test_a_webhook_that_is_down_is_reported() -> None:
    with receiver() as hook:
        url = hook.url
    assert "cannot be reached" in send(Events(webhook_url=url))


def test_nothing_is_sent_without_a_webhook_or_without_events() -> None:
    with receiver() as hook:
        assert send(Events()) == ""
        assert send(Events(webhook_url=hook.url), 0) == ""
    assert hook.requests == []


def test_a_token_file_that_others_may_read_is_not_used() -> None:
    def refuse(_name: Path) -> bytes:
        raise TrustError("token can be read by others")

    with receiver() as hook:
        settings = Events(webhook_url=hook.url, token_file=Path("token"))
        said = deliver(settings, "a", [EVENT], now(), read_file=refuse)
    assert "can be read by others" in said
    assert hook.requests == []


def test_a_webhook_is_a_web_address() -> None:
    with pytest.raises(ValidationError):
        Events(webhook_url="file:///etc/passwd")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, tmp_path / "built" / REPO)
    bad = repos.copy_repo(built, tmp_path / "built" / "acme" / "json-kernel")
    for variant in repos.variants(bad):
        repos.edit_metadata(variant, license="Proprietary")
        repos.redigest(variant)
    made = make_site(tmp_path / "site", str(tmp_path / "built"))
    policy = made.folder / "policy" / "baseline.yaml"
    policy.write_text(policy.read_text("utf-8") + "licences: {deny: [Proprietary]}\n", "utf-8")
    assert main(["trust", "update", "--config", str(made.config_path)]) == 0
    made.pin(f"repo: {REPO}, version: 1", "repo: acme/json-kernel, version: 1")
    return made


def test_denied_moved_revoked_and_exceptions_that_end_are_told(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = site.config_path.read_text(encoding="utf-8")
    config = ["--config", str(site.config_path)]
    with receiver() as hook:
        site.config_path.write_text(f"{text}events: {{webhook_url: '{hook.url}'}}\n", "utf-8")
        assert main(["sync", *config]) == 1
        until = f"{now() + timedelta(days=3):%Y-%m-%d}"
        words = ["--rule", "licence-allowed", "--until", until, "--reason", "Lawyers agreed."]
        people = ["--requested-by", "alice", "--approved-by", "bob"]
        assert main(["policy", "except", "acme/json-kernel", *words, *people, *config]) == 0
        for variant in repos.variants(site.folder.parent / "built" / REPO):
            (variant / "more.py").write_text("# more\n", encoding="utf-8")
        assert main(["sync", *config]) == 0
        assert main(["revoke", REPO, "--reason", "CVE-2026-31337", *config]) == 0
    told = [[event["kind"] for event in body["events"]] for _, body in hook.requests]
    assert told == [["kernel.denied"], ["kernel.moved", "exception.ending"], ["kernel.revoked"]]
    assert "may not have arrived" not in capsys.readouterr().err
    # The webhook is gone now: the outcome of a sync does not depend on it.
    assert main(["sync", *config]) == 0
    assert "may not have arrived" in capsys.readouterr().err


def test_t55_an_ungated_download_reaches_the_webhook_and_serving_does_not_wait() -> None:
    found = [Ungated("10.0.0.2", "acme/relu", "f" * 40)]
    with receiver(delay=0.3) as hook:
        alarm = Alarm(AlarmSettings("https://a.test", hook.url), now)
        begun = time.monotonic()
        alarm.ring(found)
        while not hook.requests:
            time.sleep(0.01)
        alarm.ring(found * 2)  # while the first is still being answered
        alarm.ring(found)
        spent = time.monotonic() - begun
        alarm.finish()
    assert spent < 0.3
    assert [len(body["events"]) for _, body in hook.requests] == [1, 3]
    event = hook.requests[0][1]["events"][0]
    assert (event["kind"], event["subject"]) == ("download.ungated", "acme/relu")
    assert event["data"] == {"revision": "f" * 40, "client": "10.0.0.2"}


def test_an_alert_that_does_not_arrive_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with receiver() as hook:
        url = hook.url
    alarm = Alarm(AlarmSettings("https://a.test", url), now)
    alarm.ring([Ungated("10.0.0.2", "acme/relu", "f" * 40)])
    alarm.finish()
    alarm.finish()
    said = capsys.readouterr()
    assert "alert.undelivered" in said.out + said.err


def test_the_site_file_says_who_hears_of_ungated_downloads(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", "./built")
    text = site.config_path.read_text("utf-8")
    assert _alarm(site) is None
    site.config_path.write_text(
        f"{text}events: {{webhook_url: 'https://chat.test/h', token_file: keys/hook}}\n", "utf-8"
    )
    found = _alarm(site)
    assert found is not None
    assert found.webhook_url == "https://chat.test/h"
    assert found.token_file == site.config_path.parent / "keys" / "hook"


def _alarm(site: Site) -> AlarmSettings | None:
    return Mirror(load_config(site.config_path)).serve_settings().alarm
