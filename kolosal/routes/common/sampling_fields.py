"""From the sampling fields of a request to `SamplingParams`, the one place where their bounds, defaults and meaning are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, TypeAlias

from pydantic import Field, TypeAdapter

from kolosal.http.decode import RequestBody, decode_fields
from kolosal.routes.common.body import OpenBody
from kolosal.sampling import MAX_INT, MAX_TOKENS_LIMIT, SamplingParams
from kolosal.schema import Priority


@cache
def _sampling_params() -> TypeAdapter[SamplingParams]:
    """Made when first used, as it takes milliseconds."""
    return TypeAdapter(SamplingParams)


UNLIMITED = -1
"""`max_tokens`: as many as there is room for. llama-server's word."""

MaxTokens: TypeAlias = Annotated[int, Field(ge=1, le=MAX_INT)]
"""Tokens to generate at most. More than any window holds is as good as no limit."""

MaxTokensOrAll: TypeAlias = Annotated[int, Field(ge=UNLIMITED, le=MAX_INT)]
"""The same, where `UNLIMITED` is a limit, too."""

_NAMES = frozenset(field.name for field in dataclasses.fields(SamplingParams)) - {"given"}


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


def sampling_params(
    body: RequestBody,
    own: Mapping[str, object],
    defaults: Mapping[str, object] | None = None,
    prefix: str = "",
) -> SamplingParams:
    """The body's fields that have names of `SamplingParams`, and those that the client gave by the dialect's `own` names, which win.

    None, as everywhere, is as good as leaving a field out; then the dialect's `defaults` hold, unless the model has its own.
    `prefix` is where the body stands in the request."""
    named = {name: getattr(body, name) for name in type(body).model_fields if name in _NAMES}
    given = {name: value for name, value in (named | dict(own)).items() if value is not None}
    fields = {**(defaults or {}), **given}
    max_tokens = fields.get("max_tokens")
    if isinstance(max_tokens, int):
        fields["max_tokens"] = None if max_tokens == UNLIMITED else min(max_tokens, MAX_TOKENS_LIMIT)
    known = {name: value for name, value in fields.items() if value is not None}
    return replace(decode_fields(_sampling_params(), known, prefix), given=tuple(given))
