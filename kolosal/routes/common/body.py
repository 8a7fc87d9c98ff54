"""What request bodies of several dialects share: the engine they name, and fields that are known but not had here.

Bodies and their parts turn into the types of `kolosal.schema` by methods and functions called `to_…`, for which `path` is where a
part stands in the request. All of them raise `InvalidRequest` for fields that are not valid or do not fit together, and
`UnsupportedFeature` for those that ask for what this daemon does not have; the error names the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, TypeAlias, TypeVar

from pydantic import ConfigDict

from kolosal.engines.registry import EngineRegistry
from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.observe.context import note_model
from kolosal.routes.common.fields import ModelName

T = TypeVar("T")

NeutralValues: TypeAlias = Mapping[str, tuple[object, ...]]
"""Names of fields, and for each the values, besides null, that ask for nothing."""


def requested_model(
    registry: EngineRegistry, model: str | None, missing: str = "Missing required field: model"
) -> str:
    """The engine that a request names, else the default engine, else the only one. Whether it exists is for `EngineRegistry.acquire`
    to say.

    Raises:
        InvalidRequest: the request names none, and it is not clear which is meant; `missing` is what it says then.
    """
    name = model or registry.default_engine or registry.only_engine
    if not name:
        raise InvalidRequest(missing, param="model")
    note_model(name)
    return name


def optional_model(registry: EngineRegistry, model: str | None) -> str | None:
    """The same for paths of which llama-server has one model; None where there is no engine at all, of which `EngineRegistry.acquire`
    tells.

    Raises:
        InvalidRequest: the request names none, and it is not clear which is meant.
    """
    missing = "model is missing: there are several engines and no default one"
    return requested_model(registry, model, missing) if model or registry.list() else None


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


_CONSTRAINT = re.compile(
    r"(guided|structured|structural|constrain\w*|grammar|regex|json|schema|ebnf|bnf|gbnf|lark|choices?|format"
    r"|(response|output|text)_(format|schema|config|mime_type))(_|$)"
)
"""Names of fields that ask for an answer of some form, whoever has them."""


class OpenBody(RequestBody):
    """A body whose undeclared fields are kept, so that those that ask for what this daemon does not have can be refused.

    An answer that quietly lacks the tools or the format that were asked for is worse than none. Fields that no one knows
    are passed over, unless their names say that they ask for an answer of some form.
    """

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="allow")

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
        for name, value in (self.model_extra or {}).items():
            if value and name not in self.UNSUPPORTED and _CONSTRAINT.match(name):
                raise unsupported(f"{prefix}{name[:60]}")


class ModelBody(OpenBody):
    """A body that names the engine it is for."""

    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the only one, or the only one that is loaded."""

    def requested_model(self, registry: EngineRegistry) -> str:
        """See the function of that name."""
        return requested_model(registry, self.model, self.MISSING or "Missing required field: model")
