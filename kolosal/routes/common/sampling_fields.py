"""From the sampling fields of a request to `SamplingParams`, the one place where their bounds, defaults and meaning are."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field, TypeAdapter

from kolosal.http.decode import RequestBody, decode_fields
from kolosal.routes.common.body import OpenBody
from kolosal.sampling import SamplingParams
from kolosal.schema import Priority

_sampling_params: TypeAdapter[SamplingParams] = TypeAdapter(SamplingParams)

_NAMES = frozenset(field.name for field in dataclasses.fields(SamplingParams))


class SamplingFields(OpenBody):
    """What both of OpenAI's APIs take besides a prompt.

    Fields with names of `SamplingParams` have no bounds here but where OpenAI's are narrower: `sampling_params` checks them.
    """

    BOUNDS = SamplingParams

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    priority: Priority | None = None
    """Higher is started first and preempted last."""
    cache_prompt: bool | None = None
    """False takes no KV cells of other requests and leaves none for them."""


def sampling_params(body: RequestBody, own: dict[str, object], prefix: str = "") -> SamplingParams:
    """The body's fields that have names of `SamplingParams`, and the dialect's `own` ones, which win.

    None, as everywhere, is as good as leaving a field out. `prefix` is where the body stands in the request."""
    fields = {name: getattr(body, name) for name in type(body).model_fields if name in _NAMES} | own
    given = {name: value for name, value in fields.items() if value is not None}
    return decode_fields(_sampling_params, given, prefix)
