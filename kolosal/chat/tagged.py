"""Arguments in tags, one for each, as Qwen's coders write them: strings as they are, all else as JSON.

Only the schema tells which arguments are strings, so the rules and the reader ask the same question here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kolosal.chat.json_schema.enforceable import enforceable_object
from kolosal.chat.schemas import dump
from kolosal.chat.text_source import Reading, TextSource
from kolosal.errors import InvalidRequest
from kolosal.schema import Tool

_BEGIN, _END, _LAST = "<parameter=", "</parameter>", "</function>"
_KEY = re.compile(r"[^>\s]+")
_MAX_KEY_CHARS = 256
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "format", "$comment"})
_LENGTHS = frozenset({"type", "minLength", "maxLength"})
_ROOT = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "$defs",
        "definitions",
        "$schema",
        "$id",
        "x-guidance",
    }
)
_MAX_COUNT = 100_000

_MAX_WRITTEN_CHARS = 1024 * 1024
"""Characters of one tool's arguments as a grammar, which needs shared definitions again for each argument that refers to one."""


def string_arguments(tool: Tool) -> frozenset[str]:
    """The arguments that are written as they are."""
    properties = enforceable_object(tool.parameters).schema.get("properties", {})
    return frozenset(name for name, schema in properties.items() if _is_string(schema))


def _is_string(schema: object) -> bool:
    if not isinstance(schema, dict):
        return False
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return all(isinstance(value, str) for value in values)
    return schema.get("type") == "string"


def around_string(name: str) -> tuple[str, str]:
    """What stands before and after the one argument of a call, which is written as it is."""
    return f"{_BEGIN}{name}>\n", f"\n{_END}\n{_LAST}"


def read_tagged(source: TextSource, strings: frozenset[str], show: Callable[[str], None]) -> Reading[bool]:
    """Show arguments as a JSON object while they come; False where they are broken, or the text ends before.

    `strings`: those written as they are, see `string_arguments`.
    """
    show("{")
    separator = ""
    while True:
        yield from source.blanks()
        if (yield from source.starts_with(_LAST)):
            show("}")
            return True
        if not (yield from source.starts_with(_BEGIN)):
            return False
        key = yield from source.while_in(_KEY, _MAX_KEY_CHARS)
        if not key or not (yield from source.starts_with(">")):
            return False
        yield from source.starts_with("\n")
        show(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        separator = ", "
        ends = ("\n" + _END, _END)
        if not (yield from source.string(ends, show) if key in strings else _json(source, ends, show)):
            return False


def _json(source: TextSource, ends: Sequence[str], show: Callable[[str], None]) -> Reading[bool]:
    pieces: list[str] = []
    end = yield from source.until(ends, pieces.append)
    text = "".join(pieces)
    show(text)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return end is not None


@dataclass(slots=True)
class TaggedRules:
    """The rules for one tool's arguments. Fields as of `NotationRules`."""

    schema: dict[str, Any]
    param: str
    prefix: str
    literal: Callable[[str], str]
    rules: list[str] = field(default_factory=list)

    def arguments(self) -> str:
        """What all arguments look like.

        Raises:
            InvalidRequest: the schema has what cannot be enforced.
        """
        self._check(self.schema, _ROOT)
        properties = self.schema.get("properties", {})
        required = self.schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise self._refused("'properties' must be an object and 'required' an array")
        needed = {name for name in required if isinstance(name, str)}
        properties = properties | {
            name: {} for name in required if isinstance(name, str) and name not in properties
        }
        written = []
        n_chars = 0
        for name, schema in properties.items():
            argument = f"{self.literal(f'{_BEGIN}{name}>' + chr(10))} {self._value(schema)}"
            written.append(argument if name in needed else f"({argument})?")
            n_chars += len(argument)
            if n_chars > _MAX_WRITTEN_CHARS:
                raise self._refused(f"it makes a grammar of more than {_MAX_WRITTEN_CHARS} characters")
        return " ".join([*written, self.literal(_LAST)])

    def _value(self, schema: object) -> str:
        end = f"\n{_END}\n"
        if not isinstance(schema, dict) or not _is_string(schema):
            written: dict[str, Any] = {
                **(schema if isinstance(schema, dict) else {}),
                "x-guidance": self.schema["x-guidance"],
            }
            if '"$ref"' in dump(written):
                shared = ("$defs", "definitions")
                written |= {name: self.schema[name] for name in shared if name in self.schema}
            return f"%json {dump(written)} {self.literal(end)}"
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if values is not None:
            if not isinstance(values, list):
                raise self._refused(f"'enum' must be an array, not {json.dumps(values)[:100]}")
            self._check(schema, frozenset({"type", "const", "enum"}))
            return f"({' | '.join(self.literal(value + end) for value in values)})"
        self._check(schema, _LENGTHS)
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        bounds = f"{least},{most if isinstance(most, int) and most <= _MAX_COUNT else ''}"
        name = f"{self.prefix}_{len(self.rules)}"
        inside = "(.|\\n)*" if bounds == "0," else f"(.|\\n){{{bounds}}}"
        self.rules.append(f"{name}[lazy]: /{inside}\\n<\\x2fparameter>\\n/")
        return name

    def _check(self, schema: dict[str, Any], known: frozenset[str]) -> None:
        unknown = sorted(schema.keys() - known - _ANNOTATIONS)
        if unknown and not self.schema["x-guidance"]["lenient"]:
            raise self._refused(
                f"{unknown[0]!r} cannot be enforced for this model, which does not write JSON here"
            )

    def _refused(self, reason: str) -> InvalidRequest:
        return InvalidRequest(f"Field {self.param} is not valid: {reason}", param=self.param)
