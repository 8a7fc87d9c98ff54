"""Tools that take text in a format of their own: what a call may have for input, in every way that models write calls."""

from __future__ import annotations

import json

import pytest

from kolosal.chat.events import whole_turn
from kolosal.chat.formats import SHAPES, ToolFormat
from kolosal.chat.grammar import TurnFacts
from kolosal.chat.parser import ChatParser
from kolosal.chat.text_lark import MAX_DEPTH, text_source
from kolosal.chat.text_regex import AS_IS, IN_JSON, UnreadableFormat
from kolosal.engines.worker.constraint import ConstraintCompiler, WantedTurn
from kolosal.errors import InvalidRequest
from kolosal.schema import FinishReason, Grammar, GrammarKind, TokenDelta, Tool, ToolMode, ToolUse, Usage
from tests.chat.test_grammar import vocabulary
from tests.chat.vocabulary import allowed, may_end

PARAMETERS = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}

LINES = """
start: first line+ "end"   // a comment
first: "begin \\"it\\"" LF
?line: ("+" | "-") /(.*)/ LF -> changed
%import common.LF
"""
LINES_TEXT = 'begin "it"\n+a "quoted" back\\slash\n-\ttab é\nend'

SUMS = """
start: sum
sum: factor (PLUS factor)*
factor: NUMBER | "(" sum ")" | ESCAPED_STRING | "a".."f" | "Max"i
PLUS: "+"
%import common (NUMBER, ESCAPED_STRING)
%import common.WS_INLINE -> BLANK
%ignore BLANK
"""


def text_tool(source: str, kind: GrammarKind = GrammarKind.LARK) -> Tool:
    return Tool("patch", "", PARAMETERS, text=Grammar(kind, source, "tools.0.format.definition"))


def written(tool_format: ToolFormat, text: str) -> str:
    """The call as a model writes it."""
    arguments = json.dumps({"input": text}, ensure_ascii=False)
    shape = SHAPES.get(tool_format)
    if shape is None:
        return f"<|channel|>commentary to=functions.patch <|constrain|>json<|message|>{arguments}"
    name = '"patch"' if shape.quoted else "patch"
    if shape.tagged:
        arguments = f"<parameter=input>\n{text}\n</parameter>\n</function>"
    elif shape.quote:
        arguments = f"{{input:{shape.quote}{text}{shape.quote}}}"
    return shape.opens + shape.before + name + shape.between + arguments + shape.after + shape.closes


def is_allowed(tool: Tool, tool_format: ToolFormat, text: str) -> bool:
    """Whether a forced call may have this input."""
    tokens = vocabulary(tool_format, as_tokens=True)
    use = ToolUse((tool,), ToolMode.REQUIRED)
    constraint = ConstraintCompiler(tokens.tokenizer).compile(
        WantedTurn(use, None, TurnFacts(tool_format, None))
    )
    call = tokens(written(tool_format, text))
    return allowed(constraint, call) == len(call) and (constraint.finished or may_end(constraint))


@pytest.mark.parametrize("tool_format", ToolFormat)
def test_input_conforms_to_a_lark_grammar(tool_format: ToolFormat) -> None:
    tool = text_tool(LINES)
    assert is_allowed(tool, tool_format, LINES_TEXT)
    assert not is_allowed(tool, tool_format, 'begin "it"\nend')
    assert not is_allowed(tool, tool_format, LINES_TEXT + "\n")


@pytest.mark.parametrize("tool_format", ToolFormat)
def test_input_conforms_to_a_regular_expression(tool_format: ToolFormat) -> None:
    tool = text_tool(r'"[^/]*"\n[0-9]{2}', GrammarKind.REGEX)
    assert is_allowed(tool, tool_format, '"a\\b"\n12')
    assert not is_allowed(tool, tool_format, '"a"\n1')


@pytest.mark.parametrize("tool_format", ToolFormat)
def test_input_is_read_as_it_was_written(tool_format: ToolFormat) -> None:
    parser = ChatParser(tool_format, None, (text_tool(LINES),))
    end = TokenDelta(written(tool_format, LINES_TEXT), (), FinishReason.STOP, Usage(1, 1))
    [call] = whole_turn(parser.push(end)).calls
    assert json.loads(call.arguments) == {"input": LINES_TEXT}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('1 + (2.5 +  f) + "a\\n\\"b"', True),
        ("mAX", True),
        ("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH, False),
        ("((1))", True),
        ("g", False),
        ("1 +", False),
    ],
)
def test_rules_that_hold_themselves(text: str, *, fits: bool) -> None:
    assert is_allowed(text_tool(SUMS), ToolFormat.HERMES, text) is fits


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        (r"[^a]+", 'b"\n\\é', "a"),
        (r"(a|\"b\n){2}", '"b\na', "b"),
        (r'(?i)n\n"', 'N\n"', "n"),
        (r"\s+\S\w\d\D", '\n\t"a1x', " "),
        (r"\p{L}\P{L}", 'é"', '"é'),
        (r"\/[\/\]]\x22\u{e9}", '//"é', "x"),
        (r".{2,3}", '"é', "\n\n"),
        (r"(?s).*", '\n"x', None),
        (r"(?P<year>[0-9]+)[\n\x22]", '2024"', "2024x"),
        (r"[\\]+|[]x]", "\\\\", "/"),
        (r"a{b}", "a{b}", "ab"),
    ],
)
def test_expressions_written_for_json(pattern: str, fits: str, fails: str | None) -> None:
    tool = text_tool(pattern, GrammarKind.REGEX)
    assert is_allowed(tool, ToolFormat.HERMES, fits)
    assert fails is None or not is_allowed(tool, ToolFormat.HERMES, fails)


@pytest.mark.parametrize(
    "pattern",
    [r"a\b", "(?=x)a", r"a$b", "[a", "[[:alpha:]]", "[a-z&&[^b]]", "(?x)a", "\\", r"\u{110000}", "[b-a]"],
)
def test_expressions_that_cannot_be_written(pattern: str) -> None:
    with pytest.raises(UnreadableFormat):
        IN_JSON.regex(pattern)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "rule: /a/",
        "start: missing",
        'start: "a"\nstart: "b"',
        'start: %json {"type": "string"}',
        "start: <|end|>",
        "start: @other",
        "start: ~/a/",
        "start: /a/x",
        'start: "ab".."c"',
        'text[lazy]: /a/\nstart: "a"',
        "%import common.NOTHING\nstart: NOTHING",
        "%import other.WORD\nstart: WORD",
        '"a"\nstart: "b"',
        "start: " + " ".join(f"r{n}" for n in range(1100)) + "".join(f"\nr{n}: start" for n in range(1100)),
    ],
)
def test_grammars_that_cannot_be_written(source: str) -> None:
    with pytest.raises(UnreadableFormat):
        text_source(Grammar(GrammarKind.LARK, source), AS_IS, "")


@pytest.mark.parametrize("tool_format", [ToolFormat.HERMES, ToolFormat.QWEN_CODER])
def test_what_is_wrong_with_a_format_is_said(tool_format: ToolFormat) -> None:
    with pytest.raises(InvalidRequest, match="The lark is not valid") as caught:
        is_allowed(text_tool("start: missing"), tool_format, "")
    assert caught.value.param == "tools.0.format.definition"


def test_a_format_and_an_answer_s_grammar_where_calls_are_json() -> None:
    answer = Grammar(GrammarKind.JSON_SCHEMA, '{"type": "object"}')
    tokens = vocabulary(ToolFormat.LLAMA3, as_tokens=True)
    with pytest.raises(InvalidRequest, match="cannot be combined"):
        ConstraintCompiler(tokens.tokenizer).compile(
            WantedTurn(ToolUse((text_tool(LINES),)), answer, TurnFacts(ToolFormat.LLAMA3, None))
        )
