"""Grammars: what is allowed, what is forced, what is refused and how."""

from __future__ import annotations

import json

import pytest
from llguidance import LLTokenizer

from kolosal.engines.worker.constraint import Constraint, ConstraintCompiler, ConstraintFailed
from kolosal.engines.worker.grammars.limits import MAX_CACHED
from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind
from tests.engines.worker.grammars.hostile_grammars import (
    AMBIGUOUS,
    FAILING,
    optional_properties,
    schema,
)

_OBJECT = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(lambda: LLTokenizer("byte", n_vocab=262))


def _allows(constraint: Constraint, token: int) -> bool:
    return bool(constraint.mask()[token // 8] >> token % 8 & 1)


@pytest.mark.parametrize(
    ("kind", "source", "text"),
    [
        (GrammarKind.JSON_SCHEMA, json.dumps(_OBJECT), '{"name": "a", "age": 5}'),
        (GrammarKind.REGEX, "[ab]+c", "abac"),
        (GrammarKind.LARK, 'start: "yes" | "no"', "no"),
        (GrammarKind.GBNF, 'root ::= "yes" | "no"', "yes"),
    ],
)
def test_each_kind_allows_its_text_and_no_other(
    compiler: ConstraintCompiler, kind: GrammarKind, source: str, text: str
) -> None:
    constraint = compiler.compile(Grammar(kind, source))
    assert not _allows(constraint, ord("!"))
    for byte in text.encode():
        assert _allows(constraint, byte)
        constraint.accept(byte)


def test_the_only_possible_beginning_is_forced(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(_OBJECT)))
    assert bytes(constraint.forced()) == b'{"name": "'


def test_nothing_follows_a_complete_text(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Grammar(GrammarKind.REGEX, "ab"))
    assert not constraint.finished
    for byte in b"ab":
        constraint.accept(byte)
    assert constraint.finished


@pytest.mark.parametrize(
    ("kind", "source", "where"),
    [
        (GrammarKind.REGEX, "(", "unclosed group"),
        (GrammarKind.LARK, "start: foo", 'unknown name: "foo"'),
        (GrammarKind.GBNF, 'root ::= "a', "line 1"),
        (GrammarKind.JSON_SCHEMA, '{"type": "objec"}', "objec"),
        (GrammarKind.JSON_SCHEMA, "no json", "json"),
    ],
)
def test_an_invalid_grammar_is_refused_with_the_place(
    compiler: ConstraintCompiler, kind: GrammarKind, source: str, where: str
) -> None:
    with pytest.raises(InvalidRequest, match=where) as caught:
        compiler.compile(Grammar(kind, source, param="response_format"))
    assert caught.value.param == "response_format"


def follow(constraint: Constraint, wish: int) -> str:
    """Follow a constraint to its end, with this character wherever it is allowed."""
    text = ""
    while not constraint.finished and len(text) < 1000:
        tokens = [wish, *range(256)]
        token = next(token for token in tokens if _allows(constraint, token))
        constraint.accept(token)
        text += chr(token)
    return text


@pytest.mark.fault("R2")
@pytest.mark.parametrize("name", FAILING)
def test_a_grammar_that_runs_into_a_limit_is_an_error_and_no_end(
    compiler: ConstraintCompiler, name: str
) -> None:
    grammar = FAILING[name]
    with pytest.raises(
        ConstraintFailed, match=f"^The {grammar.kind} could not be followed to its end: "
    ) as caught:
        follow(compiler.compile(grammar), ord("a"))
    assert caught.value.error.param == grammar.param
    assert "<" not in caught.value.error.message


@pytest.mark.fault("R2")
def test_a_grammar_that_costs_more_with_each_token_is_an_error(compiler: ConstraintCompiler) -> None:
    with pytest.raises(ConstraintFailed, match="takes too long to find out"):
        follow(compiler.compile(AMBIGUOUS), ord("a"))


def test_a_token_that_is_not_allowed_is_an_error(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Grammar(GrammarKind.REGEX, "ab"))
    with pytest.raises(ConstraintFailed):
        constraint.accept(ord("b"))


@pytest.mark.parametrize("n", [600, 2000], ids=["props-600", "props-2000"])
def test_objects_with_many_properties_are_followed(compiler: ConstraintCompiler, n: int) -> None:
    constraint = compiler.compile(schema(optional_properties(n)))
    for byte in f'{{"p7": "x", "p{n - 1}": "y"'.encode():
        constraint.accept(byte)
    assert not _allows(constraint, ord(","))
    constraint.accept(ord("}"))
    assert constraint.finished


def test_what_was_compiled_is_ready(compiler: ConstraintCompiler) -> None:
    grammar = Grammar(GrammarKind.REGEX, "c[de]")
    assert compiler.ready(grammar) is None
    first = compiler.compile(grammar)
    first.accept(ord("c"))

    second = compiler.ready(grammar)
    assert second is not None
    assert _allows(second, ord("c"))


def test_what_was_refused_is_refused_again(compiler: ConstraintCompiler) -> None:
    grammar = Grammar(GrammarKind.REGEX, "c(", param="regex")
    with pytest.raises(InvalidRequest) as first:
        compiler.compile(grammar)
    with pytest.raises(InvalidRequest) as second:
        compiler.ready(grammar)
    assert (second.value.message, second.value.param) == (first.value.message, "regex")


def test_few_grammars_are_remembered(compiler: ConstraintCompiler) -> None:
    grammars = [Grammar(GrammarKind.REGEX, f"few{index}") for index in range(MAX_CACHED + 1)]
    for grammar in grammars:
        compiler.compile(grammar)

    assert compiler.ready(grammars[0]) is None
    assert compiler.ready(grammars[-1]) is not None
