"""How long a model may think: what a request says of it, in the words of several protocols. Pure."""

from __future__ import annotations

from collections.abc import Mapping

EFFORT_BUDGETS: Mapping[str, int] = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576}
"""Tokens of thoughts by effort, where no number is given; those that are not here have no bound. The numbers are Google's, in its
OpenAI-compatible API, but for `minimal`."""


def says_how_long(variables: Mapping[str, object]) -> bool:
    """Whether the variables for the chat template bound thoughts, or say that there is no bound."""
    off = False in (variables.get("enable_thinking"), variables.get("thinking"))
    return off or "thinking_budget" in variables or "reasoning_effort" in variables


def reasoning_budget(given: int | None, variables: Mapping[str, bool | int | float | str]) -> int | None:
    """Tokens that thoughts may have: `given` where there is one, else what the variables for the chat template say; None is no bound.

    Variables: `thinking_budget`, `enable_thinking` or `thinking` that are false, `reasoning_effort`.
    """
    if given is not None:
        return given if given >= 0 else None
    budget = variables.get("thinking_budget")
    if isinstance(budget, int) and not isinstance(budget, bool):
        return budget if budget >= 0 else None
    if False in (variables.get("enable_thinking"), variables.get("thinking")):
        return 0
    return EFFORT_BUDGETS.get(str(variables.get("reasoning_effort")))
