"""Custom tools: their calls take text, free or in a format, in place of JSON. To an engine they are functions of one string.

https://platform.openai.com/docs/guides/function-calling#custom-tools
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import Field

from kolosal.chat.events import parsed_arguments
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required
from kolosal.schema import MAX_GRAMMAR_CHARS, TEXT_ARGUMENT, Grammar, GrammarKind, Tool

FormatSyntax: TypeAlias = Literal["lark", "regex"]

FormatText: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_CHARS)]

_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {TEXT_ARGUMENT: {"type": "string"}},
    "required": [TEXT_ARGUMENT],
    "additionalProperties": False,
}

_HEAD = re.compile(rf'\{{\s*"{TEXT_ARGUMENT}"\s*:\s*"')
_MAX_HEAD_CHARS = 256
_WHOLE_CHARS = re.compile(r'[^"\\]+|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9A-Fa-f]{4}|(?:\\u[dD][89abAB][0-9A-Fa-f]{2}){1}\\u[dD][c-fC-F][0-9A-Fa-f]{2}')  # fmt: skip


class CustomFormat(RequestBody):
    """`format` of a custom tool: `{"type": "text"}`, or a grammar that the input conforms to."""

    type: Literal["text", "grammar"]
    syntax: FormatSyntax | None = None
    """Required for the type `grammar`."""
    definition: FormatText | None = None
    """The same."""

    def to_grammar(self, path: str) -> Grammar | None:
        """The format as a grammar; None for text."""
        if self.type == "text":
            return None
        param = f"{path}.definition"
        return format_grammar(
            required(self.syntax, f"{path}.syntax"), required(self.definition, param), param
        )


def format_grammar(syntax: FormatSyntax, definition: str, param: str) -> Grammar:
    """A format as a grammar; `param` is where its definition stands."""
    return Grammar(
        GrammarKind(syntax), _without_anchors(definition) if syntax == "regex" else definition, param
    )


def custom_tool(name: str, description: str | None, text: Grammar | None) -> Tool:
    """A custom tool as engines know it. The model is shown the format, as it has no other way to know it."""
    said = description or ""
    if text is not None:
        how = "regular expression" if text.kind is GrammarKind.REGEX else "Lark grammar"
        said = f"{said}\n\nThe input must conform to this {how}:\n{text.source}".lstrip()
    return Tool(name, said, _PARAMETERS, text=text)


def arguments_of(text: str) -> str:
    """An input as the arguments that engines know."""
    return orjson.dumps({TEXT_ARGUMENT: text}).decode()


def input_of(arguments: str) -> str:
    """The input of a call; of one that was cut off, as much as there is."""
    whole = parsed_arguments(arguments)
    if whole is not None and isinstance(text := whole.get(TEXT_ARGUMENT), str):
        return text
    return InputReader().push(arguments)


class InputReader:
    """Reads the input out of a call's arguments as they come, character by whole character."""

    def __init__(self) -> None:
        self._rest = ""
        self._inside = self._ended = False

    def push(self, arguments: str) -> str:
        """What more arguments add to the input."""
        if self._ended:
            return ""
        self._rest += arguments
        if not self._inside:
            head = _HEAD.match(self._rest)
            if head is None:
                self._ended = len(self._rest) > _MAX_HEAD_CHARS
                return ""
            self._inside, self._rest = True, self._rest[head.end() :]
        end = 0
        while (piece := _WHOLE_CHARS.match(self._rest, end)) is not None:
            end = piece.end()
        self._ended = self._rest[end : end + 1] == '"'
        whole, self._rest = self._rest[:end], self._rest[end:]
        return str(orjson.loads(f'"{whole}"')) if whole else ""


def _without_anchors(pattern: str) -> str:
    """A regular expression without the anchors at its ends: it is matched against the whole input anyway."""
    pattern = pattern.removeprefix("^")
    backslashes = len(pattern) - len(pattern[:-1].rstrip("\\")) - 1
    return pattern[:-1] if pattern.endswith("$") and backslashes % 2 == 0 else pattern
