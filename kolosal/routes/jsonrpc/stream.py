"""`POST /stream`: the next turn as text, piece by piece, without the loop around tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import assert_never

import orjson
from starlette.requests import Request

from kolosal.chat.events import (
    CallBegin,
    CallEnd,
    CallPiece,
    ChatEvent,
    Ended,
    TextPiece,
    ThinkingPiece,
)
from kolosal.chat.plain_json_calls import PlainJsonCallParser
from kolosal.errors import InvalidRequest
from kolosal.http.decode import decode
from kolosal.http.sse import EventStream, data_frame
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of, registry_of
from kolosal.routes.common.stream_answer import stream_answer
from kolosal.routes.common.tool_turn import start_turn, turn_request
from kolosal.routes.jsonrpc.errors import stream_error_frame
from kolosal.routes.jsonrpc.history import to_messages, with_message
from kolosal.routes.jsonrpc.params import CreateMessageParams


@Operation(
    group=Group.SESSIONS,
    scope=Access.INFERENCE,
    body=CreateMessageParams,
    answer='Server-sent events, each `{"delta": "…"}`; after the last one the answer ends.',
    media_type="text/event-stream",
    example={"message": "Hello", "max_new_tokens": 64},
)
async def stream_text(request: Request) -> EventStream:
    """Continue a conversation as a stream of text."""
    params = await decode(request, CreateMessageParams)
    if params.message is None and not params.history:
        raise InvalidRequest("Stream request must contain either 'message' or 'history'")
    options = params.turn_options()
    messages = to_messages(with_message(params.history or (), params.message))
    prompt = turn_request(options, messages)
    generation = Generation(caller_of(request))

    def frames(_: None) -> AsyncGenerator[bytes, None]:
        return _frames(generation.events())

    return await stream_answer(
        request,
        start_turn(generation, registry_of(request), options.model, prompt),
        frames,
        generation.abort,
        stream_error_frame,
        model=options.model,
    )


async def _frames(events: AsyncIterator[tuple[int, ChatEvent]]) -> AsyncGenerator[bytes, None]:
    text = PlainJsonCallParser(None)
    async for _, event in events:
        if delta := _delta(text, event):
            yield data_frame({"delta": delta})


def _delta(text: PlainJsonCallParser, event: ChatEvent) -> str:
    """The text of an event, less thoughts. A call in the model's own format is written as JSON."""
    match event:
        case TextPiece():
            return text.push(event.text)
        case CallBegin():
            return text.push(f'{{"tool": {orjson.dumps(event.name).decode()}, "parameters": ')
        case CallPiece():
            return text.push(event.arguments)
        case CallEnd():
            return text.push("}\n")
        case Ended():
            return text.end()
        case ThinkingPiece():
            return ""
        case _:
            assert_never(event)
