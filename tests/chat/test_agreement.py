"""Grammar and parser agree: whatever a turn may look like is read as calls that are valid."""

from __future__ import annotations

import json
import random

import pytest

from kolosal.chat.events import whole_turn
from kolosal.chat.formats import HARMONY_MARKERS, HARMONY_THINKING, SHAPES, ToolFormat
from kolosal.chat.grammar import TurnFacts
from kolosal.chat.parser import ChatParser
from kolosal.engines.worker.constraint import ConstraintCompiler, WantedTurn
from kolosal.schema import FinishReason, TokenDelta, Tool, ToolMode, ToolUse, Usage
from tests.chat.vocabulary import END, Vocabulary, may_end, options

GET = Tool(
    "get",
    parameters={
        "type": "object",
        "properties": {
            "text": {"type": "string", "maxLength": 6},
            "list": {
                "type": "array",
                "items": {"type": "integer", "minimum": -5, "maximum": 50},
                "maxItems": 2,
            },
            "deep": {
                "type": "object",
                "properties": {"on": {"type": "boolean"}},
                "additionalProperties": False,
            },
        },
        "required": ["text", "deep"],
        "additionalProperties": False,
    },
)
GET_ALL = Tool("get_all", parameters={"type": "object", "properties": {"kind": {"enum": ["é", "<b>", '"']}}, "required": ["kind"], "additionalProperties": False})  # fmt: skip
TOOLS = (GET, GET_ALL)
TEMPTING = ('"', "}", "]", "\\", "{", "<", "\n", " ", ";", "é")


def walk(
    compiler: ConstraintCompiler, facts: TurnFacts, vocabulary: Vocabulary, *, front: str, seed: int
) -> str:
    """A turn that is allowed, made of random tokens with a liking for those that break parsers."""
    choose = random.Random(seed)  # noqa: S311 - no secret
    constraint = compiler.compile(WantedTurn(ToolUse(TOOLS, ToolMode.REQUIRED), None, facts))
    tempting = {byte for text in TEMPTING for byte in text.encode()} | set(vocabulary.markers.values())
    written = bytearray(front.encode())
    for token in vocabulary(front):
        constraint.accept(token)
    for _ in range(4000):
        if may_end(constraint) and (constraint.finished or choose.random() < 0.5):
            return written.decode()
        allowed = [token for token in options(constraint) if token != END]
        liked = [token for token in allowed if token in tempting]
        token = choose.choice(liked if liked and choose.random() < 0.6 else allowed)
        constraint.accept(token)
        written += vocabulary.tokens[token]
    raise AssertionError("a turn without an end")


def check(arguments: dict[str, object], name: str) -> None:
    if name == "get_all":
        assert set(arguments) == {"kind"}
        assert arguments["kind"] in ("é", "<b>", '"')
        return
    assert {"text", "deep"} <= set(arguments) <= {"text", "list", "deep"}
    assert isinstance(arguments["text"], str)
    assert isinstance(arguments["deep"], dict)


@pytest.mark.parametrize("as_tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("tool_format", list(ToolFormat))
def test_every_turn_that_is_allowed_is_read_as_valid_calls(tool_format: ToolFormat, as_tokens: bool) -> None:
    markers = SHAPES[tool_format].markers if tool_format in SHAPES else HARMONY_MARKERS
    vocabulary = Vocabulary(*markers) if as_tokens else Vocabulary()
    tags = HARMONY_THINKING if tool_format is ToolFormat.GPT_OSS else None
    front = (
        "<|channel|>commentary" if tool_format is ToolFormat.GPT_OSS else ""
    )  # no thoughts: they are anything
    compiler = ConstraintCompiler(vocabulary.tokenizer)
    for seed in range(8):
        written = walk(compiler, TurnFacts(tool_format, tags), vocabulary, front=front, seed=seed)
        parser = ChatParser(tool_format, tags, TOOLS)
        delta = TokenDelta(written, finish_reason=FinishReason.STOP, usage=Usage(1, 1))
        turn = whole_turn(parser.push(delta))

        assert (turn.text, turn.finish_reason) == ("", FinishReason.TOOL_CALLS), written
        for call in turn.calls:
            check(json.loads(call.arguments), call.name)
