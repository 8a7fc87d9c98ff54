"""The only Jinja environment of the project, and the process that it runs in.

Templates come from model files, which are hostile, so they are rendered in Jinja's immutable sandbox by a process that has
nothing to lose (`renderer.py` starts it): it holds one conversation at a time, cannot open a file or start a process, and is
ended when it takes too long. Every engine has one, so it imports Jinja and Python's library only.

A request is `{"source": text}` to compile or `{"variables": [{…}, …]}` to render; see `sandbox/serve.py`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any, NoReturn

import jinja2.debug  # noqa: F401 - Jinja imports it when a template fails, when no file can be opened any more
from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kolosal.engines.worker.sandbox.serve import answers_line, attempt, refusal, serve
from kolosal.engines.worker.templates.limits import LIMITS


class JinjaRenderer:
    """Answers requests, with the template that was compiled last."""

    def __init__(self) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=(loopcontrols, _Generation),
            optimized=False,  # which would run parts of the template while it is compiled
            finalize=pass_context(lambda _, value: value),  # and so would none, or one without context
        )
        for names, importing in (("globals", "lipsum"), ("filters", "striptags"), ("filters", "wordwrap")):
            del getattr(self._environment, names)[importing]
        self._environment.filters["tojson"] = _to_json
        self._environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self._template = self._environment.from_string("{{ 'a' }}")

    def answer(self, request: dict[str, Any]) -> bytes:
        """The line that answers a request.

        Raises:
            MemoryError: it costs more memory than there is.
        """
        if "source" in request:
            answers = [attempt(self._compile, request["source"])]
        else:
            answers = [attempt(self._render, variables) for variables in request["variables"]]
        line = answers_line(answers)
        if len(line) > LIMITS.answer_bytes:
            too_long = refusal(TemplateError(f"it makes more than {LIMITS.answer_bytes >> 20} MiB of text"))
            line = answers_line([too_long] * len(answers))
        return line

    def _compile(self, source: str) -> dict[str, str]:
        self._template = self._environment.from_string(source)
        return {}

    def _render(self, variables: dict[str, Any]) -> dict[str, str]:
        return {"text": self._template.render(_dates() | variables)}


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: what an assistant said, marked for training; here just what it is."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: object,
    indent: int | str | None = None,
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
    if not isinstance(value, Iterator):
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return list(value)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _hour() -> dt.datetime:
    """The time, without its minutes: a prompt with them would begin otherwise each time, and share no KV cells."""
    return dt.datetime.now().astimezone().replace(minute=0, second=0, microsecond=0)


def _strftime_now(pattern: str) -> str:
    return _hour().strftime(pattern)


def _dates() -> dict[str, str]:
    """What llama-server gives to templates: `date_string` for Llama 3, `datetime` for Firefunction."""
    hour = _hour()
    in_greenwich = hour.astimezone(dt.UTC)
    return {
        "date_string": hour.strftime("%d %b %Y"),
        "datetime": in_greenwich.strftime("%b %d %Y %H:%M:%S GMT"),
    }


def main() -> NoReturn:
    """Answer requests until the worker is gone."""
    renderer = JinjaRenderer()
    _strftime_now("%Z")  # reads the time zone while files can be opened
    serve(renderer.answer, LIMITS)
