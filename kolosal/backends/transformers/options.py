"""What `backend_options` may say of an engine over transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from kolosal.engines.parameters import BackendOptions
from kolosal.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersOptions:
    """How a model is loaded."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d{1,2})?)$")] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `xpu` or `mps`; `auto` is the first GPU, where there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """What its numbers are; `auto`: as its files have them."""
    quantization: Literal["4bit"] | None = None
    """`4bit`: weights are cut down to four bits while they are loaded, by bitsandbytes."""
    trust_remote_code: bool = False
    """Whether Python code that lies beside the weights may be run."""


_options: TypeAdapter[TransformersOptions] = TypeAdapter(TransformersOptions)


def options_of(given: BackendOptions) -> TransformersOptions:
    """The options as they were given.

    Raises:
        InvalidRequest: there is no such option, or it has no such value.
    """
    try:
        return _options.validate_json(orjson.dumps(given), strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = f"backend_options.{first['loc'][0]}"
        known = ", ".join(field for field in TransformersOptions.__dataclass_fields__)
        words = {"unexpected_keyword_argument": f"is none of the backend 'transformers', which has {known}"}
        reason = words.get(first["type"], f"is not valid: {first['msg']}, not {str(first['input'])[:60]!r}")
        raise InvalidRequest(f"{name} {reason}", param=name) from exc
