"""JSON schemas as rules for Gemma's notation.

What a model may write is always valid against the schema; keywords that cannot be held to that are refused. Members that
a schema allows without naming them are not written, unless it names none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kolosal.errors import InvalidRequest

_PLAIN = frozenset({"integer", "number", "boolean", "null"})
"""Types whose notation is JSON."""

_KNOWN: dict[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "format", "contentEncoding", "contentMediaType"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
_ANNOTATIONS = frozenset(
    {"type", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id",
     "$comment", "$defs", "definitions", "x-guidance", "nullable"}
)  # fmt: skip
_RAW_KEY_FORBIDDS = set(' \t\r\n:,{}[]<"')
_COMMA = ' "," '
_DEPTH = 64
_MAX_COUNT = 100_000
"""Bound of lengths: larger ones are left open above."""


@dataclass(slots=True)
class NotationRules:
    """The rules for one tool's arguments."""

    schema: dict[str, Any]
    """Of `tool_schema`."""
    param: str
    """The request field it came from, for errors."""
    prefix: str
    """Begins the names of its rules."""
    literal: Callable[[str], str]
    """Text as the grammar has it."""
    quote: str
    """The mark around strings."""
    text: str
    """A terminal's body for the inside of a string."""
    rules: list[str] = field(default_factory=list)
    _references: dict[str, str] = field(default_factory=dict)
    _any: str = ""

    def value(self, schema: object, depth: int = 0) -> str:
        """What a value of this schema looks like: a rule's name.

        Raises:
            InvalidRequest: the schema has what cannot be enforced.
        """
        if schema is True or schema == {}:
            return self._anything()
        if not isinstance(schema, dict) or depth > _DEPTH:
            raise self._refused("a schema within it is no object, or too deep")
        if "$ref" in schema:
            return self._reference(schema, depth)
        if "allOf" in schema:
            return self.value(self._merged(schema, depth), depth + 1)
        if "anyOf" in schema:
            self._check(schema, frozenset({"anyOf"}))
            return self._rule(" | ".join(self.value(each, depth + 1) for each in _list(schema["anyOf"])))
        if "const" in schema or "enum" in schema:
            self._check(schema, frozenset({"const", "enum"}))
            values = [schema["const"]] if "const" in schema else _list(schema["enum"])
            return self._rule(" | ".join(self.literal(write_notation(value, self.quote)) for value in values))
        types = _list(schema.get("type", [])) or [*_KNOWN, *_PLAIN]
        if "type" not in schema:
            types = [each for each, keywords in _KNOWN.items() if keywords & schema.keys()] or types
        return self._rule(" | ".join(self._typed(each, schema, depth) for each in types))

    def _typed(self, kind: object, schema: dict[str, Any], depth: int) -> str:
        if not isinstance(kind, str):
            raise self._refused(f"{json.dumps(kind)[:100]} is no type")
        if kind in _PLAIN:
            return f"%json {json.dumps({**schema, 'type': kind})}"
        if kind not in _KNOWN:
            raise self._refused(f"{json.dumps(kind)[:100]} is no type")
        self._check(schema, _KNOWN[kind])
        match kind:
            case "string":
                return self._string(schema)
            case "array":
                return self._array(schema, depth)
            case _:
                return self._object(schema, depth)

    def _string(self, schema: dict[str, Any]) -> str:
        least, most = _bounds(schema, "minLength", "maxLength")
        name = f"{self.prefix}_S{len(self.rules)}".upper()
        limited = "" if (least, most) == (0, "") else f" & /(.|\\n){{{least},{most}}}/"
        self.rules.append(f"{name}: {self.text}{limited}")
        mark = self.literal(self.quote)
        if not mark.startswith('"'):
            return f"{mark} {name} {mark}"
        self.rules.append(
            f"{name}_Q: {mark} {name} {mark}"
        )  # in one piece: text could go on with part of a mark
        return f"{name}_Q"

    def _merged(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """A schema and those of its `allOf` as one: their members together, of all else what is said first."""
        if depth > _DEPTH:
            raise self._refused("a schema within it is too deep")
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in _list(schema["allOf"]):
            found = part
            while isinstance(found, dict) and "$ref" in found:
                found = self._found(str(found["$ref"]))
            if isinstance(found, dict) and "allOf" in found:
                found = self._merged(found, depth + 1)
            if not isinstance(found, dict):
                continue
            for key, value in found.items():
                if key == "properties" and isinstance(value, dict):
                    merged[key] = value | merged.get(key, {})
                elif key == "required" and isinstance(value, list):
                    merged[key] = [*merged.get(key, []), *value]
                else:
                    merged.setdefault(key, value)
        return merged

    def _array(self, schema: dict[str, Any], depth: int) -> str:
        if isinstance(first := schema.get("prefixItems"), list) and first:
            written = [self.value(each, depth + 1) for each in first[: schema.get("maxItems")]]
            return f'"[" {_COMMA.join(written)} "]"'
        item = self.value(schema.get("items", True), depth + 1)
        least, most = _bounds(schema, "minItems", "maxItems")
        if most == 0:
            return '"[]"'
        more = f'("," {item}){{{max(least - 1, 0)},{"" if most == "" else int(most) - 1}}}'
        items = f"{item} {more}"
        return f'"[" ({items}) "]"' if least else f'"[" ({items})? "]"'

    def _object(self, schema: dict[str, Any], depth: int) -> str:
        properties = schema.get("properties", {})
        required = dict.fromkeys(name for name in _list(schema.get("required", [])) if isinstance(name, str))
        if not isinstance(properties, dict):
            raise self._refused("'properties' is no object")
        properties = properties | {name: True for name in required if name not in properties}
        if not properties:
            return '"{}"' if schema.get("additionalProperties") is False else self._any_object()
        members = [
            (f"{self.literal(self._key(name))} {self.value(value, depth + 1)}", name in required)
            for name, value in properties.items()
        ]
        return f'"{{" {self._members(members)} "}}"'

    def _members(self, members: list[tuple[str, bool]]) -> str:
        """Members in their order, those not required left out at will, with commas between."""
        rest, choices = "", []
        for member, required in reversed(members):
            choices.append(f"{member} {rest}")
            if required:
                choices = [choices[-1]]
            follows = f'"," {member} {rest}' if required else f'("," {member})? {rest}'
            rest = self._rule(follows)
        if not any(required for _, required in members):
            choices.append('""')
        first = next((at for at, (_, required) in enumerate(members) if required), len(members))
        return f"({' | '.join(reversed(choices[-(first + 1) :]))})" if choices else ""

    def _key(self, name: str) -> str:
        plain = name and not _RAW_KEY_FORBIDDS & set(name)
        return f"{name}:" if plain else f"{self.quote}{name}{self.quote}:"

    def _reference(self, schema: dict[str, Any], depth: int) -> str:
        self._check(schema, frozenset({"$ref"}))
        target = str(schema["$ref"])
        if target not in self._references:
            found = self._found(target)
            self._references[target] = f"{self.prefix}_r{len(self._references)}"
            self.rules.append(f"{self._references[target]}: {self.value(found, depth + 1)}")
        return self._references[target]

    def _found(self, target: str) -> object:
        """What a reference leads to: a definition of `enforceable_object`."""
        definitions: dict[str, object] = self.schema.get("$defs", {})
        return definitions[target.removeprefix("#/$defs/")]

    def _anything(self) -> str:
        if not self._any:
            self._any = f"{self.prefix}_any"
            plain = "%json " + json.dumps({"type": sorted(_PLAIN)})
            self.rules.append(
                f'{self._any}: {self._string({})} | {plain} | {self._any_object()} | "[" ({self._any} ("," {self._any})*)? "]"'
            )
        return self._any

    def _any_object(self) -> str:
        value = self._anything()
        name = f"{self.prefix}_KEY".upper()
        if not any(rule.startswith(f"{name}:") for rule in self.rules):
            self.rules.append(f"{name}: /[A-Za-z_][A-Za-z0-9_]*/")
        member = f'{name} ":" {value}'
        return f'"{{" ({member} ("," {member})*)? "}}"'

    def _rule(self, body: str) -> str:
        name = f"{self.prefix}_{len(self.rules)}"
        self.rules.append(f"{name}: {body}")
        return name

    def _check(self, schema: dict[str, Any], known: frozenset[str]) -> None:
        types = _list(schema.get("type", []))
        shared = (
            frozenset().union(*(_KNOWN.get(str(each), _NUMERIC) for each in types))
            if len(types) > 1
            else known
        )
        unknown = sorted(schema.keys() - known - shared - _ANNOTATIONS)
        if unknown and not self.schema["x-guidance"]["lenient"]:
            raise self._refused(
                f"{unknown[0]!r} cannot be enforced for this model, which does not write JSON"
            )

    def _refused(self, reason: str) -> InvalidRequest:
        return InvalidRequest(f"Field {self.param} is not valid: {reason}", param=self.param)


_NUMERIC = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})


def write_notation(value: object, quote: str) -> str:
    """A JSON value in the notation."""
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case dict():
            return (
                "{" + ",".join(f"{name}:{write_notation(each, quote)}" for name, each in value.items()) + "}"
            )
        case list():
            return "[" + ",".join(write_notation(each, quote) for each in value) + "]"
        case _:
            return json.dumps(value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _bounds(schema: dict[str, Any], least: str, most: str) -> tuple[int, int | str]:
    low, high = schema.get(least, 0), schema.get(most)
    low = min(low, _MAX_COUNT) if isinstance(low, int) and low > 0 else 0
    return low, high if isinstance(high, int) and low <= high <= _MAX_COUNT else ""
