"""What a turn with tools may look like in every format, with markers as tokens and as text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kolosal.chat.formats import HARMONY_MARKERS, HARMONY_THINKING, SHAPES, ToolFormat
from kolosal.chat.grammar import TurnFacts
from kolosal.engines.worker.constraint import Constraint, ConstraintCompiler, WantedTurn
from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind, Tool, ToolMode, ToolUse
from tests.chat.recorded import THINK, hermes
from tests.chat.vocabulary import Vocabulary, allowed, may_end

WEATHER = Tool(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
GET = Tool("get", parameters={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
ANY = Tool("any")
TOOLS = (WEATHER, GET, ANY)
GOOD = '{"city": "Paris", "unit": "c"}'
AUTO, REQUIRED = ToolUse(TOOLS), ToolUse(TOOLS, ToolMode.REQUIRED)
ANSWER = Grammar(
    GrammarKind.JSON_SCHEMA, '{"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"]}'
)

CALLS = {
    ToolFormat.HERMES: hermes(("get_weather", GOOD), ("any", "{}")),
    ToolFormat.GENERIC: hermes(("get_weather", GOOD), ("any", "{}")),
    ToolFormat.LLAMA3: f'{{"name": "get_weather", "parameters": {GOOD}}}; {{"name": "any", "parameters": {{}}}}',
    ToolFormat.MISTRAL: f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {GOOD}}}, {{"name": "any", "arguments": {{}}}}]',
    ToolFormat.MISTRAL_ARGS: f"[TOOL_CALLS]get_weather[ARGS]{GOOD}[TOOL_CALLS]any[ARGS]{{}}",
    ToolFormat.GEMMA: '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,unit:<|"|>c<|"|>}<tool_call|><|tool_call>call:any{}<tool_call|>',
    ToolFormat.FUNCTION_GEMMA: "<start_function_call>call:get_weather{city:<escape>Paris<escape>,unit:<escape>c<escape>}"
    "<end_function_call><start_function_call>call:any{}<end_function_call>",
    ToolFormat.QWEN_CODER: "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=unit>\nc\n</parameter>\n"
    "</function>\n</tool_call>\n<tool_call>\n<function=any>\n</function>\n</tool_call>",
    ToolFormat.DEEPSEEK: "",
    ToolFormat.DEEPSEEK_V31: "",
    ToolFormat.GPT_OSS: f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{GOOD}",
}
for _format in (ToolFormat.DEEPSEEK, ToolFormat.DEEPSEEK_V31):
    _shape = SHAPES[_format]
    _written = [_shape.before + name + _shape.between + arguments + _shape.after for name, arguments in
                (("get_weather", GOOD), ("any", "{}"))]  # fmt: skip
    CALLS[_format] = _shape.opens + _shape.separator.join(_written) + _shape.closes
FORMATS = sorted(CALLS)


def vocabulary(tool_format: ToolFormat, *, as_tokens: bool) -> Vocabulary:
    markers = SHAPES[tool_format].markers if tool_format in SHAPES else HARMONY_MARKERS
    return Vocabulary(*markers, *THINK) if as_tokens else Vocabulary()


class Turns:
    """The turns that a request may get."""

    def __init__(
        self,
        use: ToolUse,
        tool_format: ToolFormat = ToolFormat.HERMES,
        *,
        as_tokens: bool = False,
        answer: Grammar | None = None,
        tags: tuple[str, str] | None = THINK,
        in_thoughts: bool = False,
        several_calls: bool = True,
    ) -> None:
        self._vocabulary = vocabulary(tool_format, as_tokens=as_tokens)
        self._compiler = ConstraintCompiler(self._vocabulary.tokenizer)
        tags = HARMONY_THINKING if tool_format is ToolFormat.GPT_OSS else tags
        self._arguments = (use, answer, TurnFacts(tool_format, tags, in_thoughts, several_calls))

    def after(self, text: str) -> Constraint | None:
        """The constraint after a text; None where that is not allowed."""
        constraint = self._compiler.compile(WantedTurn(*self._arguments))
        tokens = self._vocabulary(text)
        return constraint if allowed(constraint, tokens) == len(tokens) else None

    def begin(self, text: str) -> bool:
        """Whether a turn may begin like this."""
        return self.after(text) is not None

    def are(self, text: str) -> bool:
        """Whether this may be a whole turn."""
        constraint = self.after(text)
        return constraint is not None and may_end(constraint)


both = pytest.mark.parametrize("as_tokens", [True, False], ids=["tokens", "text"])
every = pytest.mark.parametrize("tool_format", FORMATS)


@both
@every
def test_calls_of_the_format_are_allowed(tool_format: ToolFormat, as_tokens: bool) -> None:
    for use in (AUTO, REQUIRED):
        assert Turns(use, tool_format, as_tokens=as_tokens).are(CALLS[tool_format])


@both
@every
def test_arguments_must_fit_the_schema(tool_format: ToolFormat, as_tokens: bool) -> None:
    turns = Turns(AUTO, tool_format, as_tokens=as_tokens)
    shape = SHAPES.get(tool_format)
    quote = "\n" if shape is not None and shape.tagged else (shape.quote if shape is not None else "") or '"'
    begin, _, _ = CALLS[tool_format].partition(f"{quote}c{quote}")

    assert turns.begin(f"{begin}{quote}f{quote}")
    assert not turns.begin(f"{begin}{quote}k")


@both
@every
def test_only_names_of_tools_are_allowed(tool_format: ToolFormat, as_tokens: bool) -> None:
    turns = Turns(AUTO, tool_format, as_tokens=as_tokens)

    assert not turns.begin(CALLS[tool_format].replace("get_weather", "get_whether"))


@both
@every
def test_named_tool_is_the_only_one(tool_format: ToolFormat, as_tokens: bool) -> None:
    forced = Turns(replace(REQUIRED, only=("get",)), tool_format, as_tokens=as_tokens)
    begin, _, _ = CALLS[tool_format].partition("get_weather")

    assert forced.begin(f"{begin}get")
    assert not forced.begin(f"{begin}get_")
    assert not forced.begin(f"{begin}any")


@both
@every
def test_required_allows_no_text(tool_format: ToolFormat, as_tokens: bool) -> None:
    turns = Turns(REQUIRED, tool_format, as_tokens=as_tokens)

    assert not turns.are("")
    assert not turns.begin("Hello")
    assert not turns.begin("<|channel|>final")


@both
@pytest.mark.parametrize("tool_format", [each for each in FORMATS if each is not ToolFormat.GPT_OSS])
def test_text_is_free_until_a_call(tool_format: ToolFormat, as_tokens: bool) -> None:
    turns = Turns(AUTO, tool_format, as_tokens=as_tokens)

    assert turns.are("")
    assert turns.are('Hello, {"name": 1} is JSON.\n\n')
    if tool_format is not ToolFormat.LLAMA3:
        assert turns.are(f"Hello.\n{CALLS[tool_format]}")


@both
def test_llamas_calls_stand_at_the_beginning_or_after_the_tag(as_tokens: bool) -> None:
    turns = Turns(AUTO, ToolFormat.LLAMA3, as_tokens=as_tokens)

    assert turns.are(f"Hello. <|python_tag|>{CALLS[ToolFormat.LLAMA3]}")
    assert turns.are('Hello. {"name": "nobody"}')
    assert turns.are('{"answer": 5}')
    assert not turns.begin('{"name": "nobody"')
    assert not turns.begin('<|python_tag|>{"name": "nobody"')


@both
def test_one_call_is_all_where_calls_are_not_parallel(as_tokens: bool) -> None:
    one, two = hermes(("any", "{}")), hermes(("any", "{}"), ("any", "{}"))
    for use in (AUTO, REQUIRED):
        assert Turns(use, as_tokens=as_tokens).are(two)
        alone = Turns(replace(use, parallel=False), as_tokens=as_tokens)
        assert alone.are(one)
        assert not alone.begin(two)


@both
@pytest.mark.parametrize(
    "tool_format", [each for each in FORMATS if each in SHAPES and not SHAPES[each].closes]
)
@pytest.mark.parametrize("after", ["\n\n", "\nSo", "So, {1} or"])
def test_turn_may_go_on_in_any_way_after_a_call(tool_format: ToolFormat, as_tokens: bool, after: str) -> None:
    for use in (AUTO, REQUIRED):
        assert Turns(use, tool_format, as_tokens=as_tokens).are(CALLS[tool_format] + after)


@both
@every
def test_named_function_is_called_once(tool_format: ToolFormat, as_tokens: bool) -> None:
    named = ToolUse(TOOLS, ToolMode.REQUIRED, only=("any",), parallel=False)
    call = CALLS[tool_format].partition("get_weather")[0] + "any"
    constraint = Turns(named, tool_format, as_tokens=as_tokens).after(call)
    assert constraint is not None
    shape = SHAPES.get(tool_format)
    rest = " <|constrain|>json<|message|>{}" if shape is None else ('"' if shape.quoted else "") + shape.between + ("</function>" if shape.tagged else "{}") + shape.after + shape.closes  # fmt: skip
    tokens = vocabulary(tool_format, as_tokens=as_tokens)(rest)

    assert allowed(constraint, tokens) == len(tokens)
    assert constraint.finished


@both
def test_template_without_several_calls_gets_one(as_tokens: bool) -> None:
    turns = Turns(AUTO, as_tokens=as_tokens, several_calls=False)

    assert turns.are(hermes(("any", "{}")))
    assert not turns.begin(hermes(("any", "{}"), ("get", '{"n": 1}')))


def test_at_most_as_many_calls_as_a_turn_may_have() -> None:
    calls = hermes(*[("any", "{}")] * 129)

    assert not Turns(AUTO).begin(calls)
    assert Turns(AUTO).are(hermes(*[("any", "{}")] * 128))


# --- thoughts ---

THOUGHT = "<think>\nMaybe {<tool_call> or [TOOL_CALLS]?\n\n</think>"


@both
def test_thoughts_are_free_before_everything(as_tokens: bool) -> None:
    call = hermes(("get_weather", GOOD))

    assert Turns(AUTO, as_tokens=as_tokens).are(f"{THOUGHT}\n\nHello.")
    assert Turns(AUTO, as_tokens=as_tokens).are(f"{THOUGHT}\n\nHello.\n{call}")
    assert Turns(AUTO, as_tokens=as_tokens).are(f"\n{THOUGHT}\n\n{call}")
    assert Turns(REQUIRED, as_tokens=as_tokens).are(f"{THOUGHT}\n\n{call}")
    assert not Turns(REQUIRED, as_tokens=as_tokens).begin(f"{THOUGHT}\n\nHello.")
    assert not Turns(AUTO, as_tokens=as_tokens).begin(f"{THOUGHT}{hermes(('nobody', '{}'))}")


@both
def test_thoughts_must_end_before_the_turn_does(as_tokens: bool) -> None:
    assert not Turns(REQUIRED, as_tokens=as_tokens).are("<think>hm")


@both
def test_prompt_that_ends_within_thoughts_is_gone_on_with(as_tokens: bool) -> None:
    for use in (AUTO, REQUIRED):
        turns = Turns(use, as_tokens=as_tokens, in_thoughts=True)
        assert turns.are(f"Maybe.</think>\n\n{hermes(('any', '{}'))}")
        assert not turns.are(hermes(("any", "{}")))


@both
def test_thoughts_of_channels_are_free(as_tokens: bool) -> None:
    thought = "<|channel|>analysis<|message|>{Hm}<|end|><|start|>assistant"
    call = CALLS[ToolFormat.GPT_OSS]
    auto, required = (Turns(use, ToolFormat.GPT_OSS, as_tokens=as_tokens) for use in (AUTO, REQUIRED))

    assert auto.are(f"{thought}<|channel|>final<|message|>Hello.")
    assert auto.are(f"{thought}<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant{call}")
    assert required.are(thought + call)
    assert not required.begin(f"{thought}<|channel|>final")


# --- with a grammar for the answer ---


@both
@every
def test_answer_or_calls(tool_format: ToolFormat, as_tokens: bool) -> None:
    turns = Turns(AUTO, tool_format, as_tokens=as_tokens, answer=ANSWER)
    front = "<|channel|>final<|message|>" if tool_format is ToolFormat.GPT_OSS else ""

    assert turns.are(f'{front}{{"x": 1}}')
    assert turns.are(CALLS[tool_format])
    assert not turns.begin(f"{front}Hello")
    assert not turns.begin(f'{front}{{"y"')


@both
def test_required_goes_before_an_answer(as_tokens: bool) -> None:
    assert not Turns(REQUIRED, as_tokens=as_tokens, answer=ANSWER).begin('{"x"')


@both
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ANSWER, '{"x": 1}'),
        (Grammar(GrammarKind.REGEX, "a+b"), "aab"),
        (Grammar(GrammarKind.LARK, 'start: "a" b\nb: "b"'), "ab"),
        (Grammar(GrammarKind.GBNF, 'root ::= "a" "b"'), "ab"),
    ],
)
def test_thoughts_before_a_constrained_answer_are_free(answer: Grammar, text: str, as_tokens: bool) -> None:
    turns = Turns(ToolUse(), as_tokens=as_tokens, answer=answer)

    assert turns.are(text)
    assert turns.are(f"{THOUGHT}\n\n{text}")
    assert not turns.begin(f"{THOUGHT}\n\n!")
    assert not turns.begin("!")


def test_llamas_tools_may_share_definitions() -> None:
    parameters = {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/Hour"}},
        "required": ["at"],
        "$defs": {"Hour": {"enum": [1, 2]}},
    }
    use = ToolUse((Tool("wake", parameters=parameters),))
    for answer in (None, ANSWER):
        turns = Turns(use, ToolFormat.LLAMA3, answer=answer)
        assert turns.are('{"name": "wake", "parameters": {"at": 2}}')
        assert not turns.begin('{"name": "wake", "parameters": {"at": 3')


# --- what is refused ---


@pytest.mark.parametrize("kind", [GrammarKind.REGEX, GrammarKind.LARK, GrammarKind.GBNF])
def test_other_grammars_do_not_go_with_tools(kind: GrammarKind) -> None:
    with pytest.raises(InvalidRequest, match="cannot be combined with tools") as caught:
        Turns(AUTO, answer=Grammar(kind, "a", "grammar")).begin("")
    assert caught.value.param == "grammar"


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"type": "array"}, "/type"),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, "/properties/a/type"),
        (
            {"type": "object", "properties": {"a/b": {"type": "string", "pattern": "("}}},
            "/properties/a~1b/pattern",
        ),
    ],
)
def test_strict_schema_that_cannot_be_enforced_is_named_and_others_are_taken(
    parameters: dict[str, object], pointer: str
) -> None:
    with pytest.raises(InvalidRequest, match=f'cannot be enforced at "{pointer}"') as caught:
        Turns(ToolUse((ANY, Tool("bad", parameters=parameters, strict=True)))).begin("")
    assert caught.value.param == "tools.1.function.parameters"
    assert Turns(ToolUse((ANY, Tool("bad", parameters=parameters)))).are(hermes(("bad", "{}")))


def test_tool_that_no_value_fits_takes_any_object_unless_it_is_strict() -> None:
    parts = [{"properties": {name: {}}, "required": [name], "additionalProperties": False} for name in "ab"]
    bad = Tool("bad", parameters={"allOf": parts})

    assert Turns(ToolUse((bad, WEATHER))).are(hermes(("bad", '{"c": 1}')))
    assert not Turns(ToolUse((bad, WEATHER))).begin(hermes(("get_weather", '{"c": 1}')))
    with pytest.raises(InvalidRequest) as caught:
        Turns(ToolUse((WEATHER, replace(bad, strict=True)))).begin("")
    assert caught.value.param == "tools.1.function.parameters"


@pytest.mark.parametrize("source", ["no json", "[]", '{"type": "objec"}'])
def test_answer_that_cannot_be_used_is_named(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Turns(AUTO, answer=Grammar(GrammarKind.JSON_SCHEMA, source, "response_format")).begin("")
    assert caught.value.param == "response_format"


def test_schema_cannot_loosen_the_white_space() -> None:
    parameters = {"type": "object", "x-guidance": {"whitespace_flexible": True}}

    assert not Turns(ToolUse((Tool("a", parameters=parameters),))).begin(
        hermes(("a", json.dumps({"b": 1}, indent=1)))
    )


@pytest.mark.parametrize("tool_format", [ToolFormat.HERMES, ToolFormat.GEMMA, ToolFormat.QWEN_CODER])
def test_what_cannot_be_enforced_is_passed_over_unless_the_tool_is_strict(tool_format: ToolFormat) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "format": "city-name"}},
        "propertyNames": {"pattern": "^[a-z]+$"},
        "not": {"required": ["country"]},
    }
    Turns(ToolUse((Tool("weather", parameters=parameters),)), tool_format).begin("")
    with pytest.raises(InvalidRequest) as caught:
        Turns(ToolUse((Tool("weather", parameters=parameters, strict=True),)), tool_format).begin("")
    assert caught.value.param == "tools.0.function.parameters"
