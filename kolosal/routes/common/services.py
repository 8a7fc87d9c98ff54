"""What routes work with. Put into the application by `create_app`, taken out of the request here, and typed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from kolosal.admission import Admission, Place
from kolosal.config.settings import Settings
from kolosal.conversation.startup import ConversationSettings
from kolosal.engines.registry import EngineRegistry
from kolosal.observe.system import SystemMonitor
from kolosal.paths import ModelRoots, Roots
from kolosal.routes.common.access import key_of
from kolosal.routes.common.file_cache import FileCache, sha256_of
from kolosal.routes.common.model_cards import ModelCard, read_card
from kolosal.schema import MAX_CACHE_SCOPE_CHARS, GenerateRequest
from kolosal.security.auth import Authenticator

if TYPE_CHECKING:  # their packages have routes, which import this
    from kolosal.routes.openai.responses.store import ResponseStore
    from kolosal.routes.websocket.sessions import SessionStore


@dataclass(frozen=True, slots=True)
class Services:
    """Made once per application."""

    settings: Settings
    registry: EngineRegistry
    responses: ResponseStore
    """The responses that the Responses API keeps."""
    sessions: SessionStore
    """The sessions that WebSocket clients have."""
    admission: Admission
    """How many requests there may be."""
    authenticator: Authenticator
    """Knows the API keys."""
    model_roots: ModelRoots
    """Where models may come from."""
    conversation: ConversationSettings = field(default_factory=ConversationSettings)
    """Prompts, sampling and key of the conversation paths."""
    digests: FileCache[str] = field(default_factory=lambda: FileCache(sha256_of, 1024))
    """The digests of model files."""
    cards: FileCache[ModelCard | None] = field(
        default_factory=lambda: FileCache(lambda path: asyncio.to_thread(read_card, path), 64)
    )
    """What model files say of themselves; None of those that are damaged."""
    system: SystemMonitor = field(default_factory=SystemMonitor)
    """What this machine uses."""
    started: float = field(default_factory=time.monotonic)
    """When the daemon started, on the clock that never jumps."""


def services_of(request: HTTPConnection) -> Services:
    """The services of the application that got this request."""
    services: Services = request.app.state.services
    return services


def model_roots_of(request: HTTPConnection) -> Roots:
    """Where models that this request adds may come from."""
    services = services_of(request)
    return services.model_roots.allowed(services.authenticator.needed)


def registry_of(request: HTTPConnection) -> EngineRegistry:
    """The engines of the application that got this request."""
    return services_of(request).registry


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose a request is: all that is counted, shared or kept apart by API key goes through here."""

    services: Services
    key_id: str | None
    """The API key's id; None where no keys are used."""

    def place(self) -> Place:
        """A place among the requests that the daemon holds; to be left in the end.

        Raises:
            Overloaded: there is none.
        """
        return self.services.admission.enter(self.key_id)

    def owned(self, prompt: GenerateRequest) -> GenerateRequest:
        """The prompt as this caller's: keys take turns, and how fast one is answered tells what is in the KV cache."""
        if self.key_id is None:
            return prompt
        scope = prompt.cache_scope
        if not self.services.settings.auth.share_prefix_across_keys:
            scope = f"{self.key_id}/{scope}"[:MAX_CACHE_SCOPE_CHARS]
        return replace(prompt, client=self.key_id, cache_scope=scope)


def caller_of(request: HTTPConnection) -> Caller:
    """Who sent this request."""
    key = key_of(request.scope)
    return Caller(services_of(request), None if key is None else key.id)
