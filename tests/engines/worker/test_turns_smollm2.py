"""Tool calls of a real model that knows no tools: always valid, at temperature 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kolosal.chat.events import whole_turn
from kolosal.chat.formats import ToolFormat
from kolosal.chat.parser import ChatParser
from kolosal.engines.worker.constraint import ConstraintCompiler
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    Grammar,
    GrammarKind,
    Message,
    TokenDelta,
    Tool,
    ToolCall,
    ToolMode,
    ToolUse,
)
from tests.chat.vocabulary import may_follow
from tests.engines.worker.helpers import InProcessWorker, engine_config

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings(
        "ignore:llama_token_get_attr is deprecated:DeprecationWarning"
    ),  # llguidance's
]

WEATHER = Tool(
    "get_weather",
    "The weather of a city in the next days",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 24},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city", "unit", "days"],
        "additionalProperties": False,
    },
)
TIME = Tool(
    "get_time",
    "The time in a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 24}, "zones": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
        "required": ["city", "zones"],
        "additionalProperties": False,
    },
)  # fmt: skip
TOOLS = (WEATHER, TIME)
QUESTION = (Message("system", "Be brief."), Message("user", "What is the weather in Paris?"))


@pytest.fixture(scope="module")
def backend(smollm2: Path) -> Iterator[LlamaCppBackend]:
    backend = LlamaCppBackend(
        engine_config(str(smollm2), n_ctx=1024, n_parallel=2, n_threads=1), lambda _: None
    )
    yield backend
    backend.close()


def turn(
    backend: LlamaCppBackend, use: ToolUse, *, seed: int, grammar: Grammar | None = None
) -> list[ToolCall]:
    """The calls of a turn that made at least one."""
    sampling = SamplingParams(temperature=1.0, seed=seed, max_tokens=200)
    answer = InProcessWorker(backend).answer(GenerateRequest(ChatPrompt(QUESTION, use), sampling, grammar))
    assert answer.error is None
    parser = ChatParser(ToolFormat.GENERIC, None, use.callable)
    whole = whole_turn(
        parser.push(TokenDelta(answer.text, finish_reason=answer.finish_reason, usage=answer.usage))
    )
    assert (whole.text, whole.finish_reason) == ("", FinishReason.TOOL_CALLS)
    return list(whole.calls)


def check(call: ToolCall) -> None:
    """The arguments fit the tool's schema."""
    arguments = json.loads(call.arguments)
    assert isinstance(arguments["city"], str)
    assert len(arguments["city"]) <= 24
    if call.name == "get_weather":
        assert set(arguments) == {"city", "unit", "days"}
        assert arguments["unit"] in ("celsius", "fahrenheit")
        assert 1 <= arguments["days"] <= 9
    else:
        assert call.name == "get_time"
        assert set(arguments) == {"city", "zones"}
        assert all(isinstance(zone, bool) for zone in arguments["zones"])
        assert len(arguments["zones"]) <= 2


@pytest.mark.parametrize("seed", range(10))
def test_required_calls_are_valid(backend: LlamaCppBackend, seed: int) -> None:
    calls = turn(backend, ToolUse(TOOLS, ToolMode.REQUIRED, parallel=False), seed=seed)

    assert len(calls) == 1
    check(calls[0])


@pytest.mark.parametrize("seed", range(10))
def test_named_calls_are_valid(backend: LlamaCppBackend, seed: int) -> None:
    use = ToolUse(TOOLS, ToolMode.REQUIRED, only=("get_time",), parallel=False)
    calls = turn(backend, use, seed=seed)

    assert [call.name for call in calls] == ["get_time"]
    check(calls[0])


def test_model_that_may_answer_may_end_its_turn_by_every_token_that_ends_one(
    backend: LlamaCppBackend,
) -> None:
    compiler = ConstraintCompiler(backend.constraint_tokenizer)
    constraint = compiler.compile(Grammar(GrammarKind.REGEX, "a*"))
    ends = [token for token in range(backend.info.n_vocab) if backend.is_end(token)]

    assert ends
    assert all(may_follow(constraint, token) for token in ends)
