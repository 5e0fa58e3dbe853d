"""What pods report about their loads: taken with limits, counted, kept as JSON lines.

A report is a pod's own word (T57): it is counted and stored, never believed. What it is good for
here is its absence: a kernel that was downloaded and that nobody reported within a while may run
where no shim is, and that raises an alert (T55). Pods are told apart by their address, so it stops
accidents, not liars. Workers of one host share the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_mirror_server.serve.wire import error, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kgate_mirror_server.serve.metrics import Metrics
    from kgate_mirror_server.serve.wire import Answer, Request

LOAD: Final = "kgate.dev/load/v1"
MAX_BODY: Final = 256 * 1024  # bytes of one request
MAX_LINES: Final = 256  # reports in one request
MAX_LINE: Final = 16 * 1024  # bytes of one report
MAX_DAY: Final = 256 * 1024**2  # bytes kept of one day; what comes after is only counted
MAX_WAITING: Final = 10_000  # downloads whose report is awaited at a time
DAYS_KEPT: Final = 30
OUTCOMES: Final = frozenset({"loaded", "kept", "fallback", "raised", "warned", "observed"})
OTHER: Final = "other"

_log: Final = structlog.get_logger(__name__)


class Ungated(NamedTuple):
    """A download that nobody reported in time."""

    client: str
    repo: str
    revision: str


class ReportInbox:
    """Takes reports into a folder; without one, the mirror takes none."""

    def __init__(
        self,
        folder: Path | None,
        metrics: Metrics,
        *,
        alert_after: float = 0.0,
        alarm: Callable[[Sequence[Ungated]], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._alert_after = alert_after
        self._alarm = alarm
        self._clock = clock

    async def answer(self, request: Request) -> Answer:
        """Take the JSON lines of one request."""
        if self._folder is None:
            return error(404, "this mirror takes no reports (serve.reports in kgate.yaml)")
        if request.method != "POST":
            return error(405, "reports are sent with POST", (b"allow", b"POST"))
        lines = [line for line in (await request.body(MAX_BODY)).split(b"\n") if line.strip()]
        if len(lines) > MAX_LINES:
            raise InvalidInput(f"{len(lines)} reports are more than {MAX_LINES} at a time")
        address = _address(request)
        reports = [report for report in map(_read, lines) if report is not None]
        for report in reports:
            outcome = str(report.get("outcome"))
            label = outcome if outcome in OUTCOMES else OTHER
            self._metrics.count("kgate_pod_reports_total", (("outcome", label),))
            self._heard(address, str(report.get("repo")), str(report.get("revision")))
        kept = self._keep(address, reports)
        refused = len(lines) - len(reports)
        if refused:
            self._metrics.count("kgate_pod_reports_refused_total", by=refused)
        return json_answer({"accepted": len(reports), "refused": refused, "kept": kept}, status=202)

    def downloaded(self, request: Request, repo: str, revision: str, path: str) -> None:
        """Await a report about a kernel that a client has just begun to download."""
        if self._folder is None or not self._alert_after or not path.endswith("/metadata.json"):
            return
        waiting = self._folder / "waiting"
        text = json.dumps([_address(request), repo, revision])
        with suppress(OSError):
            waiting.mkdir(parents=True, exist_ok=True)
            if sum(1 for _ in os.scandir(waiting)) < MAX_WAITING:
                (waiting / _key(_address(request), repo, revision)).write_text(text, "utf-8")

    def sweep(self) -> None:
        """Raise an alert for each download that nobody reported in time; forget old days."""
        if self._folder is None:
            return
        late = self._clock() - self._alert_after
        found: list[Ungated] = []
        for path in _files(self._folder / "waiting"):
            with suppress(OSError, ValueError):
                if self._alert_after and path.stat().st_mtime <= late:
                    item = Ungated(*json.loads(path.read_text("utf-8")))
                    path.unlink()  # the worker that removes it is the one that says it
                    found.append(item)
                    self._metrics.count("kgate_ungated_downloads_total")
                    client, repo, revision = item
                    _log.warning("download.ungated", kernel=repo, revision=revision, client=client)
        if found and self._alarm is not None:
            self._alarm(found)
        oldest = self._clock() - DAYS_KEPT * 86_400
        for path in _files(self._folder):
            with suppress(OSError):
                if path.suffix == ".jsonl" and path.stat().st_mtime < oldest:
                    path.unlink()

    def _heard(self, address: str, repo: str, revision: str) -> None:
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / "waiting" / _key(address, repo, revision)).unlink()

    def _keep(self, address: str, reports: list[dict[str, Any]]) -> bool:
        if self._folder is None or not reports:
            return False
        now = datetime.fromtimestamp(self._clock(), UTC)
        path = self._folder / f"{now:%Y-%m-%d}.jsonl"
        seen = {"received": f"{now:%Y-%m-%dT%H:%M:%SZ}", "client": address}
        lines = [json.dumps({**seen, "report": report}, ensure_ascii=False) for report in reports]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                if stream.tell() > MAX_DAY:
                    return False
                # One write: lines of several workers do not mix.
                stream.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        except OSError:
            return False  # a full disk must not fail a pod
        return True


def _read(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_LINE:
        return None
    try:
        report = strictjson.loads(line, what="report", floats=True)
    except InvalidInput:
        return None
    return report if isinstance(report, dict) and report.get("schema") == LOAD else None


def _address(request: Request) -> str:
    # Behind a proxy every client has the proxy's address; what it adds is good enough here.
    forwarded = (request.header(b"x-forwarded-for") or "").partition(",")[0].strip()
    client = request.scope.get("client")
    if isinstance(client, str):
        client = (client.rpartition(":")[0],)  # as granian writes it
    return forwarded[:64] or (str(client[0]) if client else "")


def _key(address: str, repo: str, revision: str) -> str:
    return hashlib.sha256(f"{address}\n{repo}\n{revision}".encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from [path for path in folder.iterdir() if path.is_file()]
