"""Traces: one OpenTelemetry span a generation, sent by OTLP over HTTP. Nothing here is imported unless a collector is set.

Owns the packages of the extra `otel`. Names of attributes are those of OpenTelemetry's conventions for generative AI; there
is no text among them. Spans are sent by a thread of the library's own; a collector that is away costs the spans and
nothing else.
"""

from __future__ import annotations

import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kolosal import __version__
from kolosal.observe.counts import Outcome
from kolosal.observe.observer import EndedRequest

_LAST_SPANS_S = 2.0


class Traces:
    """Makes a span of each generation that has ended. `close()` sends what is left."""

    def __init__(self, exporter: SpanExporter) -> None:
        resource = Resource.create({"service.name": "kolosal", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("kolosal", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def add(self, request: EndedRequest) -> None:
        """Make the span of a generation, as a child of the client's own where it sent a `traceparent`."""
        parent = {} if request.trace_parent is None else {"traceparent": request.trace_parent}
        span = self._tracer.start_span(
            f"generate {request.engine_id}",
            context=self._propagator.extract(parent),
            kind=SpanKind.SERVER,
            start_time=request.started_ns,
            attributes=_attributes(request),
        )
        if request.ttft_s is not None:
            span.add_event("first token", timestamp=request.started_ns + round(request.ttft_s * 1e9))
        if request.outcome is Outcome.FAILED:
            span.set_status(Status(StatusCode.ERROR, request.error))
        span.end(request.started_ns + round(request.duration_s * 1e9))

    def close(self) -> None:
        """Send what is left and end. Blocks for two seconds at most: a collector that is away must not hold up an exit."""
        ending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(_LAST_SPANS_S)


def traces_to(url: str) -> Traces:
    """Traces for the collector at that URL, e.g. `http://127.0.0.1:4318/v1/traces`."""
    return Traces(OTLPSpanExporter(endpoint=url, timeout=5))


def _attributes(request: EndedRequest) -> dict[str, str | int | float]:
    known: dict[str, str | int | float | None] = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "kolosal",
        "gen_ai.request.model": request.engine_id,
        "gen_ai.usage.input_tokens": request.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": request.usage.completion_tokens,
        "kolosal.usage.cached_tokens": request.usage.cached_tokens,
        "kolosal.request_id": request.request_id,
        "kolosal.outcome": request.outcome.value,
        "kolosal.time_to_first_token_s": None if request.ttft_s is None else round(request.ttft_s, 4),
        "error.type": request.error,
    }
    return {name: value for name, value in known.items() if value is not None}
