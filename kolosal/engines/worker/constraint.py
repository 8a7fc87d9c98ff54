"""Constrained output: which tokens a grammar allows next.

Owns the translation of a request's grammar and tools to llguidance (https://github.com/guidance-ai/llguidance), which does the
work. It is imported with the first constrained request: others do not pay for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from kolosal.chat.grammar import TurnFacts, TurnGrammar
from kolosal.chat.schemas import ANSWER, JSON_SPACING, tool_param, tool_schema
from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind, ToolUse

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

MAX_FORCED_TOKENS = 64
"""Forced tokens (llguidance's "fast-forward" ones) appended at once; the rest follows with the next step."""


class Constraint:
    """The state of one constrained sequence: each token is accepted once, in order. Used by the engine thread."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def finished(self) -> bool:
        """Nothing may follow: the text is complete."""
        return self._matcher.is_stopped()

    def mask(self) -> bytes:
        """One bit per token of the vocabulary, lowest bit first; 1 is allowed."""
        return self._matcher.compute_bitmask()

    def accept(self, token: int) -> bool:
        """Go on by a token; False when the grammar does not allow it, after which nothing is allowed any more."""
        return self._matcher.consume_token(token)

    def forced(self) -> list[int]:
        """The tokens that must follow, accepted already: nothing else is allowed, so none of them is sampled."""
        tokens = self._matcher.compute_ff_tokens()[:MAX_FORCED_TOKENS]
        return tokens if self._matcher.consume_tokens(tokens) else []


class ConstraintCompiler:
    """Compiles grammars for one vocabulary. Used by the main thread."""

    def __init__(self, make_tokenizer: Callable[[], LLTokenizer]) -> None:
        self._make_tokenizer = make_tokenizer

    def compile(self, grammar: Grammar) -> Constraint:
        """The constraint of a new sequence.

        Raises:
            InvalidRequest: the grammar is not valid; the message says where.
        """
        matcher = self._matcher(self._checked(grammar))
        if matcher.is_error():
            raise _invalid(grammar, matcher.get_error())
        return Constraint(matcher)

    def compile_turn(self, tool_use: ToolUse, answer: Grammar | None, facts: TurnFacts) -> Constraint:
        """The constraint of a chat's next turn: its thoughts are free, its calls fit the tools, the rest is `answer`.

        Raises:
            InvalidRequest: a tool's schema or the answer's grammar is not valid, or both do not go together.
        """
        end_tokens = tuple(self._tokenizer.eos_tokens)
        turn = TurnGrammar(tool_use, answer, facts, self._special_token, end_tokens)
        grammars = [{"name": "turn", "lark_grammar": turn.source()}]
        if answer is not None:
            grammars.append(_as_part(self._checked(answer)))
        matcher = self._matcher(json.dumps({"grammars": grammars}))
        if matcher.is_error():
            self._blame(tool_use, answer)
            raise InvalidRequest(f"The tools are not valid: {_shorten(matcher.get_error())}", param="tools")
        return Constraint(matcher)

    def _blame(self, tool_use: ToolUse, answer: Grammar | None) -> None:
        """Find out what makes a turn's grammar invalid.

        Raises:
            InvalidRequest: it is this.
        """
        if answer is not None:
            self.compile(answer)
        for position, tool in enumerate(tool_use.tools):
            matcher = self._matcher(_json_grammar(json.dumps(tool_schema(position, tool))))
            if matcher.is_error():
                param = tool_param(position, tool)
                raise InvalidRequest(
                    f"Field {param} is not valid: {_shorten(matcher.get_error())}", param=param
                )

    def _checked(self, grammar: Grammar) -> str:
        try:
            return _translate(grammar)
        except (ValueError, RecursionError) as exc:
            raise _invalid(grammar, str(exc)) from exc

    def _matcher(self, source: str) -> LLMatcher:
        from llguidance import LLMatcher  # noqa: PLC0415 - most workers never need it

        return LLMatcher(self._tokenizer, source, log_level=0)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return self._make_tokenizer()

    def _special_token(self, marker: str) -> int | None:
        """The one token that a marker is, where llguidance holds it for none of text."""
        tokens = self._tokenizer.tokenize_str(marker, parse_special=True)
        return tokens[0] if len(tokens) == 1 and self._tokenizer.is_special_token(tokens[0]) else None


def _translate(grammar: Grammar) -> str:
    """The grammar in llguidance's own form."""
    from llguidance import LLMatcher  # noqa: PLC0415

    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return _json_grammar(grammar.source)
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.source)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(grammar.source)
        case GrammarKind.GBNF:
            return LLMatcher.grammar_from_lark(_lark_of_gbnf(grammar.source))


def _json_grammar(schema: str) -> str:
    from llguidance import LLMatcher  # noqa: PLC0415

    return LLMatcher.grammar_from_json_schema(schema, defaults=cast("JsonCompileOptions", JSON_SPACING))


def _as_part(source: str) -> dict[str, Any]:
    """A grammar as others refer to it."""
    if not source.startswith('{"grammars"'):
        return {"name": ANSWER, "lark_grammar": source}
    part: dict[str, Any] = json.loads(source)["grammars"][0]
    return {**part, "name": ANSWER}


def _lark_of_gbnf(source: str) -> str:
    from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark  # noqa: PLC0415

    try:
        return gbnf_to_lark(source)
    except GbnfToLarkError as exc:
        raise ValueError(str(exc)) from exc


def _invalid(grammar: Grammar, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The {grammar.kind} is not valid: {_shorten(reason)}", param=grammar.param)


def _shorten(reason: str) -> str:
    return reason.strip()[:500]
