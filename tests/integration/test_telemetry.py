"""Traces and metrics reach an OpenTelemetry collector if one is named, and nothing else does."""

from __future__ import annotations

import http.server
import threading
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kgate_mirror_server.serve.settings import OtlpSettings
from tests.mirrorkit import VARIANT, make_mirror, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/layers.py"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        type(self).seen.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    seen: list[tuple[str, bytes]] = []
    handler = type("One", (Collector,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_spans_and_counters_arrive_without_names_of_repositories(
    tmp_path: Path, collector: tuple[str, list[tuple[str, bytes]]]
) -> None:
    endpoint, seen = collector
    kit = make_mirror(tmp_path)
    kit.publish()
    settings = replace(kit.settings, otlp=OtlpSettings(endpoint, seconds=0.3))
    with served(settings) as address:
        for _ in range(3):
            request = urllib.request.Request(address + PLACE, headers={"traceparent": PARENT})
            urllib.request.urlopen(request, timeout=10).close()
        deadline = time.monotonic() + 20
        while not (spans := [s for s in _spans(seen) if s.name == "GET file"])[2:]:
            assert time.monotonic() < deadline, "no spans came"
            time.sleep(0.1)
        while "kgate_requests_total" not in _metrics(seen):
            assert time.monotonic() < deadline, "no metrics came"
            time.sleep(0.1)
    assert {span.trace_id.hex() for span in spans} == {PARENT.split("-")[1]}
    status = {a.key: a.value.int_value for a in spans[0].attributes}
    assert status["http.response.status_code"] == 200
    assert not any(b"relu" in body for _, body in seen)


def test_a_collector_that_is_down_stops_nothing(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    settings = replace(kit.settings, otlp=OtlpSettings("http://127.0.0.1:9", seconds=0.2))
    with served(settings) as address:
        for _ in range(5):
            with urllib.request.urlopen(address + PLACE, timeout=10) as reply:
                assert reply.read() == b"ANSWER = 42\n"
            time.sleep(0.2)


def _spans(seen: list[tuple[str, bytes]]) -> list[Any]:
    found: list[Any] = []
    for path, body in list(seen):
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += list(scope.spans)
    return found


def _metrics(seen: list[tuple[str, bytes]]) -> set[str]:
    found: set[str] = set()
    for path, body in list(seen):
        if path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    found |= {metric.name for metric in scope.metrics}
    return found
