"""Pods post what they decided; the mirror counts it, keeps it and notices who says nothing."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_mirror_server.serve.metrics import Metrics
from kgate_mirror_server.serve.reports import ReportInbox, Ungated
from kgate_mirror_server.serve.wire import Request
from tests.mirrorkit import COMMIT, REPO, VARIANT, MirrorKit, make_mirror, served

if TYPE_CHECKING:
    from pathlib import Path

LOAD = {
    "schema": "kgate.dev/load/v1",
    "outcome": "loaded",
    "repo": str(REPO),
    "revision": str(COMMIT),
}


@pytest.fixture
def kit(tmp_path: Path) -> MirrorKit:
    kit = make_mirror(tmp_path)
    kit.publish()
    return kit


def _post(address: str, *lines: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{address}/api/kgate/v1/reports", data=b"\n".join(lines), method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read())


def _metrics(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as response:
        return str(response.read().decode())


def test_reports_are_counted_and_kept(kit: MirrorKit) -> None:
    folder = kit.root / "reports"
    with served(replace(kit.settings, reports=folder)) as address:
        odd = json.dumps(LOAD | {"outcome": "x" * 50}).encode()
        answer = _post(address, json.dumps(LOAD).encode(), odd, b"no json", b'{"schema":"other"}')
        metrics = _metrics(address)

    assert answer == (202, {"accepted": 2, "refused": 2, "kept": True})
    assert 'kgate_pod_reports_total{outcome="loaded"} 1' in metrics
    assert 'kgate_pod_reports_total{outcome="other"} 1' in metrics
    assert "kgate_pod_reports_refused_total 2" in metrics
    (day,) = folder.glob("*.jsonl")
    kept = [json.loads(line) for line in day.read_text().splitlines()]
    assert kept[0]["report"] == LOAD
    assert kept[0]["client"] == "127.0.0.1"


def test_too_much_is_refused_and_other_writes_stay_refused(kit: MirrorKit) -> None:
    with served(replace(kit.settings, reports=kit.root / "reports")) as address:
        large, many = _post(address, b"x" * 300_000), _post(address, *[b"{}"] * 257)
        other = _post(address.replace("/api", ""), b"{}")
        write = urllib.request.Request(f"{address}/api/repos/create", data=b"{}", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(write, timeout=10)
        assert refused.value.code == 403
        refused.value.close()

    assert (large[0], many[0], other[0]) == (400, 400, 202)


def test_a_mirror_that_takes_no_reports_says_so(kit: MirrorKit) -> None:
    with served(kit.settings) as address:
        assert _post(address, b"{}")[0] == 404


def test_t55_a_download_that_nobody_reports_raises_an_alert(kit: MirrorKit) -> None:
    """One client downloads and reports, another only downloads."""
    now = [1000.0]
    metrics = Metrics()
    folder = kit.root / "reports"
    rung: list[Ungated] = []
    inbox = ReportInbox(folder, metrics, alert_after=300, alarm=rung.extend, clock=lambda: now[0])

    def request(address: str, body: bytes = b"") -> Request:
        async def receive() -> dict[str, Any]:
            return {"body": body}

        scope = {"type": "http", "method": "POST", "headers": [], "client": (address, 1)}
        return Request(scope, receive)

    path = f"build/{VARIANT}/metadata.json"
    for client in ("10.0.0.1", "10.0.0.2"):
        inbox.downloaded(request(client), str(REPO), str(COMMIT), path)
    inbox.downloaded(request("10.0.0.3"), str(REPO), str(COMMIT), "build/x/other.py")
    for waiting in (folder / "waiting").iterdir():
        os.utime(waiting, (now[0], now[0]))
    answer = inbox.answer(request("10.0.0.1", json.dumps(LOAD).encode()))
    with pytest.raises(StopIteration):
        answer.send(None)  # nothing in it waits
    now[0] += 299
    inbox.sweep()
    assert b"ungated" not in metrics.render([])
    now[0] += 2
    inbox.sweep()
    inbox.sweep()

    assert b"\nkgate_ungated_downloads_total 1\n" in metrics.render([])
    assert rung == [Ungated("10.0.0.2", str(REPO), str(COMMIT))]
    assert list((folder / "waiting").iterdir()) == []


def test_t55_the_served_mirror_awaits_a_report_for_each_kernel(kit: MirrorKit) -> None:
    folder = kit.root / "reports"
    with served(replace(kit.settings, reports=folder, alert_after=600)) as address:
        url = f"{address}/kernels/{REPO}/resolve/{COMMIT}/build/{VARIANT}/metadata.json"
        with urllib.request.urlopen(url, timeout=10) as response:
            response.read()
        assert len(list((folder / "waiting").iterdir())) == 1
        assert _post(address, json.dumps(LOAD).encode())[0] == 202
        assert list((folder / "waiting").iterdir()) == []
