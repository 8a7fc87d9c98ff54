"""What of a request a backend is given as arguments, and what is refused because it cannot do it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from kolosal.errors import UnsupportedFeature
from kolosal.sampling import DEFAULT_SEED, SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, Prompt, TextPrompt, ToolUse

_SEEDS = 2**32 - 1

ALWAYS = ("temperature", "top_p", "top_k", "min_p")
"""What every backend is given: protocols have defaults of their own for these."""

_SEEN_TO = frozenset({"seed", "seed_offset", "max_tokens", "stop", "logprobs", "reasoning_budget"})
"""What is given otherwise, or refused by a word of its own."""

_WITH = {
    "repeat_last_n": "repeat_penalty", "xtc_threshold": "xtc_probability", "dynatemp_exponent": "dynatemp_range",
    "dry_base": "dry_multiplier", "dry_allowed_length": "dry_multiplier", "dry_penalty_last_n": "dry_multiplier",
    "dry_sequence_breakers": "dry_multiplier", "mirostat_tau": "mirostat", "mirostat_eta": "mirostat",
}  # fmt: skip
"""Fields that say how another one works, and change nothing without it."""

_OFF = {"typical_p": (0.0, 1.0), "top_n_sigma": (-1.0, 0.0)}
"""Values that change nothing, where there are several."""

SAMPLING = frozenset(field.name for field in fields(SamplingParams)) - {*ALWAYS, *_SEEN_TO, "ignore_eos"}
"""All further ways to choose tokens."""

FEATURES = {
    "ignore_eos": "ignore_eos",
    "logit_bias": "logit_bias",
    "grammar": "answers that conform to a schema or grammar",
    "tools": "tools",
    "text_prompts": "prompts that are no conversation",
    "continued_turns": "continuing a message of the assistant",
    "template_kwargs": "variables of the chat template",
    "cache_scope": "keeping what was computed",
}
"""What a backend may support besides sampling, and what an error calls it. Each but `text_prompts` is an argument of `inference`:
`grammar` a `kolosal.schema.Grammar` or None, `tools` a list of functions as the OpenAI API has them, `continued_turns` whether the last
turn is to be continued, `template_kwargs` a mapping, `cache_scope` the name within which requests may use what was computed for each other,
or None where this one may not."""


def arguments_of(request: GenerateRequest, supports: frozenset[str], *, seed: int | None) -> dict[str, Any]:
    """The arguments of `inference` that the request itself gives. `seed` is the engine's own, for requests without one."""
    sampling, prompt = request.sampling, request.prompt
    found = {name: getattr(sampling, name) for name in ALWAYS} | {"seed": _seed(sampling, seed)}
    found |= {
        field.name: getattr(sampling, field.name)
        for field in fields(sampling)
        if _WITH.get(field.name, field.name) in supports
    }
    chat = prompt if isinstance(prompt, ChatPrompt) else None
    given = {
        "grammar": request.grammar,
        "tools": [] if chat is None else tool_objects(chat.tool_use),
        "continued_turns": chat is not None and chat.continues,
        "template_kwargs": {} if chat is None else dict(chat.template_kwargs),
        "cache_scope": request.cache_scope if request.use_cache else None,
    }
    return found | {name: value for name, value in given.items() if name in supports}


def refuse_unsupported(request: GenerateRequest, supports: frozenset[str], backend: str) -> None:
    """See that a backend can do what a request asks for.

    Raises:
        UnsupportedFeature: it cannot; the message and `param` name what.
    """
    for param, what in _asked_for(request, supports):
        raise UnsupportedFeature(f"The backend '{backend}' does not support {what}", param=param)


def check_prompt(prompt: Prompt, supports: frozenset[str], backend: str) -> ChatPrompt | TextPrompt:
    """The prompt, where it is of a kind that a backend takes.

    Raises:
        UnsupportedFeature: it is of another.
    """
    match prompt:
        case ChatPrompt():
            return prompt
        case TextPrompt() if "text_prompts" in supports:
            return prompt
        case TextPrompt():
            what = FEATURES["text_prompts"]
        case _:
            what = "prompts of tokens" if prompt.kind == "tokens" else "filling in the middle"
    raise UnsupportedFeature(f"The backend '{backend}' does not support {what}", param="prompt")


def tool_objects(use: ToolUse) -> list[dict[str, Any]]:
    """The tools that may be called, as the OpenAI API has functions."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in use.callable
    ]


def _asked_for(request: GenerateRequest, supports: frozenset[str]) -> Iterator[tuple[str, str]]:
    """What a request asks for and a backend has not: the field's name, and what it is called."""
    sampling, unasked = request.sampling, SamplingParams()
    for field in fields(sampling):
        name, value = field.name, getattr(sampling, field.name)
        skipped = name in _SEEN_TO or name in ALWAYS or name in _WITH or name in supports
        if not skipped and value != getattr(unasked, name) and value not in _OFF.get(name, ()):
            yield name, name
    if sampling.logprobs is not None or request.prompt_logprobs:
        yield "logprobs", "log-probabilities"
    if request.grammar is not None and "grammar" not in supports:
        yield request.grammar.param or "grammar", FEATURES["grammar"]
    if isinstance(request.prompt, ChatPrompt):
        yield from _asked_of_chat(request.prompt, supports)


def _asked_of_chat(prompt: ChatPrompt, supports: frozenset[str]) -> Iterator[tuple[str, str]]:
    use = prompt.tool_use
    if use.callable and "tools" not in supports:
        yield "tools", FEATURES["tools"]
    if use.callable and "grammar" not in supports:
        if use.forced or use.only:
            yield "tool_choice", "a tool_choice that demands calls"
        if not use.parallel:
            yield "parallel_tool_calls", "turns of at most one call"
        if any(tool.text is not None for tool in use.callable):
            yield "tools", "custom tools with a format"
        if any(tool.strict for tool in use.callable):
            yield "tools", "strict tools"
    if prompt.continues and "continued_turns" not in supports:
        yield "messages", FEATURES["continued_turns"]
    if not prompt.add_generation_prompt and not prompt.continues:
        yield "add_generation_prompt", "prompts that ask for no answer"
    if prompt.template_kwargs and "template_kwargs" not in supports:
        yield "chat_template_kwargs", FEATURES["template_kwargs"]


def _seed(sampling: SamplingParams, default: int | None) -> int | None:
    """One seed of a request's choice; None where any will do."""
    for seed in (sampling.seed, default):
        if seed is not None and seed != DEFAULT_SEED:
            return (seed % 2**32 + sampling.seed_offset) % _SEEDS
    return None
