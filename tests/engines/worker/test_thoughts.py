"""Thoughts that are closed at their bound by a worker: streams, grammars, log-probabilities, speculation, another worker's rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kolosal.chat.events import ChatTurn, whole_turn
from kolosal.chat.formats import ToolFormat
from kolosal.chat.parser import ChatParser
from kolosal.chat.reasoning import EFFORT_BUDGETS, reasoning_budget
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    Grammar,
    GrammarKind,
    TokenDelta,
    Tool,
    ToolMode,
    ToolUse,
    Usage,
)
from tests.engines.worker.helpers import Answer, InProcessWorker, ask_chat, fake_backend

THINK = ("<think>", "</think>")
THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n{# </think> #}"
"""A template that begins a thought."""
SWITCHED = "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>\n{% endif %}{# </think> #}"


def answer(request: GenerateRequest, template: str = THINKS, **parameters: Any) -> Answer:
    worker = InProcessWorker(fake_backend(**{"n_ctx": 400} | parameters), chat_template=template)
    return worker.answer(request)


def read(answer: Answer) -> ChatTurn:
    delta = TokenDelta(answer.text, tuple(answer.tokens), FinishReason.STOP, Usage(1, len(answer.tokens)))
    return whole_turn(ChatParser(ToolFormat.HERMES, THINK).push(delta))


def budgeted(budget: int | None, **sampling: Any) -> GenerateRequest:
    return ask_chat("5:", **{"max_tokens": 40, "reasoning_budget": budget} | sampling)


def with_variables(request: GenerateRequest, **variables: bool | int | float | str) -> GenerateRequest:
    assert isinstance(request.prompt, ChatPrompt)
    return replace(request, prompt=replace(request.prompt, template_kwargs=variables))


@pytest.mark.parametrize("speculation", [True, False])
@pytest.mark.parametrize("logprobs", [None, 2])
def test_the_thought_is_closed_and_the_answer_goes_on(speculation: bool, logprobs: int | None) -> None:
    backend = fake_backend(n_ctx=400)
    worker = InProcessWorker(backend, chat_template=THINKS, speculation=speculation)
    told = worker.answer(budgeted(6, logprobs=logprobs))
    assert told.text == "<think>6 7 8 \n</think>\n\n9 10 11 12 13 14 15 16 "[: len(told.text)]
    assert (told.finish_reason, len(told.tokens)) == (FinishReason.LENGTH, 40)
    assert read(told).thinking == "6 7 8"
    assert logprobs is None or len(told.logprobs) == 40


@pytest.mark.parametrize(
    ("budget", "variables"),
    [
        (-1, {}),
        (None, {}),
        (None, {"reasoning_effort": "max"}),
        (None, {"enable_thinking": True}),
        (-1, {"reasoning_effort": "none"}),
    ],
)
def test_without_a_bound_a_thought_goes_on(budget: int | None, variables: dict[str, Any]) -> None:
    told = answer(with_variables(budgeted(budget), **variables))
    assert "</think>" not in told.text
    assert len(told.tokens) == 40


@pytest.mark.parametrize(
    "request_",
    [
        budgeted(0),
        with_variables(budgeted(None), reasoning_effort="none"),
        with_variables(budgeted(None), enable_thinking=False),
    ],
)
def test_no_thoughts_at_all_are_none_also_where_the_template_begins_one(request_: GenerateRequest) -> None:
    assert read(answer(request_)).thinking == ""
    assert answer(request_).text.startswith("<think>\n</think>\n\n")


def test_a_template_that_can_is_told_not_to_begin_a_thought() -> None:
    assert "think" not in answer(budgeted(0), SWITCHED).text
    assert "think" in answer(budgeted(3), SWITCHED).text


def test_a_model_without_thoughts_has_none_to_bound() -> None:
    told = answer(budgeted(3), "{% for m in messages %}{{ m.content }}{% endfor %}")
    assert told.text == "6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"[: len(told.text)]


def test_max_tokens_counts_thoughts_and_what_closes_them() -> None:
    assert answer(budgeted(6, max_tokens=8)).text == "<think>6 7 8 \n<"
    assert answer(budgeted(30, max_tokens=8)).text == "<think>6 7 8 9 "


def test_an_answer_in_json_begins_after_the_bound() -> None:
    schema = Grammar(
        GrammarKind.JSON_SCHEMA,
        '{"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": false}',
    )
    turn = read(answer(replace(budgeted(6, max_tokens=200), grammar=schema)))
    assert (turn.thinking, turn.text.strip()) == ("6 7 8", '{"a": 1}')


def test_a_call_that_is_required_begins_after_the_bound() -> None:
    use = ToolUse(
        (Tool("f", parameters={"type": "object", "properties": {}, "additionalProperties": False}),),
        ToolMode.REQUIRED,
    )
    request = budgeted(6, max_tokens=200)
    assert isinstance(request.prompt, ChatPrompt)
    told = answer(replace(request, prompt=replace(request.prompt, tool_use=use)), n_ctx=1000)
    turn = whole_turn(
        ChatParser(ToolFormat.GENERIC, THINK, use.tools, forced=True).push(
            TokenDelta(told.text, (), FinishReason.STOP, Usage(1, 1))
        )
    )
    assert len(turn.thinking) <= 6
    assert [call.name for call in turn.calls] == ["f"]


@pytest.mark.parametrize("n_sent", range(0, 40, 3))
def test_another_worker_goes_on_within_the_same_bound(n_sent: int) -> None:
    whole = answer(budgeted(6))
    worker = InProcessWorker(fake_backend(n_ctx=400), chat_template=THINKS)
    request_id = worker.submit(budgeted(6), generated=whole.tokens[:n_sent])
    worker.run()
    assert whole.tokens[:n_sent] + worker.answers[request_id].tokens == whole.tokens


@pytest.mark.parametrize(
    ("given", "variables", "budget"),
    [
        (None, {}, None), (-1, {"reasoning_effort": "low"}, None), (7, {"reasoning_effort": "none"}, 7),
        (None, {"thinking_budget": 9}, 9), (None, {"thinking_budget": -1}, None), (None, {"thinking_budget": True}, None),
        (None, {"thinking": False}, 0), (None, {"reasoning_effort": "xhigh"}, None),
        *((None, {"reasoning_effort": effort, "enable_thinking": effort != "none"}, budget) for effort, budget in EFFORT_BUDGETS.items()),
    ],
)  # fmt: skip
def test_what_a_request_says_of_its_thoughts(
    given: int | None, variables: dict[str, Any], budget: int | None
) -> None:
    assert reasoning_budget(given, variables) == budget
