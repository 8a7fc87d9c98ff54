"""What a backend is given of a request, and what is refused for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kolosal.backends.arguments import arguments_of, refuse_unsupported
from kolosal.errors import UnsupportedFeature
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    GenerateRequest,
    Grammar,
    GrammarKind,
    Message,
    Tool,
    ToolMode,
    ToolUse,
)

PLAIN = GenerateRequest(ChatPrompt((Message("user", "a"),)), SamplingParams())
TOOL = Tool("f", "does", {"type": "object"})
ALL_TOOLS = frozenset({"tools"})


def sampled(**fields: object) -> GenerateRequest:
    return replace(PLAIN, sampling=SamplingParams(**fields))  # type: ignore[arg-type]


def chat(**fields: object) -> GenerateRequest:
    prompt = ChatPrompt((Message("user", "a"),), **fields)  # type: ignore[arg-type]
    return replace(PLAIN, prompt=prompt)


def refusal(request: GenerateRequest, *supports: str) -> str | None:
    """The field that is refused, if any."""
    try:
        refuse_unsupported(request, frozenset(supports), "b")
    except UnsupportedFeature as exc:
        return exc.param
    return None


@pytest.mark.parametrize(
    ("request_", "param", "word"),
    [
        (sampled(repeat_penalty=1.1), "repeat_penalty", "repeat_penalty"),
        (sampled(mirostat=2), "mirostat", "mirostat"),
        (sampled(typical_p=0.5), "typical_p", "typical_p"),
        (sampled(logit_bias=((1, 2.0),)), "logit_bias", "logit_bias"),
        (sampled(ignore_eos=True), "ignore_eos", "ignore_eos"),
        (replace(PLAIN, grammar=Grammar(GrammarKind.REGEX, "a", "guided_regex")), "guided_regex", "grammar"),
        (chat(tool_use=ToolUse((TOOL,))), "tools", "tools"),
        (chat(continues=True), "messages", "continued_turns"),
        (chat(template_kwargs={"enable_thinking": False}), "chat_template_kwargs", "template_kwargs"),
    ],
)
def test_what_is_not_supported_is_named(request_: GenerateRequest, param: str, word: str) -> None:
    assert (refusal(request_), refusal(request_, word)) == (param, None)


@pytest.mark.parametrize(
    ("use", "param"),
    [
        (ToolUse((TOOL,), ToolMode.REQUIRED), "tool_choice"),
        (ToolUse((TOOL,), only=("f",)), "tool_choice"),
        (ToolUse((TOOL,), parallel=False), "parallel_tool_calls"),
        (ToolUse((replace(TOOL, strict=True),)), "tools"),
        (ToolUse((replace(TOOL, text=Grammar(GrammarKind.REGEX, "a")),)), "tools"),
        (ToolUse((TOOL,), ToolMode.NONE), None),
    ],
)
def test_what_only_a_grammar_can_enforce_is_refused_without_one(use: ToolUse, param: str | None) -> None:
    assert (refusal(chat(tool_use=use), "tools"), refusal(chat(tool_use=use), "tools", "grammar")) == (
        param,
        None,
    )


@pytest.mark.parametrize(
    "request_",
    [
        PLAIN,
        sampled(temperature=0.1, top_p=0.2, top_k=3, min_p=0.4, seed=5, max_tokens=6, stop=("a",)),
        sampled(typical_p=0.0, top_n_sigma=0.0, dry_base=1.5, mirostat_tau=1.0, repeat_last_n=0),
    ],
)
def test_what_all_can_do_or_changes_nothing_is_not_refused(request_: GenerateRequest) -> None:
    assert refusal(request_) is None


def test_log_probabilities_are_of_no_backend() -> None:
    assert refusal(sampled(logprobs=0), "logprobs") == "logprobs"
    assert refusal(replace(PLAIN, prompt_logprobs=True)) == "logprobs"


def test_arguments_are_what_is_supported() -> None:
    assert arguments_of(sampled(temperature=0.5), frozenset(), seed=None) == {
        "temperature": 0.5, "top_p": 1.0, "top_k": 40, "min_p": 0.05, "seed": None,
    }  # fmt: skip
    found = arguments_of(chat(tool_use=ToolUse((TOOL,))), ALL_TOOLS | {"repeat_penalty"}, seed=7)
    function = {"name": "f", "description": "does", "parameters": {"type": "object"}}
    assert found["tools"] == [{"type": "function", "function": function}]
    assert (found["repeat_penalty"], found["repeat_last_n"], found["seed"]) == (1.0, 64, 7)


def test_choices_of_one_request_have_seeds_of_their_own() -> None:
    seeds = [arguments_of(sampled(seed=-2, seed_offset=n), frozenset(), seed=1)["seed"] for n in range(3)]
    assert len({*seeds}) == 3
    assert arguments_of(sampled(seed=-1), frozenset(), seed=-1)["seed"] is None
