"""The only Jinja environment of the project.

Templates come from model files, which are hostile, so it is the immutable sandbox, in the worker process, with bounds on
what a template can make.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDERED_CHARS = 16 * 1024 * 1024
"""Characters of a rendered conversation, and of anything an operator in a template makes."""

_BITS_COST = 1024
"""A bit of a number costs as much as this many characters: work on long numbers grows faster than they do."""

_MAX_REASON_CHARS = 500
"""How much of a template's own words is told to the client."""


class TemplateFailed(Exception):
    """The template cannot be compiled, or refuses this conversation. The message is the template's own."""


def compile_template(source: str) -> Template:
    """A template from its source.

    Raises:
        TemplateFailed: it is no Jinja template.
    """
    try:
        return _environment().from_string(source)
    except Exception as exc:  # a hostile source raises what it likes: ValueError, RecursionError, MemoryError
        raise TemplateFailed(f"The chat template is not valid: {_reason(exc)}") from exc


def render(template: Template, variables: dict[str, Any]) -> str:
    """What the template makes of its variables.

    Raises:
        TemplateFailed: it refuses them, or makes more than it may.
    """
    pieces: list[str] = []
    n_chars = 0
    try:
        for piece in template.generate(variables):
            n_chars += len(piece)
            if n_chars > MAX_RENDERED_CHARS:
                raise TemplateError(f"it makes more than {MAX_RENDERED_CHARS} characters")
            pieces.append(piece)
        text = "".join(pieces)
        text.encode()  # a template can make lone surrogates, which are no text
    except Exception as exc:  # a template runs code of its own and raises what it likes
        raise TemplateFailed(f"The model's chat template refused the messages: {_reason(exc)}") from exc
    return text


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: what an assistant said, marked for training; here just what it is."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, without operators that make much of little."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`, unless that is larger than any conversation needs."""
        if _size_of(operator, left, right) > MAX_RENDERED_CHARS:
            raise TemplateError(f"the result of {operator} is too large")
        return super().call_binop(context, operator, left, right)


def _size_of(operator: str, left: Any, right: Any) -> int:
    """How large a product or power gets: items of a sequence, bits of a number; 0 where it cannot tell."""
    match left, right:
        case int(), int() if operator == "**":
            return left.bit_length() * abs(right) * _BITS_COST
        case int(), int():
            return (left.bit_length() + right.bit_length()) * _BITS_COST
        case (str() | list() | tuple(), int()):
            return len(left) * right
        case (int(), str() | list() | tuple()):
            return left * len(right)
        case _:
            return 0


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment Hugging Face templates are written for, in the sandbox."""
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    filters: dict[str, Callable[..., Any]] = environment.filters
    filters["tojson"] = _tojson
    return environment


def _reason(exc: Exception) -> str:
    """An exception in words that fit into a frame."""
    words = str(exc)[:_MAX_REASON_CHARS] or type(exc).__name__
    return words.encode(errors="replace").decode()


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return dt.datetime.now().astimezone().strftime(pattern)


def _tojson(
    value: object,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without Jinja's HTML escapes: the model was trained on plain JSON."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )


def _listed(value: object) -> list[object]:
    """What filters like `map` give, as JSON has it."""
    if isinstance(value, Iterator):
        return list(itertools.islice(value, MAX_RENDERED_CHARS))
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
