"""What is said of a model, put into requests that do not say it themselves. Pure.

The order is: request, profile, model, what the model's file says of itself, the dialect's own default, which stands in the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kolosal.chat.reasoning import says_how_long
from kolosal.models.models_file import NamedModel
from kolosal.schema import ChatPrompt, GenerateRequest, Message

_SYSTEM_ROLES = ("system", "developer")


def with_defaults(
    request: GenerateRequest, model: NamedModel | None, of_file: Mapping[str, Any]
) -> GenerateRequest:
    """A request with the defaults of its model; `of_file` are those of the model's file.

    One that has them already, or whose dialect does not tell what its client gave, stays as it is.
    """
    given = request.sampling.given
    if given is None:
        return request
    said = of_file if model is None else {**of_file, **model.sampling}
    values = {name: value for name, value in said.items() if name not in given}
    prompt = request.prompt
    if isinstance(prompt, ChatPrompt):
        if says_how_long(
            prompt.template_kwargs
        ):  # in other words than a number of tokens, which would come before them
            values.pop("reasoning_budget", None)
        prompt = with_turns(prompt, model)
    return replace(request, prompt=prompt, sampling=replace(request.sampling, **values, given=None))


def with_turns(prompt: ChatPrompt, model: NamedModel | None) -> ChatPrompt:
    """A chat with the model's system prompt, unless it has one, and with the turns that stand before all of its chats."""
    if model is None or not (model.system or model.messages):
        return prompt
    turns = prompt.messages
    has_system = any(turn.role in _SYSTEM_ROLES for turn in turns)
    first = 1 if turns and turns[0].role in _SYSTEM_ROLES else 0
    system = (Message("system", model.system),) if model.system and not has_system else ()
    before = tuple(Message(turn.role, turn.content) for turn in model.messages)
    return replace(prompt, messages=(*turns[:first], *system, *before, *turns[first:]))
