"""Traces of generations, in memory; and nothing of them where none are wanted."""

from __future__ import annotations

import subprocess
import sys

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kolosal.errors import EngineDied
from kolosal.observe.context import REQUEST, RequestContext
from kolosal.observe.observer import Observer
from kolosal.observe.otel import Traces
from kolosal.schema import FinishReason, TokenDelta, Usage

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def spans_of_one_success_and_one_failure() -> tuple[ReadableSpan, ...]:
    exporter = InMemorySpanExporter()
    traces, observer = Traces(exporter), Observer()
    observer.sinks.append(traces.add)
    REQUEST.set(RequestContext("r", trace_parent=PARENT))
    good = observer.begin("a")
    good.delta(TokenDelta("secret", (1,), usage=Usage(5, 1, 2)))
    good.delta(TokenDelta("", (2,), FinishReason.STOP, Usage(5, 2, 2)))
    REQUEST.set(None)
    observer.begin("a").failed(EngineDied("x"))
    traces.close()
    return exporter.get_finished_spans()


async def test_a_generation_is_a_span_of_the_clients_trace() -> None:
    span, failed = spans_of_one_success_and_one_failure()
    assert span.parent is not None
    assert f"{span.parent.trace_id:x}" == PARENT.split("-")[1]
    assert span.attributes is not None
    assert span.attributes["gen_ai.request.model"] == "a"
    assert span.attributes["gen_ai.usage.input_tokens"] == 5
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert [event.name for event in span.events] == ["first token"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= span.end_time
    assert "secret" not in span.to_json()
    assert failed.parent is None
    assert failed.status.description == "engine_died"


def test_nothing_is_imported_where_no_traces_are_wanted() -> None:
    code = "import kolosal.daemon, kolosal.app, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"opentelemetry.sdk", "prometheus_client"} & set(loaded.stdout.split())
