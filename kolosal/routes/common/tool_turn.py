"""One turn of a conversation in which a client has tools: what is shown of it, and which calls it makes.

JSON-RPC over HTTP and sessions share this. A turn that only calls what cannot be called (a tool nobody offered, or a call
that was made before) is generated once more without tools, so that the client gets prose and no call.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from kolosal.chat.events import (
    CallBegin,
    CallEnd,
    CallKey,
    CallPiece,
    ChatEvent,
    Ended,
    TextPiece,
    ThinkingPiece,
    call_key,
    parsed_arguments,
)
from kolosal.chat.plain_json_calls import PlainJsonCallParser
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import EngineDied, NotFound
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.services import Caller
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, Message, Tool, ToolMode, ToolUse

NO_MODEL = "no_model"
"""Code of the error that there is no engine at all."""

_TOOLS_DISABLED = "The tools cannot be called any more. Answer the user now, in plain words, from the results that they have given."
"""What the model is told where it must come to an end."""

Show = Callable[[str], Awaitable[None]]
"""Takes text that is ready to be shown."""


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What stays the same over all turns of one request."""

    model: str | None
    tools: tuple[Tool, ...]
    mode: ToolMode
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class ClientToolCall:
    """A call that the client is to carry out."""

    id: str
    tool: str
    parameters: dict[str, Any]

    @property
    def key(self) -> CallKey:
        """What makes two calls the same."""
        return call_key(self.tool, self.parameters)


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """One turn of the model."""

    text: str
    """All that was shown."""
    calls: tuple[ClientToolCall, ...]


def turn_request(
    options: TurnOptions, messages: tuple[Message, ...], *, tools_disabled: bool = False
) -> GenerateRequest:
    """The next turn, as engines know it. A forced call is forced once: after a result the model may answer."""
    mode = options.mode
    if tools_disabled and options.tools:
        mode = ToolMode.NONE
        has_system = bool(messages) and messages[0].role == "system"
        said = f"{messages[0].content}\n\n" if has_system else ""
        messages = (Message("system", said + _TOOLS_DISABLED), *messages[has_system:])
    elif mode is ToolMode.REQUIRED and messages and messages[-1].role == "tool":
        mode = ToolMode.AUTO
    return GenerateRequest(ChatPrompt(messages, ToolUse(options.tools, mode)), options.sampling)


async def start_turn(
    generation: Generation, registry: EngineRegistry, model: str | None, prompt: GenerateRequest
) -> None:
    """Start a turn and wait for its first event; to be ended with `abort()`."""
    try:
        await generation.start(model, [prompt])
    except NotFound:
        if registry.list():
            raise
        raise NotFound("Model pipeline is not available.", code=NO_MODEL) from None


async def take_turn(
    caller: Caller,
    options: TurnOptions,
    messages: tuple[Message, ...],
    earlier_calls: frozenset[CallKey],
    show: Show,
    *,
    tools_disabled: bool,
) -> ToolTurn:
    """Generate the next turn. None of `earlier_calls` is made again; with `tools_disabled` no tool is called any more."""
    reader = ToolTurnReader(options.tools, earlier_calls)
    await _read_turn(caller, options, messages, reader, show, tools_disabled=tools_disabled)
    calls = () if tools_disabled else reader.calls()
    if not reader.called or calls or tools_disabled:
        return ToolTurn(reader.text, calls)
    gap = "\n\n" if reader.text else ""
    if gap:
        await show(gap)
    again = ToolTurnReader(options.tools, earlier_calls)
    await _read_turn(caller, options, messages, again, show, tools_disabled=True)
    return ToolTurn(reader.text + gap + again.text, ())


async def _read_turn(
    caller: Caller,
    options: TurnOptions,
    messages: tuple[Message, ...],
    reader: ToolTurnReader,
    show: Show,
    *,
    tools_disabled: bool,
) -> None:
    request = turn_request(options, messages, tools_disabled=tools_disabled)
    generation = Generation(caller)
    await start_turn(generation, caller.services.registry, options.model, request)
    try:
        async for _, event in generation.events():
            if text := reader.push(event):
                await show(text)
            if reader.complete:
                generation.abort()  # what would follow a call is dropped anyway; the events end with this
    finally:
        generation.abort()
    if not reader.complete:
        raise EngineDied("The engine was removed while it answered")


@dataclass(slots=True)
class _NativeCall:
    """A call in the format of the model's template, as it comes."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)
    complete: bool = False

    def parameters(self) -> dict[str, Any] | None:
        """The arguments; None where they are cut off or no object."""
        return parsed_arguments("".join(self.pieces)) if self.complete else None


class ToolTurnReader:
    """Reads the events of one turn. What comes after a call is dropped."""

    def __init__(self, tools: Sequence[Tool], earlier_calls: frozenset[CallKey]) -> None:
        self._ended = False
        self._tools = {tool.name: tool for tool in tools}
        self._earlier_calls = earlier_calls
        self._plain_json = PlainJsonCallParser(
            (lambda call: self._fits(call.tool, call.parameters)) if tools else None
        )
        self._native_calls: list[_NativeCall] = []
        self._text: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether nothing more is to be read."""
        return self._ended or self._plain_json.call is not None

    @property
    def called(self) -> bool:
        """Whether a call of any kind was begun."""
        return bool(self._native_calls) or self._plain_json.call is not None

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._text)

    def calls(self) -> tuple[ClientToolCall, ...]:
        """Those that can be carried out and were not made before, each once. To be asked when the turn is complete."""
        found: dict[CallKey, ClientToolCall] = {}
        for native in self._native_calls:
            parameters = native.parameters()
            if parameters is not None and self._fits(native.name, parameters):
                call = ClientToolCall(native.id, native.name, parameters)
                found.setdefault(call.key, call)
        plain = self._plain_json.call
        if plain is not None:
            call = ClientToolCall(f"call_{secrets.token_hex(12)}", plain.tool, plain.parameters)
            found.setdefault(call.key, call)
        return tuple(call for key, call in found.items() if key not in self._earlier_calls)

    def push(self, event: ChatEvent) -> str:
        """What an event adds to the text that is shown."""
        shown = ""
        match event:
            case TextPiece():
                shown = "" if self._native_calls else self._plain_json.push(event.text)
            case CallBegin():
                shown = "" if self._native_calls else self._plain_json.end()
                self._native_calls.append(_NativeCall(event.id, event.name))
            case CallPiece():
                self._native_calls[event.index].pieces.append(event.arguments)
            case CallEnd():
                self._native_calls[event.index].complete = True
            case Ended():
                shown = "" if self._native_calls else self._plain_json.end()
                self._ended = True
            case ThinkingPiece():
                pass
            case _:
                assert_never(event)
        if shown:
            self._text.append(shown)
        return shown

    def _fits(self, name: str, parameters: dict[str, Any]) -> bool:
        """Whether a tool of that name was offered, and has all that it requires."""
        tool = self._tools.get(name)
        if tool is None:
            return False
        required = tool.parameters.get("required", ())
        return not isinstance(required, list | tuple) or all(each in parameters for each in required)
