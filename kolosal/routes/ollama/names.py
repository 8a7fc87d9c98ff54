"""Which engine a request means: Ollama's names have a tag, and `latest` is as good as none."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field
from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.parameters import MAX_ENGINE_ID_CHARS
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import InvalidRequest, NotFound
from kolosal.http.decode import B, RequestBody, decode
from kolosal.routes.common.body import requested_model

_LATEST = ":latest"

OllamaModelName: TypeAlias = Annotated[str, Field(max_length=MAX_ENGINE_ID_CHARS + len(_LATEST))]
"""An `engine_id`, perhaps with a tag."""


async def decode_ollama(request: Request, body_type: type[B]) -> B:
    """The body of a request, typed."""
    if not (await request.body()).strip():
        raise InvalidRequest("missing request body")
    return await decode(request, body_type)


def without_latest(name: str) -> str:
    """A name without the tag that says nothing."""
    return name.removesuffix(_LATEST)


def checked_name(registry: EngineRegistry, name: str | None) -> str:
    """The name in a request, else that of the default engine."""
    return requested_model(registry, name, "model is required")


class NamedModelBody(RequestBody):
    """A body about a model."""

    model: OllamaModelName | None = None
    """An `engine_id`, perhaps with `:latest`."""
    name: OllamaModelName | None = None
    """The older name of `model`, which wins."""

    def engine(self, registry: EngineRegistry) -> Engine:
        """The engine that is meant."""
        return find_engine(registry, checked_name(registry, self.model or self.name))


def find_engine(registry: EngineRegistry, name: str) -> Engine:
    """The engine of a name, loaded or not.

    Raises:
        NotFound: there is none.
    """
    for candidate in (name, without_latest(name)):
        for engine in registry.list():
            if engine.engine_id == candidate:
                return engine
    raise NotFound(f"model '{name[:100]}' not found", param="model")
