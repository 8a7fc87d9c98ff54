"""Constrained output: which tokens a grammar allows next.

Owns the translation of a request's grammar to llguidance, which does the work. llguidance is imported with the first
constrained request: others do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_FORCED_TOKENS = 64
"""Forced tokens appended at once; the rest follows with the next step."""


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
    """Compiles grammars for one vocabulary. Used by the intake thread."""

    def __init__(self, make_tokenizer: Callable[[], LLTokenizer]) -> None:
        self._make_tokenizer = make_tokenizer
        self._tokenizer: LLTokenizer | None = None

    def compile(self, grammar: Grammar) -> Constraint:
        """The constraint of a new sequence.

        Raises:
            InvalidRequest: the grammar is not valid; the message says where.
        """
        from llguidance import LLMatcher  # noqa: PLC0415 - most workers never need it

        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        try:
            source = _translate(grammar)
        except (ValueError, RecursionError) as exc:
            raise _invalid(grammar, str(exc)) from exc
        matcher = LLMatcher(self._tokenizer, source, log_level=0)
        if matcher.is_error():
            raise _invalid(grammar, matcher.get_error())
        return Constraint(matcher)


def _translate(grammar: Grammar) -> str:
    """The grammar in llguidance's own form.

    JSON gets one fixed whitespace, `", "` and `": "`: what models write anyway, and a small model cannot lose itself in
    blanks.
    """
    from llguidance import LLMatcher  # noqa: PLC0415

    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(
                grammar.source,
                defaults={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
            )
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.source)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(grammar.source)
        case GrammarKind.GBNF:
            return LLMatcher.grammar_from_lark(_lark_of_gbnf(grammar.source))


def _lark_of_gbnf(source: str) -> str:
    from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark  # noqa: PLC0415

    try:
        return gbnf_to_lark(source)
    except GbnfToLarkError as exc:
        raise ValueError(str(exc)) from exc


def _invalid(grammar: Grammar, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The {grammar.kind} is not valid: {reason.strip()[:500]}", param=grammar.param)
