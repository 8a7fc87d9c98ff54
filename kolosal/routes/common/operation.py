"""What an endpoint takes and gives, said beside it; `/openapi.json` and `/docs` are made of it.

    @Operation(
        group=Group.OPENAI, scope=Access.INFERENCE, body=ChatCompletionBody, answer="The chat completion.", example={…}
    )
    async def create_chat_completion(request: Request) -> JsonResponse[ChatCompletion] | EventStream:
        "Continue a conversation."

The endpoint's docstring is its summary and description, the docstring under a field the field's, the `T` of a
`JsonResponse[T]` in its return type the schema of its answer, and an `EventStream` beside it says that the answer can come in pieces.
Nothing is computed
here: an application that nobody asks for its document pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias, TypeVar

from starlette.routing import Route
from starlette.websockets import WebSocket

from kolosal.errors import KolosalError
from kolosal.http.decode import RequestBody

E = TypeVar("E", bound=Callable[..., Any])

Reject: TypeAlias = Callable[[WebSocket, KolosalError], Awaitable[None]]
"""Ends a connection that has not been accepted yet."""

_ATTRIBUTE = "__operation__"


class Group(StrEnum):
    """The group of an endpoint, which is also its place in the document."""

    OPENAI = "OpenAI"
    RESPONSES = "OpenAI Responses"
    ASSISTANTS = "OpenAI Assistants"
    DOCUMENTS = "OpenAI files and vector stores"
    ANTHROPIC = "Anthropic"
    OLLAMA = "Ollama"
    JSON_RPC = "JSON-RPC"
    SESSIONS = "Sessions and streams"
    CONVERSATION = "Conversation engine"
    TEXT = "Tokens and ranking"
    ENGINES = "Engines"
    DOWNLOADS = "Downloads"
    LIBRARY = "Library"
    DAEMON = "Daemon"


GROUP_NOTES: dict[Group, str] = {
    Group.OPENAI: "Chat, completions, embeddings and models, as the OpenAI clients know them.",
    Group.RESPONSES: "The Responses API: conversations that the daemon remembers.",
    Group.ASSISTANTS: "The Assistants API: assistants, threads, messages and runs, which the daemon keeps over restarts.",
    Group.DOCUMENTS: "Files that models read, and vector stores in which they are searched.",
    Group.ANTHROPIC: "The Messages API, as the Anthropic clients know it.",
    Group.OLLAMA: "Generating, chat, embeddings and models, as the Ollama clients know them.",
    Group.JSON_RPC: "Conversations in which the client has tools and carries the history.",
    Group.SESSIONS: "The same as a stream of text, and as sessions over WebSockets.",
    Group.CONVERSATION: "Chats as plain text, whole or as they are written, with answers that are reviewed and revised.",
    Group.TEXT: "What llama-server has besides: ranking, filling in, tokens and templates.",
    Group.ENGINES: "Add, list, look at and remove engines. An engine is one model in a process of its own.",
    Group.DOWNLOADS: "Fetch models: from Hugging Face's hub, Ollama's registry, or any https address.",
    Group.LIBRARY: "The models on this machine's disks, which requests can name.",
    Group.DAEMON: "Health, and this document.",
}
"""A sentence about each group."""


class Access(StrEnum):
    """Whom an endpoint answers, once there are API keys."""

    OPEN = "open"
    """Everybody, also without a key."""
    ANY_KEY = "any key"
    """Every valid key, whatever its scopes."""
    INFERENCE = "inference"
    """Keys with that scope."""
    ADMIN = "admin"
    """Keys with that scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An endpoint's entry in the document; decorates the endpoint and leaves it as it is."""

    group: Group
    scope: Access | None = None
    """Whom it answers. Every endpoint says it; one that does not is for `admin` only, so that none is open by mistake."""
    key_in_query: bool = False
    """Whether the API key may also be the query's `x_api_key`: URLs are written down in many places, so hardly ever."""
    reject: Reject | None = None
    """How a WebSocket's endpoint refuses who has no key; None: with a close code before it is accepted."""
    answer: str
    """A sentence about the answer."""
    body: type[RequestBody] | None = None
    """What the endpoint decodes; None: it reads no body."""
    form: type[RequestBody] | None = None
    """The fields of the form that comes with a file, where the endpoint takes one."""
    more: type | None = None
    """A type whose fields the body may have besides its own."""
    example: Mapping[str, object] | None = None
    """A body that works as it is on an engine named `tiny`."""
    path: Mapping[str, Any] = field(default_factory=dict)
    """Types of the path's parameters; others are strings."""
    query: type | None = None
    """A type whose fields are the query's parameters."""
    status: int = 200
    """The status of success."""
    empty_statuses: Mapping[int, str] = field(default_factory=dict)
    """Other statuses of success, which come without a body, and what they mean."""
    media_type: str = "application/json"
    """What a whole answer is."""
    stream_media_type: str = "text/event-stream"
    """What an answer in pieces is."""

    def __call__(self, endpoint: E) -> E:
        """Attach this to an endpoint."""
        setattr(endpoint, _ATTRIBUTE, self)
        return endpoint


def operation_of(endpoint: object) -> Operation | None:
    """What was attached to an endpoint, if anything was."""
    found = getattr(endpoint, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None


def with_v1(*routes: Route, first: Literal["/v1", ""] = "/v1") -> list[Route]:
    """Each route under `/v1` and without it. Those under `first` come first: in the document the others are their aliases."""
    prefixes = ("/v1", "") if first else ("", "/v1")
    return [
        Route(prefix + route.path, route.endpoint, methods=route.methods)
        for prefix in prefixes
        for route in routes
    ]
