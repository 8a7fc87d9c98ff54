"""What request bodies of several dialects share: the engine they name, and fields that are known but not had here.

Bodies and their parts turn into the types of `kolosal.schema` by methods and functions called `to_…`, for which `path` is where a
part stands in the request. All of them raise `InvalidRequest` for fields that are not valid or do not fit together, and
`UnsupportedFeature` for those that ask for what this daemon does not have; the error names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias, TypeVar

from pydantic import ConfigDict

from kolosal.engines.registry import EngineRegistry
from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.fields import ModelName

T = TypeVar("T")

NeutralValues: TypeAlias = Mapping[str, tuple[object, ...]]
"""Names of fields, and for each the values, besides null, that ask for nothing."""


def requested_model(
    registry: EngineRegistry, model: str | None, missing: str = "Missing required field: model"
) -> str:
    """The engine that a request names, else the default engine. Whether it exists is for `EngineRegistry.acquire` to say.

    Raises:
        InvalidRequest: the request names none, and no default engine is configured; `missing` is what it says then.
    """
    name = model or registry.default_engine
    if not name:
        raise InvalidRequest(missing, param="model")
    return name


def optional_model(registry: EngineRegistry, model: str | None) -> str | None:
    """The same, where the only engine is as good as a default one.

    Raises:
        InvalidRequest: the request names none, there are several, and no default engine is configured.
    """
    if not model and registry.default_engine is None and len(registry.list()) > 1:
        raise InvalidRequest("model is missing: there are several engines and no default one", param="model")
    return model or None


def required(value: T | None, path: str) -> T:
    """A field that may be left out in other cases; `path` is where it stands.

    Raises:
        InvalidRequest: it was left out.
    """
    if value is None:
        raise InvalidRequest(f"Missing required field: {path}", param=path)
    return value


def unsupported(path: str) -> UnsupportedFeature:
    """What is said of a field that asks for what this daemon does not have."""
    return UnsupportedFeature(f"{path} is not supported by this server", param=path)


class OpenBody(RequestBody):
    """A body whose undeclared fields are kept, so that those that ask for what this daemon does not have can be refused.

    An answer that quietly lacks the tools or the format that were asked for is worse than none. Fields that no one knows
    are passed over.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    UNSUPPORTED: ClassVar[NeutralValues] = {}
    """Fields of this body in its official API that this daemon does not have."""

    def refuse_unsupported(self, prefix: str = "") -> None:
        """Look through the undeclared fields; `prefix` is where they stand, with a dot at its end.

        Raises:
            UnsupportedFeature: one of them asks for something that this daemon does not have.
        """
        for name, neutral in self.UNSUPPORTED.items():
            value = (self.model_extra or {}).get(name)
            # equal as JSON is: true is not 1
            asks = not any(type(value) is type(other) and value == other for other in neutral)
            if value is not None and asks:
                raise unsupported(f"{prefix}{name}")


class ModelBody(OpenBody):
    """A body that names the engine it is for."""

    model: ModelName | None = None
    """An `engine_id`; may be left out only where a default engine is configured."""

    def requested_model(self, registry: EngineRegistry) -> str:
        """See the function of that name."""
        return requested_model(registry, self.model, self.MISSING or "Missing required field: model")
