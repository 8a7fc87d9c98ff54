"""Numbers and white space of JSON end."""

from __future__ import annotations

import json

import pytest

from kolosal.engines.worker.constraint import ConstraintCompiler
from kolosal.engines.worker.grammars.run_limits import MAX_BLANKS
from kolosal.schema import Grammar, GrammarKind
from tests.engines.worker.helpers import fake_backend
from tests.fake_worker.backend import END


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(fake_backend().constraint_tokenizer)


def written(compiler: ConstraintCompiler, schema: object, wishes: str) -> str:
    """What is written by somebody who wants one of these characters most, the first of them before all, and never the end."""
    constraint = compiler.compile(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema)))
    text = ""
    while not constraint.finished and len(text) < 400:
        mask = constraint.mask()
        order = [*wishes.encode(), *range(256), END]
        token = next(token for token in order if mask[token // 8] >> token % 8 & 1)
        if token == END:
            break
        constraint.accept(token)
        text += chr(token)
    return text


@pytest.mark.parametrize(
    ("schema", "wishes", "text"),
    [
        ({"type": "integer"}, "7", "7" * 19),
        ({"type": "number"}, "7", "7" * 19 + "." + "7" * 17 + "E77"),
        ({"type": "number"}, "e7", "7e77"),
        ({"type": "number"}, "-7", "-" + "7" * 19 + "." + "7" * 17 + "E-77"),
        ({"type": "number", "minimum": 0, "maximum": 10}, "73", "7." + "7" * 17),
        ({"type": "integer", "minimum": 0, "maximum": 10**18}, "9", "9" * 18),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "7", f"[{'7' * 19}, {'7' * 19}]"),
        ({"const": 1e21}, "", "1" + 21 * "0"),
    ],
    ids=["integer", "number", "exponent", "negative", "range", "range-of-integers", "array", "const"],
)  # fmt: skip
def test_number_digits(compiler: ConstraintCompiler, schema: object, wishes: str, text: str) -> None:
    assert written(compiler, schema, wishes) == text


@pytest.mark.parametrize(
    "schema",
    [{"type": "string", "maxLength": 90}, {"type": "string", "pattern": "^[0-9]{1,90}$"}],
    ids=["any", "digits"],
)
def test_digits_of_strings_are_as_many_as_they_are(compiler: ConstraintCompiler, schema: object) -> None:
    assert written(compiler, schema, "7") == f'"{"7" * 90}"'


def test_blanks_of_strings_are_as_many_as_they_are(compiler: ConstraintCompiler) -> None:
    assert written(compiler, {"type": "string", "maxLength": 90}, " ") == f'"{" " * 90}"'


def test_white_space_between_tokens_ends(compiler: ConstraintCompiler) -> None:
    schema = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}
    text = written(compiler, schema | {"x-guidance": {"whitespace_flexible": True}}, " 1")

    blanks = " " * MAX_BLANKS
    assert text == f"[{blanks}1{blanks},{blanks}1{blanks}]"
