"""Grammars: what is allowed, what is forced, what is refused and how."""

from __future__ import annotations

import json

import pytest
from llguidance import LLTokenizer

from kolosal.engines.worker.constraint import Constraint, ConstraintCompiler
from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind

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
        assert constraint.accept(byte)


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
