"""ResponseWriter: the events of a stream, byte by byte, and the same response whichever way it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.errors import EngineDied, GenerationFailed, KolosalError, QueueFull
from kolosal.http.sse import event_frame
from kolosal.routes.openai.responses.body import ResponseBody
from kolosal.routes.openai.responses.encode import ResponseObject, response_head
from kolosal.routes.openai.responses.events import ResponseEvent, ResponseWriter
from kolosal.routes.openai.responses.items import new_id
from kolosal.schema import FinishReason, TokenLogprob, TokenLogprobs, Usage
from tests.routes.openai.responses.asking import GOLDEN, HELLO, WEATHER, events_of, settled

official: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

USAGE = Usage(7, 5, 3)
STOP = Ended(FinishReason.STOP, USAGE)
CALLS = Ended(FinishReason.TOOL_CALLS, USAGE)
LENGTH = Ended(FinishReason.LENGTH, USAGE)


def call(index: int, *pieces: str) -> list[ChatEvent]:
    begin = CallBegin(index, f"call_{index}", "weather")
    return [begin, *(CallPiece(index, piece) for piece in pieces), CallEnd(index)]


def writer_of(**fields: object) -> ResponseWriter:
    body = ResponseBody.model_validate_json(orjson.dumps(HELLO | fields))
    return ResponseWriter(response_head(body, new_id("resp"), 1, "fake"), lambda: 2.5)


def written(writer: ResponseWriter, *events: ChatEvent) -> list[ResponseEvent]:
    made = writer.begin()
    for event in events:
        made += writer.push(event)
    return made


def as_json(response: ResponseObject) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(orjson.dumps(response))
    return read


def text_of(events: list[ResponseEvent]) -> str:
    return settled(b"".join(event_frame(event) for event in events).decode())


def agrees_with(name: str, events: list[ResponseEvent]) -> None:
    """Compare with a golden file, after the official types have taken each event."""
    for event in events:
        official.validate_python(orjson.loads(orjson.dumps(event)), strict=True)
    path: Path = GOLDEN / f"{name}.txt"
    assert text_of(events) == path.read_text(encoding="utf-8")


def test_text() -> None:
    agrees_with("text", written(writer_of(), TextPiece("Hel"), TextPiece(""), TextPiece("lo é"), STOP))


def test_thoughts_text_and_calls() -> None:
    events: list[ChatEvent] = [
        ThinkingPiece("Hm"), ThinkingPiece("…"), TextPiece("Let me see."),
        *call(0, '{"city": ', '"Paris"}'), *call(1, '{"city": "Rome"}'), CALLS,
    ]  # fmt: skip
    agrees_with("tools", written(writer_of(tools=[WEATHER]), *events))


def test_an_answer_that_is_cut_off() -> None:
    agrees_with("incomplete", written(writer_of(max_output_tokens=5), TextPiece("Hel"), LENGTH))


def test_a_call_that_is_cut_off() -> None:
    events: list[ChatEvent] = [CallBegin(0, "call_0", "weather"), CallPiece(0, '{"ci'), LENGTH]
    agrees_with("incomplete_call", written(writer_of(tools=[WEATHER]), *events))


def test_a_failure() -> None:
    writer = writer_of()
    events = [*written(writer, TextPiece("Hel")), *writer.fail(EngineDied("The engine stopped"))]
    agrees_with("failed", events)
    assert writer.status == "failed"


def test_a_response_that_is_cancelled() -> None:
    writer = writer_of()
    agrees_with("cancelled", [*written(writer, ThinkingPiece("Hm")), *writer.cancel()])
    assert writer.status == "cancelled"


def test_logprobs_come_with_the_text_they_are_part_of() -> None:
    first = TokenLogprobs(TokenLogprob(1, "\xc3", -1.0))
    second = TokenLogprobs(TokenLogprob(2, "\xa9", -0.5), (TokenLogprob(3, "x", -2.0),))
    events: list[ChatEvent] = [
        TextPiece("", (first,)),
        TextPiece("é", (second,)),
        TextPiece("", (first,)),
        STOP,
    ]
    agrees_with("logprobs", written(writer_of(include=["message.output_text.logprobs"]), *events))


def test_tokens_of_thoughts_and_calls_are_none_of_the_message() -> None:
    own, other = (TokenLogprobs(TokenLogprob(n, "x", -1.0)) for n in (1, 2))
    writer = writer_of()
    written(
        writer, TextPiece("", (other,)), ThinkingPiece("Hm"), TextPiece("", (own,)), TextPiece("Hi"),
        TextPiece("", (other,)), *call(0, "{}"), CALLS,
    )  # fmt: skip
    _, message, _ = as_json(writer.response())["output"]
    assert len(message["content"][0]["logprobs"]) == 1


def test_a_call_that_nobody_ended_is_incomplete() -> None:
    writer = writer_of()
    written(writer, CallBegin(0, "call_0", "weather"), CallPiece(0, "{"), TextPiece("Sorry"), STOP)
    response = as_json(writer.response())
    assert [(item["type"], item["status"]) for item in response["output"]] == [
        ("function_call", "incomplete"),
        ("message", "completed"),
    ]


def test_the_tokens_of_thoughts_are_counted() -> None:
    writer = writer_of()
    written(writer, ThinkingPiece("Hm"), TextPiece("Hi"), Ended(FinishReason.STOP, USAGE, thinking_tokens=2))
    assert as_json(writer.response())["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QueueFull("full"), "rate_limit_exceeded"),
        (GenerationFailed("no"), "server_error"),
    ],
)
def test_an_error_has_an_official_code(error: KolosalError, code: str) -> None:
    [failed] = writer_of().fail(error)
    assert failed["response"]["error"] == {"code": code, "message": error.message}


pieces = st.one_of(
    st.builds(TextPiece, st.text(max_size=3)), st.builds(ThinkingPiece, st.text(max_size=3)), st.just("call")
)


@given(st.lists(pieces, max_size=8), st.sampled_from([STOP, LENGTH]))
def test_a_stream_adds_up_to_its_last_event(parts: list[ChatEvent | str], end: Ended) -> None:
    """Whoever adds up the deltas has what `done` and the final response say; positions count from 0."""
    events: list[ChatEvent] = []
    calls = 0
    for part in parts:
        if isinstance(part, str):
            events += call(calls, "{", "}")
            calls += 1
        else:
            events.append(part)
    frames = b"".join(event_frame(event) for event in written(writer_of(), *events, end))
    stream = events_of(frames.decode())
    sums: dict[int, str] = {}
    for event in stream:
        if event["type"].endswith(".delta"):
            sums[event["output_index"]] = sums.get(event["output_index"], "") + event["delta"]
    done = [event for event in stream if event["type"] == "response.output_item.done"]
    final = stream[-1]["response"]
    assert [event["output_index"] for event in done] == list(range(len(done)))
    assert [event["item"] for event in done] == final["output"]
    assert len(final["output"]) >= 1
    for position, item in enumerate(final["output"]):
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert sums.get(position, "") == text


def test_a_response_that_grows_can_be_read() -> None:
    writer = writer_of()
    written(writer, ThinkingPiece("Hm"), TextPiece("Hel"))
    response = as_json(writer.response())
    assert (response["status"], response["usage"]) == ("in_progress", None)
    assert [item["status"] for item in response["output"]] == ["completed", "in_progress"]
    assert response["output"][1]["content"][0]["text"] == "Hel"
