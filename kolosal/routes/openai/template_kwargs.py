"""Variables that a request sets for the model's chat template."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue

from kolosal.errors import InvalidRequest
from kolosal.schema import MAX_TEMPLATE_KWARGS

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

TemplateKwargs: TypeAlias = Annotated[dict[str, JsonValue], Field(max_length=MAX_TEMPLATE_KWARGS)]

MAX_VALUE_CHARS = 256
"""Characters of a variable that is a string."""

ALLOWED = (
    "clear_thinking",
    "date_string",
    "enable_thinking",
    "preserve_thinking",
    "reasoning_effort",
    "thinking",
    "thinking_budget",
    "tools_in_user_message",
)
"""Names that templates of the field read and that only change how a prompt is written. No other name reaches a template."""


def to_template_kwargs(
    variables: dict[str, JsonValue] | None, effort: ReasoningEffort | None
) -> dict[str, bool | int | float | str]:
    """The variables of a request; the effort `none` asks a template not to let the model think."""
    kwargs: dict[str, bool | int | float | str] = {}
    if effort is not None:
        kwargs["reasoning_effort"] = effort
        if effort == "none":
            kwargs["enable_thinking"] = False
    for name, value in (variables or {}).items():
        if name not in ALLOWED:
            raise InvalidRequest(
                f"chat_template_kwargs may set {', '.join(ALLOWED)}, not {name[:64]!r}",
                param="chat_template_kwargs",
            )
        if not isinstance(value, bool | int | float | str) or len(str(value)) > MAX_VALUE_CHARS:
            raise InvalidRequest(
                f"chat_template_kwargs.{name} must be a boolean, a number or a string of at most {MAX_VALUE_CHARS}"
                " characters",
                param=f"chat_template_kwargs.{name}",
            )
        kwargs[name] = value
    return kwargs
