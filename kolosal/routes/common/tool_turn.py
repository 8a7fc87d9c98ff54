"""One turn of a conversation in which a client has tools: what is shown of it, and which calls it makes.

JSON-RPC over HTTP and sessions share this. A turn that only asks for what cannot be asked (a tool nobody offered, a call
that was made before) is generated once more without tools, so that the client gets prose and no call.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

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
from kolosal.chat.plain_json_calls import PlainJsonCall, PlainJsonCallParser
from kolosal.errors import EngineDied, NotFound
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.services import Caller
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, Message, Tool, ToolMode, ToolUse

CallKey = tuple[str, bytes]
"""A call by what it asks: the tool, and its parameters as JSON with sorted keys."""

NO_MODEL = "no_model"
"""Code of the error that there is no engine at all."""

_WITHHELD = "The tools cannot be called any more. Answer the user now, in plain words, from the results that they have given."
"""What the model is told where it must come to an end."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What stays the same over all turns of one request."""

    model: str | None
    tools: tuple[Tool, ...]
    mode: ToolMode
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Call:
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
    calls: tuple[Call, ...]


def call_key(tool: str, parameters: Mapping[str, Any]) -> CallKey:
    """What makes two calls the same."""
    return tool, orjson.dumps(dict(parameters), option=orjson.OPT_SORT_KEYS)


Show = Callable[[str], Awaitable[None]]
"""Takes text that is ready to be shown."""


async def start_leg(
    caller: Caller, model: str | None, prompt: GenerateRequest, request: Request | None = None
) -> Generation:
    """A turn that has its first event, given up where the client of `request` leaves; to be ended with `abort()`.

    Raises:
        KolosalError: it cannot start.
        ClientDisconnect: the client left.
    """
    generation = Generation(caller, request)
    try:
        await generation.start(model, [prompt])
    except NotFound:
        if caller.services.registry.list():
            raise
        raise NotFound("Model pipeline is not available.", code=NO_MODEL) from None
    return generation


async def take_leg(
    caller: Caller,
    asked: Asked,
    messages: tuple[Message, ...],
    made: frozenset[CallKey],
    show: Show,
    *,
    withheld: bool,
) -> ToolTurn:
    """Generate the next turn. `made` are the calls not to be made again; `withheld`: no tool may be called any more.

    Raises:
        KolosalError: it cannot start, or failed.
    """
    reader = ToolTurnReader(asked.tools, made, withheld=withheld)
    await _generate(caller, asked, messages, reader, show)
    calls = () if withheld else reader.calls()
    if reader.tried and not calls and not withheld:
        gap = "\n\n" if reader.text else ""
        if gap:
            await show(gap)
        again = ToolTurnReader(asked.tools, made, withheld=True)
        await _generate(caller, asked, messages, again, show)
        return ToolTurn(reader.text + gap + again.text, ())
    return ToolTurn(reader.text, calls)


async def _generate(
    caller: Caller, asked: Asked, messages: tuple[Message, ...], reader: ToolTurnReader, show: Show
) -> None:
    generation = await start_leg(caller, asked.model, leg_request(asked, messages, withheld=reader.withheld))
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


def leg_request(asked: Asked, messages: tuple[Message, ...], *, withheld: bool) -> GenerateRequest:
    """The next turn, as engines know it. A forced call is forced once: after a result the model may answer."""
    mode = asked.mode
    if withheld and asked.tools:
        mode = ToolMode.NONE
        has_system = bool(messages) and messages[0].role == "system"
        said = f"{messages[0].content}\n\n" if has_system else ""
        messages = (Message("system", said + _WITHHELD), *messages[has_system:])
    elif mode is ToolMode.REQUIRED and messages and messages[-1].role == "tool":
        mode = ToolMode.AUTO
    return GenerateRequest(ChatPrompt(messages, ToolUse(asked.tools, mode)), asked.sampling)


@dataclass(slots=True)
class _Begun:
    """A call in the model's own format."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)
    complete: bool = False

    def parameters(self) -> dict[str, Any] | None:
        """The arguments; None where they are cut off or no object."""
        try:
            value = orjson.loads("".join(self.pieces)) if self.complete else None
        except orjson.JSONDecodeError:
            return None
        return value if isinstance(value, dict) else None


class ToolTurnReader:
    """Reads the events of one turn. What comes after a call is dropped."""

    def __init__(self, tools: Sequence[Tool], made: frozenset[CallKey], *, withheld: bool) -> None:
        self.withheld = withheld
        self._ended = False
        self._tools = {tool.name: tool for tool in tools}
        self._made = made
        self._spoken = PlainJsonCallParser(self._is_spoken_call if tools else None)
        self._begun: list[_Begun] = []
        self._text: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether nothing more is to be read."""
        return self._ended or self._spoken.call is not None

    @property
    def tried(self) -> bool:
        """Whether a call of any kind was begun."""
        return bool(self._begun) or self._spoken.call is not None

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._text)

    def calls(self) -> tuple[Call, ...]:
        """Those that can be carried out and were not made before, each once. To be asked when the turn is complete."""
        found: dict[CallKey, Call] = {}
        for begun in self._begun:
            parameters = begun.parameters()
            if parameters is not None and self._fits(begun.name, parameters):
                call = Call(begun.id, begun.name, parameters)
                found.setdefault(call.key, call)
        spoken = self._spoken.call
        if spoken is not None:
            call = Call(f"call_{secrets.token_hex(12)}", spoken.tool, spoken.parameters)
            found.setdefault(call.key, call)
        return tuple(call for key, call in found.items() if key not in self._made)

    def push(self, event: ChatEvent) -> str:
        """What an event adds to the text that is shown."""
        shown = ""
        match event:
            case TextPiece():
                shown = "" if self._begun else self._spoken.push(event.text)
            case CallBegin():
                shown = "" if self._begun else self._spoken.end()
                self._begun.append(_Begun(event.id, event.name))
            case CallPiece():
                self._begun[event.index].pieces.append(event.arguments)
            case CallEnd():
                self._begun[event.index].complete = True
            case Ended():
                shown = "" if self._begun else self._spoken.end()
                self._ended = True
            case ThinkingPiece():
                pass
            case _:
                assert_never(event)
        if shown:
            self._text.append(shown)
        return shown

    def _is_spoken_call(self, call: PlainJsonCall) -> bool:
        return self._fits(call.tool, call.parameters)

    def _fits(self, name: str, parameters: dict[str, Any]) -> bool:
        """Whether a tool of that name was offered, and has all that it requires."""
        tool = self._tools.get(name)
        if tool is None:
            return False
        required = tool.parameters.get("required", ())
        return not isinstance(required, list | tuple) or all(each in parameters for each in required)
