"""What routes work with. Put into the application by `create_app`, taken out of the request here, and typed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from kolosal.admission import Admission, Place
from kolosal.auth import Authenticator
from kolosal.conversation.settings import ConversationSettings
from kolosal.engines.registry import EngineRegistry
from kolosal.http.middleware import key_id
from kolosal.observe.system import SystemMonitor
from kolosal.paths import ModelRoots, Roots
from kolosal.routes.digests import FileDigests

if TYPE_CHECKING:  # their packages have routes, which import this
    from kolosal.routes.openai.responses.store import ResponseStore
    from kolosal.routes.websocket.sessions import SessionStore


@dataclass(frozen=True, slots=True)
class Services:
    """Made once per application."""

    registry: EngineRegistry
    responses: ResponseStore
    """The responses that the Responses API keeps."""
    sessions: SessionStore
    """The sessions that WebSocket clients have."""
    max_iterations: int
    """Times that a client of `/rpc` may send results of tools back."""
    authenticator: Authenticator
    """Knows the API keys."""
    model_roots: ModelRoots
    """Where models may come from."""
    share_prefix_across_keys: bool = False
    """Whether requests of different keys may share KV cells."""
    conversation: ConversationSettings = field(default_factory=ConversationSettings)
    """Prompts, sampling and key of the conversation paths."""
    digests: FileDigests = field(default_factory=FileDigests)
    """The digests of model files."""
    admission: Admission = field(default_factory=Admission)
    """How many requests there may be."""
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
    return services.model_roots.now(services.authenticator.needed)


def registry_of(request: HTTPConnection) -> EngineRegistry:
    """The engines of the application that got this request."""
    return services_of(request).registry


def place_of(request: HTTPConnection) -> Place:
    """A place for this request among those that the daemon holds; to be left in the end.

    Raises:
        Overloaded: there is none.
    """
    return services_of(request).admission.enter(key_id(request.scope))
