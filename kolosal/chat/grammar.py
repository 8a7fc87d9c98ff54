"""What a turn must look like: tools, their format and the answer's own grammar → one Lark grammar for llguidance.

Its dialect of Lark: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. Pure. Text is free until a call is announced; from there on the arguments are always valid against the tool's schema.
Thoughts are never constrained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from kolosal.chat.formats import SHAPES, CallShape, ToolFormat, control_markers
from kolosal.chat.notation_grammar import NotationRules
from kolosal.chat.schemas import answer_rule, call_schema, dump, tool_param, tool_schema
from kolosal.chat.tagged import TaggedRules
from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind, Tool, ToolMode, ToolUse

MAX_CALLS = 128
"""Calls of one turn."""

MAX_TURN_CHARS = 4 * 1024 * 1024
"""Characters of the grammar of one turn, with all its tools: some formats repeat what schemas refer to."""

_ANY = r"(.|\n)*"
_BLANKS = r"[ \t\r\n]*"
_BLANK = r"[ \n]{1,8}"


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What a turn's grammar depends on besides the request."""

    tool_format: ToolFormat
    thinking_tags: tuple[str, str] | None
    in_thoughts: bool = False
    """The prompt ends within thoughts."""


class TurnGrammar:
    """The rules of one turn that has tools or an answer's grammar. Each `_…_rules` method adds what it names and is called once."""

    def __init__(
        self,
        tool_use: ToolUse,
        answer: Grammar | None,
        facts: TurnFacts,
        special_token: Callable[[str], int | None],
        end_tokens: tuple[int, ...],
    ) -> None:
        """`special_token` gives the one token that a marker is, where text cannot contain it; `end_tokens` end a turn.

        Raises:
            InvalidRequest: tools and this kind of grammar do not go together.
        """
        if tool_use.callable and answer is not None and answer.kind is not GrammarKind.JSON_SCHEMA:
            raise InvalidRequest(f"A {answer.kind} cannot be combined with tools", param=answer.param)
        self._use = tool_use
        names = {tool.name for tool in tool_use.callable}
        self._callable = [(at, tool) for at, tool in enumerate(tool_use.tools) if tool.name in names]
        self._required = tool_use.mode is ToolMode.REQUIRED and bool(names)
        self._ends = end_tokens
        self._facts = facts
        self._answer = None if answer is None else answer_rule(answer)
        self._shape = SHAPES.get(facts.tool_format)
        self._rules: list[str] = []
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
        more = ""
        if self._use.parallel:
            more = f"({self._literal(shape.separator)} {self._literal(begin)} call){{0,{MAX_CALLS - 1}}}"
        self._rules.append(f"calls: {self._literal(shape.trigger)} announced")
        self._rules.append(f"announced: {self._literal(opens)} call {more} {self._literal(shape.closes)}")
        if not shape.trigger and self._answer is None:
            self._rules.append(r'OPEN: /[ \n]{0,8}\{[ \n]{0,8}"name" ?: ?/')
            calls = [self._call(replace(shape, before=""), *tool, "") for tool in self._callable]
            self._rules.append(f"call: OPEN ({' | '.join(calls)})")
        elif not shape.trigger:
            calls = [f"%json {call_schema(*tool)}" for tool in self._callable]
            self._rules.append(f"call: {' | '.join(calls)}")
        else:
            calls = [self._call(shape, *tool, begin) for tool in self._callable]
            self._rules.append(f"call: {' | '.join(calls)}")

    def _call(self, shape: CallShape, position: int, tool: Tool, begin: str) -> str:
        """A call without what it begins with."""
        name = json.dumps(tool.name, ensure_ascii=False) if shape.quoted else tool.name
        head = self._literal(shape.before.removeprefix(begin) + name + shape.between)
        return f"{head} {self._arguments(shape, position, tool)} {self._literal(shape.after)}"

    def _arguments(self, shape: CallShape, position: int, tool: Tool) -> str:
        schema, param, prefix = tool_schema(position, tool), tool_param(position, tool), f"t{position}"
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
        calls = [
            f"{self._literal(f'{tool.name} <|constrain|>json<|message|>')} %json {dump(tool_schema(position, tool))}"
            for position, tool in self._callable
        ]
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
