"""The only Jinja environment of the project.

Templates come from model files, which are hostile, so they run in the immutable sandbox, in the worker process, on a
budget (`budget.py`) of processor time and of bytes:

- the source is bounded in characters and in tokens, and nothing of it is run while it is compiled;
- `metering.py` makes each pass through a body, each comparison and each slice count;
- `sandbox.py` asks operators, calls, filters and tests what they read and make before they do it (`growth.py`), and
  leaves out what no chat template needs (`offer.py`).

So no single piece of work is long or large, and the budget ends what has many.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any, Final

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser

from kolosal.engines.worker.templates.budget import Budget
from kolosal.engines.worker.templates.metering import metered
from kolosal.engines.worker.templates.sandbox import Sandbox

MAX_TEMPLATE_CHARS: Final = 262_144
"""Characters of a template. The longest of the field have 17,000."""

MAX_TEMPLATE_TOKENS: Final = 20_000
"""Words and signs of a template: what takes time to compile. Those have 4,000."""

MAX_RENDERED_CHARS: Final = 16 * 1024 * 1024
"""Characters of a rendered conversation."""

_MAX_REASON_CHARS: Final = 500
"""How much of a template's own words is told to the client."""


class TemplateFailed(Exception):
    """The template cannot be compiled, or refuses this conversation. The message is the template's own."""


class JinjaTemplate:
    """One template and its budget. Belongs to one thread."""

    def __init__(self, source: str) -> None:
        """Compile a template.

        Raises:
            TemplateFailed: it is no Jinja template, or one that is too large.
        """
        self._budget = Budget()
        try:
            self._template = _compiled(source, self._budget)
        except (
            Exception
        ) as exc:  # a hostile source raises what it likes: ValueError, RecursionError, MemoryError
            raise TemplateFailed(f"The chat template is not valid: {_reason(exc)}") from exc

    def renew(self) -> None:
        """Give it its whole budget again: for the next request, however many renderings that takes."""
        if self._budget.is_low():
            gc.collect()  # macros and namespaces hold each other: large, but too few for Python to look by itself
        self._budget.renew()

    def render(self, variables: dict[str, Any]) -> str:
        """What the template makes of its variables.

        Raises:
            TemplateFailed: it refuses them, or costs more than it may.
        """
        pieces: list[str] = []
        n_chars = 0
        try:
            for piece in self._template.generate(variables):
                piece.encode()  # a template can make lone surrogates, which are no text
                n_chars += len(piece)
                if n_chars > MAX_RENDERED_CHARS:
                    raise TemplateError(f"it makes more than {MAX_RENDERED_CHARS} characters")
                pieces.append(piece)
        except Exception as exc:  # a template runs code of its own and raises what it likes
            raise TemplateFailed(f"The model's chat template refused the messages: {_reason(exc)}") from exc
        return "".join(pieces)


class _ChatSyntax(Extension):
    """`{% generation %}…{% endgeneration %}`: what an assistant said, marked for training; here just what it is."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        """The words and signs of a template, as many as it may have."""
        for n_tokens, token in enumerate(stream):
            if n_tokens >= MAX_TEMPLATE_TOKENS:
                raise TemplateError(f"it has more than {MAX_TEMPLATE_TOKENS} words and signs")
            yield token


def _compiled(source: str, budget: Budget) -> Template:
    if len(source) > MAX_TEMPLATE_CHARS:
        raise TemplateError(f"it has {len(source)} characters, more than {MAX_TEMPLATE_CHARS}")
    sandbox = Sandbox(budget, (loopcontrols, _ChatSyntax))
    code = sandbox.compile(metered(sandbox.parse(source)))
    return Template.from_code(sandbox, code, sandbox.make_globals(None))


def _reason(exc: Exception) -> str:
    """An exception in words that fit into a frame."""
    words = str(exc)[:_MAX_REASON_CHARS] or type(exc).__name__
    return words.encode(errors="replace").decode()
