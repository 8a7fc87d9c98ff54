"""What a turn must look like: tools, their format and the answer's own grammar → one Lark grammar for llguidance.

Its dialect of Lark: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. Pure. Text is free until a call is announced; from there on the arguments are always valid against the tool's schema.
Thoughts are never constrained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from kolosal.chat.formats import SHAPES, CallShape, ToolFormat, control_markers
from kolosal.chat.notation_grammar import NotationRules
from kolosal.chat.schemas import answer_rule, call_schema, dump, open_schema, tool_param, tool_schema
from kolosal.chat.tagged import TaggedRules, around_string
from kolosal.chat.text_lark import text_source
from kolosal.chat.text_regex import AS_IS, IN_JSON, UnreadableFormat
from kolosal.errors import InvalidRequest
from kolosal.schema import TEXT_ARGUMENT, Grammar, GrammarKind, Tool, ToolUse

MAX_CALLS = 128
"""Calls of one turn."""

MAX_TURN_CHARS = 4 * 1024 * 1024
"""Characters of the grammar of one turn, with all its tools: some formats repeat what schemas refer to."""

_ANY = r"(.|\n)*"
_BLANKS = r"[ \t\r\n]*"
_BLANK = r"[ \n]{1,8}"
_GAP = r"[ \t\r\n]{0,8}"


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What a turn's grammar depends on besides the request."""

    tool_format: ToolFormat
    thinking_tags: tuple[str, str] | None
    in_thoughts: bool = False
    """The prompt ends within thoughts."""
    several_calls: bool = True
    """The model's template shows several calls of one turn."""


class TurnGrammar:
    """The rules of one turn that has tools or an answer's grammar. Each `_…_rules` method adds what it names and is called once."""

    def __init__(
        self,
        tool_use: ToolUse,
        answer: Grammar | None,
        facts: TurnFacts,
        special_token: Callable[[str], int | None],
        end_tokens: tuple[int, ...],
        open_tools: Collection[int] = (),
    ) -> None:
        """`special_token` gives the one token that a marker is, where text cannot contain it; `end_tokens` end a turn;
        `open_tools` are positions of tools whose arguments may be any object.

        Raises:
            InvalidRequest: tools and this kind of grammar do not go together.
        """
        if tool_use.callable and answer is not None and answer.kind is not GrammarKind.JSON_SCHEMA:
            raise InvalidRequest(f"A {answer.kind} cannot be combined with tools", param=answer.param)
        self._open_tools = open_tools
        names = {tool.name for tool in tool_use.callable}
        self._callable = [(at, tool) for at, tool in enumerate(tool_use.tools) if tool.name in names]
        self._required = tool_use.forced
        self._several = tool_use.parallel and facts.several_calls
        self._ends = end_tokens
        self._facts = facts
        self._answer = None if answer is None else answer_rule(answer)
        self._shape = SHAPES.get(facts.tool_format)
        self._rules: list[str] = []
        self.texts: dict[str, Grammar] = {}
        """The grammars that the source refers to as `@name`, besides the answer's: those of tools that take text."""
        markers = control_markers(facts.tool_format, facts.thinking_tags)
        self._numbers = {marker: special_token(marker) for marker in markers}

    def source(self) -> str:
        """The Lark source; refers to the answer's own grammar as `@answer`.

        Raises:
            InvalidRequest: a tool's parameters are no object, or cannot be enforced, or all of it is too long.
        """
        if self._shape is None:
            self._harmony_rules()
        else:
            self._turn_rules(self._shape)
        n_chars = sum(map(len, self._rules))
        if n_chars > MAX_TURN_CHARS:
            raise InvalidRequest(
                f"tools make a grammar of {n_chars} characters, and at most {MAX_TURN_CHARS} are allowed",
                param="tools",
            )
        return "\n".join(["%llguidance {}", *self._rules, f"BLANK: /{_BLANK}/"])

    # --- thoughts, then text or calls ---

    def _turn_rules(self, shape: CallShape) -> None:
        if self._callable:
            self._call_rules(shape)
        if self._answer is not None or self._required:
            choices = ["calls"] if self._callable else []
            if self._answer is not None and not self._required:
                choices.append(self._answer)
            now = " | ".join(choices)
            self._start(after=f"BLANK? ({now})", at_once=now)
        else:
            self._start(
                after=self._free(shape, "later", ""), at_once=self._free(shape, "first", self._no_thoughts())
            )

    def _start(self, *, after: str, at_once: str) -> None:
        """`after`: what comes after thoughts; `at_once`: what comes without any."""
        tags = self._facts.thinking_tags
        if tags is None:
            self._rules.append(f"start: {at_once}")
            return
        self._rules.append(f"rest: {self._until(tags[1])}")
        self._rules.append(f"after: {after}")
        if self._facts.in_thoughts:
            self._rules.append("start: rest after")
            return
        self._rules.append(f"at_once: {at_once}")
        if not self._begins_with_token(tags[0]):
            self._rules.append(f"THINK: /{_BLANKS}{_regex(tags[0])}/")
            self._rules.append("start: THINK rest after | at_once")
        else:
            self._rules.append(f"start: BLANK? {self._literal(tags[0])} rest after | at_once")

    def _no_thoughts(self) -> str:
        """What text must not begin with, so that thoughts are not mistaken for text; nothing where tokens tell."""
        tags = self._facts.thinking_tags
        if tags is None or self._facts.in_thoughts or self._begins_with_token(tags[0]):
            return ""
        return rf"{_BLANKS}{_regex(tags[0])}{_ANY}"

    def _free(self, shape: CallShape, name: str, forbidden: str) -> str:
        """Text, and calls from where they are announced. `name` sets the rules apart that have the same purpose."""
        but = f" & ~/{forbidden}/" if forbidden else ""
        choices = []
        if not shape.trigger:
            choices.append("calls")
            but += rf' & ~/{_BLANKS}\{{{_BLANKS}"name"{_ANY}/'
        text = f"{name}_text".upper()
        self._rules.append(f"{text}: /{_ANY}/{but}")
        choices.append(text)
        for index, trigger in enumerate(marker for marker in (shape.trigger, shape.prefix) if marker):
            announced = "announced" if trigger == shape.trigger else "calls"
            if self._numbers[trigger] is not None:
                choices += [f"{text} {self._literal(trigger)} {announced}"]
                continue
            head = f"{name}_head_{index}"
            self._rules.append(f"{head.upper()}: /{_ANY}{_regex(trigger)}/{but}")
            self._rules.append(f"{head}[lazy]: {head.upper()}")
            choices.append(f"{head} {announced}")
        return " | ".join(choices)

    # --- calls ---

    def _call_rules(self, shape: CallShape) -> None:
        """`calls` are all calls of a turn; `announced` what of them is left after the trigger."""
        begin = "" if shape.opens else shape.trigger
        opens = shape.opens.removeprefix(shape.trigger) if shape.opens else ""
        self._rules.append(f"calls: {self._literal(shape.trigger)} announced")
        closes = self._literal(shape.closes)
        self._rules.append(f"announced: {self._literal(opens)} call {self._more(shape, begin)} {closes}")
        if not shape.trigger and self._answer is None:
            self._rules.append(r'OPEN: /[ \n]{0,8}\{[ \n]{0,8}"name" ?: ?/')
            calls = [self._call(replace(shape, before=""), *tool, "") for tool in self._callable]
            self._rules.append(f"call: OPEN ({' | '.join(calls)})")
        elif not shape.trigger:
            self._check_no_texts()
            calls = [f"%json {call_schema(tool, self._schema(at, tool))}" for at, tool in self._callable]
            self._rules.append(f"call: {' | '.join(calls)}")
        else:
            calls = [self._call(shape, *tool, begin) for tool in self._callable]
            self._rules.append(f"call: {' | '.join(calls)}")

    def _more(self, shape: CallShape, begin: str) -> str:
        """What may follow a turn's first call. The next one must not be likelier than the model says: where no list is to be closed,
        anything else may stand in its place, with which the parser takes the turn for over."""
        if not self._several:
            return ""
        count = f"{{0,{MAX_CALLS - 1}}}"
        if shape.closes:
            return f"({self._literal(shape.separator)} {self._literal(begin)} call){count}"
        mark = shape.separator.strip() or begin
        if self._numbers.get(mark) is not None:
            self._rules.append(f"AFTER: /{_ANY}/")
            return f"(AFTER {self._literal(mark)} call){count} AFTER"
        self._rules.append(f"NEXT: /{_GAP}{_regex(mark)}{' ?' if shape.separator.strip() else ''}/")
        self._rules.append(f"AFTER: /{_GAP}([^ \t\r\n{_regex(mark[0])}]{_ANY})?/")
        return f"(NEXT call){count} AFTER"

    def _check_no_texts(self) -> None:
        """Calls that compete with an answer in JSON are schemas."""
        text = next((tool.text for _, tool in self._callable if tool.text is not None), None)
        if text is not None:
            raise InvalidRequest(
                f"A {text.kind} of a tool cannot be combined with an answer's own grammar", param=text.param
            )

    def _call(self, shape: CallShape, position: int, tool: Tool, begin: str) -> str:
        """A call without what it begins with."""
        name = json.dumps(tool.name, ensure_ascii=False) if shape.quoted else tool.name
        head = self._literal(shape.before.removeprefix(begin) + name + shape.between)
        return f"{head} {self._arguments(shape, position, tool)} {self._literal(shape.after)}"

    def _arguments(self, shape: CallShape, position: int, tool: Tool) -> str:
        schema = self._schema(position, tool)
        try:
            return self._written(shape, position, tool, schema)
        except InvalidRequest:
            if tool.strict:
                raise
            return self._written(shape, position, tool, open_schema(tool))

    def _schema(self, position: int, tool: Tool) -> dict[str, Any]:
        return open_schema(tool) if position in self._open_tools else tool_schema(position, tool)

    def _written(self, shape: CallShape, position: int, tool: Tool, schema: dict[str, Any]) -> str:
        """Arguments as the format has them."""
        param, prefix = tool_param(position, tool), f"t{position}"
        if tool.text is not None:
            return self._text_argument(shape, position, tool.text)
        if shape.tagged:
            rules = TaggedRules(schema, param, prefix, self._literal)
            arguments = rules.arguments()
            self._rules += rules.rules
            return arguments
        if shape.quote:
            inside = f"/{_ANY}/"
            if self._numbers[shape.quote] is None:
                inside += f" & ~/{_ANY}{_regex(shape.quote)}{_ANY}/"
            notation = NotationRules(schema, param, prefix, self._literal, shape.quote, inside)
            arguments = notation.value(schema)
            self._rules += notation.rules
            return arguments
        return f"%json {dump(schema)}"

    def _text_argument(self, shape: CallShape | None, position: int, text: Grammar) -> str:
        """The argument of a tool that takes text, in a grammar of its own with the text's end."""
        form = AS_IS
        if shape is not None and shape.tagged:
            begin, end = around_string(TEXT_ARGUMENT)
        elif shape is not None and shape.quote:
            begin, end = f"{{{TEXT_ARGUMENT}:{shape.quote}", shape.quote
        else:
            begin, end, form = f'{{"{TEXT_ARGUMENT}": "', '"', IN_JSON
        name = f"text_{position}"
        is_token = self._numbers.get(end) is not None
        try:
            source = text_source(text, form, "" if is_token else end)
        except UnreadableFormat as exc:
            raise InvalidRequest(f"The {text.kind} is not valid: {exc}", param=text.param) from exc
        self.texts[name] = Grammar(GrammarKind.LARK, source, text.param)
        after = (end if is_token else "") + ("" if shape is not None and shape.tagged else "}")
        return f"{self._literal(begin)} @{name} {self._literal(after)}"

    # --- gpt-oss ---

    def _harmony_rules(self) -> None:
        start = "<|start|>assistant"
        self._rules.append(f"TEXT: /{_ANY}/")
        self._rules.append(f"rest: {self._until('<|end|>')}")
        self._rules.append(
            f"thoughts: {self._literal('<|channel|>analysis<|message|>')} rest {self._literal(start)}"
        )
        choices = []
        if not self._required:
            what = "TEXT" if self._answer is None else self._answer
            choices.append(f"{self._literal('<|channel|>final<|message|>')} {what}")
        if self._callable:
            calls = self._harmony_calls()
            choices.append(calls)
            if not self._required and self._answer is None:
                said = "rest" if self._numbers["<|end|>"] is None else f"TEXT {self._literal('<|end|>')}"
                head = self._literal("<|channel|>commentary<|message|>")
                choices.append(f"{head} {said} {self._literal(start)} {calls}")
        self._rules.append(f"start: thoughts{{0,{MAX_CALLS}}} ({' | '.join(choices)})")

    def _harmony_calls(self) -> str:
        calls = []
        for position, tool in self._callable:
            head = self._literal(f"{tool.name} <|constrain|>json<|message|>")
            if tool.text is not None:
                arguments = self._text_argument(None, position, tool.text)
            else:
                arguments = f"%json {dump(self._schema(position, tool))}"
            calls.append(f"{head} {arguments}")
        return f"{self._literal('<|channel|>commentary to=functions.')} ({' | '.join(calls)})"

    # --- pieces ---

    def _literal(self, text: str) -> str:
        """Text as it must be, with tokens where its markers are tokens."""
        if not text:
            return ""
        for marker, number in self._numbers.items():
            before, found, after = text.partition(marker)
            if found and number is not None:
                return f"{self._literal(before)} <[{number}]> {self._literal(after)}"
        return json.dumps(text, ensure_ascii=False)

    def _begins_with_token(self, text: str) -> bool:
        return any(text.startswith(marker) for marker, number in self._numbers.items() if number is not None)

    def _until(self, marker: str) -> str:
        """Anything up to a marker, and the marker."""
        number = self._numbers[marker]
        if number is None:
            self._rules.append(f"until[lazy]: /{_ANY}{_regex(marker)}/")
            return "until"
        others = ",".join(map(str, sorted({number, *self._ends})))
        return f"<[^{others}]>* <[{number}]>"


def _regex(text: str) -> str:
    """Text as a regular expression between slashes."""
    return "".join(char if char.isalnum() or char in "_ " else f"\\x{{{ord(char):x}}}" for char in text)
