"""Traces and metrics to an OpenTelemetry collector, where a person names one; off otherwise.

A span for each request with its part, method and status: no address, no repository, no
credential, for those may be a tenant's own. The counters are those of `/metrics`. Sent in batches
by threads of the OpenTelemetry SDK (extra `otel`); a collector that is down loses telemetry and
nothing else. Imported only where it is switched on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kgate_mirror_server.serve.metrics import HELP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.trace import Span

    from kgate_mirror_server.serve.metrics import Labels, Metrics
    from kgate_mirror_server.serve.settings import OtlpSettings
    from kgate_mirror_server.serve.wire import Request

_BROKEN: Final = 500  # and above: the mirror's own fault
_TIMEOUT: Final = 5  # seconds that one batch may take
_TRACE: Final = TraceContextTextMapPropagator()


class Telemetry:
    """Sends one worker's spans and counters."""

    def __init__(self, settings: OtlpSettings, metrics: Metrics) -> None:
        base = settings.endpoint.rstrip("/")
        resource = Resource.create({"service.name": settings.service})
        self._tracers = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.sampled))
        )
        self._tracers.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(f"{base}/v1/traces", timeout=_TIMEOUT),
                schedule_delay_millis=round(settings.seconds * 1000),
            )
        )
        self._tracer = self._tracers.get_tracer("kgate")
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(f"{base}/v1/metrics", timeout=_TIMEOUT),
            export_interval_millis=settings.seconds * 1000,
        )
        self._meters = MeterProvider(metric_readers=[reader], resource=resource)
        meter = self._meters.get_meter("kgate")
        for name, about in HELP.items():
            meter.create_observable_counter(name, [_reading(metrics, name)], description=about)

    def begin(self, request: Request, part: str) -> Span:
        """Begin the span of a request; a client's own trace is continued."""
        carrier = {}
        if (parent := request.header(b"traceparent")) is not None:
            carrier["traceparent"] = parent
        return self._tracer.start_span(
            f"{request.method} {part}",
            context=_TRACE.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": request.method, "kgate.part": part},
        )

    def end(self, span: Span, status: int) -> None:
        """End it with the status that was sent."""
        span.set_attribute("http.response.status_code", status)
        if status >= _BROKEN:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def close(self) -> None:
        """Send what is left."""
        self._tracers.shutdown()
        self._meters.shutdown(timeout_millis=_TIMEOUT * 1000)


def _reading(metrics: Metrics, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_options: CallbackOptions) -> Iterable[Observation]:
        counts: Mapping[Labels, int] = metrics.of(name)
        return [Observation(value, dict(labels)) for labels, value in counts.items()]

    return read
