"""Which engine a request means: Ollama's names have a tag, and `latest` is as good as none."""

from __future__ import annotations

from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.parameters import LATEST
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import InvalidRequest, NotFound
from kolosal.http.decode import B, RequestBody, decode
from kolosal.routes.common.body import requested_model
from kolosal.routes.common.fields import ModelName


async def decode_ollama(request: Request, body_type: type[B]) -> B:
    """The body of a request, typed."""
    if not (await request.body()).strip():
        raise InvalidRequest("missing request body")
    return await decode(request, body_type)


def without_latest(name: str) -> str:
    """A name without the tag that says nothing."""
    return name.removesuffix(LATEST)


def checked_name(registry: EngineRegistry, name: str | None) -> str:
    """The name in a request, else that of the default engine."""
    return requested_model(registry, name, "model is required")


class NamedModelBody(RequestBody):
    """A body about a model."""

    model: ModelName | None = None
    """An `engine_id`, perhaps with `:latest`."""
    name: ModelName | None = None
    """The older name of `model`, which wins."""

    def checked_name(self, registry: EngineRegistry) -> str:
        """The name, whichever field it came in."""
        return checked_name(registry, self.model or self.name)


def find_engine(registry: EngineRegistry, name: str) -> Engine:
    """The engine of a name, loaded or not.

    Raises:
        NotFound: there is none.
    """
    try:
        return registry.get(name)
    except NotFound:
        raise not_found(registry, name) from None


async def resolve_engine(registry: EngineRegistry, name: str) -> Engine:
    """The same; a model of the library becomes one.

    Raises:
        KolosalError: there is none, or the model cannot be loaded.
    """
    try:
        return await registry.resolve(name)
    except NotFound:
        raise not_found(registry, name) from None


def not_found(registry: EngineRegistry, name: str) -> NotFound:
    """What Ollama says of a name that means nothing, and names like it."""
    return NotFound(f"model '{name[:100]}' not found{registry.did_you_mean(name)}", param="model")
