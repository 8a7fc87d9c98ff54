"""ChatTemplate: a conversation → the tokens the model was trained to see.

The only Jinja environment of the project. Templates come from model files, which are hostile, so it is the immutable
sandbox, in the worker process. What a user writes is text: where it contains the spelling of a control token, it stays
characters and never becomes the token.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kolosal.engines.worker.backend import Backend
from kolosal.schema import Message

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models without a template: the format most instruction models since 2023 understand."""

# A private-use pair: no tokenizer of the field gives these a meaning, and a template passes them through.
_OPEN, _CLOSE = "\uf8fe", "\uf8ff"
_MARK = re.compile(f"{_OPEN}([0-9]{{1,9}}){_CLOSE}")

_MAX_REASON_CHARS = 500
"""How much of a template's own words is told to the client."""


class TemplateFailed(Exception):
    """The template cannot be compiled, or refuses this conversation. The message is the template's own."""


class ChatTemplate:
    """One model's template, compiled once. Used by the intake thread only."""

    def __init__(self, backend: Backend, configured: str | None) -> None:
        """Compile `configured`, else the model's own, else ChatML.

        Raises:
            TemplateFailed: it is no Jinja template.
        """
        source = backend.template
        self._backend = backend
        self.origin: Literal["model", "configured", "chatml"] = (
            "configured" if configured else "model" if source.text else "chatml"
        )
        self._context = {"bos_token": source.bos, "eos_token": source.eos}
        self._bos = source.bos
        self._controls: re.Pattern[str] | None = None
        try:
            self._template = _environment().from_string(configured or source.text or CHATML)
        except (
            Exception
        ) as exc:  # a hostile source raises what it likes: ValueError, RecursionError, MemoryError
            raise TemplateFailed(f"The chat template is not valid: {_reason(exc)}") from exc

    def tokenize(self, messages: Iterable[Message]) -> list[int]:
        """The prompt that asks for the assistant's next turn.

        Raises:
            TemplateFailed: the template refuses the conversation, e.g. because roles do not alternate.
        """
        literals: list[str] = []
        turns = [self._turn(message, literals) for message in messages]
        text = self._render(turns)
        has_bos = bool(self._bos) and text.startswith(self._bos)
        if not literals:
            return self._backend.tokenize(text, add_special=not has_bos, parse_special=True)
        return self._tokenize_around(text, literals, add_special=not has_bos)

    def _render(self, turns: list[dict[str, str]]) -> str:
        try:
            text = self._template.render(messages=turns, add_generation_prompt=True, **self._context)
            text.encode()  # a template can make lone surrogates, which are no text
        except Exception as exc:  # a template runs code of its own and raises what it likes
            raise TemplateFailed(f"The model's chat template refused the messages: {_reason(exc)}") from exc
        return text

    def _turn(self, message: Message, literals: list[str]) -> dict[str, str]:
        turn = {
            "role": self._shield(message.role, literals),
            "content": self._shield(message.content, literals),
        }
        if message.name is not None:
            turn["name"] = self._shield(message.name, literals)
        return turn

    def _shield(self, text: str, literals: list[str]) -> str:
        """Replace each spelling of a control token by a numbered mark, so that the template passes it through.

        A mark's first character is replaced too, so that no text of a user can make a mark.
        """

        def mark(match: re.Match[str]) -> str:
            literals.append(match[0])
            return f"{_OPEN}{len(literals) - 1}{_CLOSE}"

        return self._control_pattern().sub(mark, text)

    def _control_pattern(self) -> re.Pattern[str]:
        if self._controls is None:  # on first use: it looks at every token of the vocabulary
            texts = sorted((text for text in self._backend.control_texts() if text), key=len, reverse=True)
            alternatives = [re.escape(text) for text in texts]
            self._controls = re.compile("|".join([_OPEN, *alternatives]))
        return self._controls

    def _tokenize_around(self, text: str, literals: list[str], *, add_special: bool) -> list[int]:
        """Tokenise the template's own text with control tokens, and the marked places as plain characters."""
        tokens: list[int] = []
        for index, part in enumerate(_MARK.split(text)):
            if index % 2:
                number = int(part)  # out of range where the template wrote a mark of its own
                literal = literals[number] if number < len(literals) else f"{_OPEN}{part}{_CLOSE}"
                tokens += self._backend.tokenize(literal, add_special=False, parse_special=False)
            elif part or not index:
                tokens += self._backend.tokenize(
                    part, add_special=add_special and not index, parse_special=True
                )
        return tokens


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment Hugging Face templates are written for, in the sandbox."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
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


def _tojson(value: object, indent: int | None = None) -> str:
    """Without Jinja's HTML escapes: the model was trained on plain JSON."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
