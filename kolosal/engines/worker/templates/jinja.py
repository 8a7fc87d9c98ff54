"""The only Jinja environment of the project, and the process that it runs in.

Templates come from model files, which are hostile, so they are rendered in Jinja's immutable sandbox by a process that has
nothing to lose (`renderer.py` starts it): it holds one conversation at a time, cannot open a file or start a process, and is
ended when it takes too long. Every engine has one, so it imports Jinja and Python's library only.

A request is a line of JSON: `{"source": text}` to compile or `{"variables": [{…}, …]}` to render, both with `"renew": bool`,
whether it gets its whole processor time. The answer is a line too: a list with `{"text": …}` or `{"error": …}` for each.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import jinja2.debug  # noqa: F401 - Jinja imports it when a template fails, when no file can be opened any more
from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kolosal.engines.worker.templates.limits import (
    MAX_ANSWER_BYTES,
    MAX_CPU_S,
    MAX_MEMORY_BYTES,
    OUT_OF_MEMORY,
)

if sys.platform == "win32":
    from kolosal.engines.worker.templates.limits_windows import limit_processor_time, limit_this_process
else:
    from kolosal.engines.worker.templates.limits_posix import limit_processor_time, limit_this_process

_MAX_REASON_CHARS: Final = 500
"""How much of a template's own words is told to the client."""

_JSON = json.JSONEncoder(ensure_ascii=False, check_circular=False)


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
            answers = [_attempt(self._compile, request["source"])]
        else:
            answers = [_attempt(self._render, variables) for variables in request["variables"]]
        line = b"[%b]\n" % b",".join(answers)
        if len(line) > MAX_ANSWER_BYTES:
            too_long = _refusal(TemplateError(f"it makes more than {MAX_ANSWER_BYTES >> 20} MiB of text"))
            line = b"[%b]\n" % b",".join([too_long] * len(answers))
        return line

    def _compile(self, source: str) -> dict[str, str]:
        self._template = self._environment.from_string(source)
        return {}

    def _render(self, variables: dict[str, Any]) -> dict[str, str]:
        return {"text": self._template.render(variables)}


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: what an assistant said, marked for training; here just what it is."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _attempt(work: Callable[[Any], dict[str, str]], given: Any) -> bytes:
    try:
        return _JSON.encode(work(given)).encode()
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001 - a template raises what it likes, and so does compiling it: RecursionError, ValueError
        return _refusal(exc)


def _refusal(exc: Exception) -> bytes:
    words = (
        exc.strerror if isinstance(exc, OSError) else ""
    )  # without the path of a codec that cannot be imported
    with contextlib.suppress(ValueError):  # a number with too many digits
        words = words or str(exc)[:_MAX_REASON_CHARS]
    return _JSON.encode({"error": words or type(exc).__name__}).encode(errors="replace")


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


def _strftime_now(pattern: str) -> str:
    return dt.datetime.now().astimezone().strftime(pattern)


def main() -> NoReturn:
    """Answer requests until the worker is gone. The first line that comes says that this process is ready."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    renderer = JinjaRenderer()
    _strftime_now("%Z")  # reads the time zone while files can be opened
    gc.freeze()  # so that collecting what a rendering has left looks at nothing else
    limit_this_process(MAX_MEMORY_BYTES)
    left_s, answer = MAX_CPU_S, b"[]\n"
    with contextlib.suppress(BrokenPipeError):
        while True:
            answers.write(answer)
            answers.flush()
            gc.collect()
            line = requests.readline()
            if not line:
                break
            try:
                request = json.loads(line)
                limit_processor_time(MAX_CPU_S if request["renew"] else left_s)
                answer = renderer.answer(request)
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            left_s = limit_processor_time(0)
    os._exit(0)
