"""JSON schemas of the types that routes decode and answer with, as components of one document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from kolosal.routes.openapi.notes import FieldNotes

Schema: TypeAlias = dict[str, Any]
Mode: TypeAlias = Literal["validation", "serialization"]

REF = "#/components/schemas/{model}"
"""Where components stand."""

_BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "enum",
)
"""Keywords that say more about a value than its type."""


class Schemas:
    """All types of one document, asked for by who needs them, made together so that they share their components."""

    def __init__(self, wanted: Iterable[tuple[Any, Mode]]) -> None:
        inputs = {_key(kind, mode): (kind, mode) for kind, mode in wanted}
        adapters = [(key, mode, TypeAdapter(kind)) for key, (kind, mode) in inputs.items()]
        made, definitions = TypeAdapter.json_schemas(
            adapters, ref_template=REF, schema_generator=_with_notes(FieldNotes())
        )
        self._made = {key: schema for (key, _), schema in made.items()}
        self.components: dict[str, Schema] = dict(definitions.get("$defs", {}))
        """Name → schema; all references in the schemas lead here."""

    def of(self, kind: Any, mode: Mode = "validation") -> Schema:
        """The schema of one of the types; a reference where it is a component."""
        return self._made[_key(kind, mode)]

    def resolved(self, schema: Schema) -> Schema:
        """A schema, or the component it refers to."""
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        return self.components[name] if name else schema


def complete(body: Schema, bounds: Schema, defaults: Mapping[str, object]) -> None:
    """Complete the fields of `body` by what `bounds` says of fields of the same name and type; what they say wins."""
    for name, schema in body.get("properties", {}).items():
        other = bounds.get("properties", {}).get(name, {})
        branches = (schema, *schema.get("anyOf", ()), *_alternatives(schema))
        same_type = [_add_bounds(branch, other) for branch in branches]
        for keyword in ("description", "default"):
            if any(same_type) and other.get(keyword) is not None:
                schema.setdefault(keyword, other[keyword])
        if name in defaults:
            schema["default"] = defaults[name]


def _alternatives(schema: Schema) -> list[Schema]:
    """The kinds of value of a field that may be null or one of several kinds."""
    found = list(schema.get("oneOf", ()))
    for branch in schema.get("anyOf", ()):
        found += branch.get("oneOf", ())
    return found


def _add_bounds(branch: Schema, other: Schema) -> bool:
    """Complete one kind of value; False when `other` is about another type."""
    same = [c for c in (other, *other.get("anyOf", ())) if "type" in c and c["type"] == branch.get("type")]
    for candidate in same:
        for keyword in _BOUNDS:
            if keyword in candidate:
                branch.setdefault(keyword, candidate[keyword])
        if "items" in branch and "items" in candidate:
            _add_bounds(branch["items"], candidate["items"])
    return bool([c for c in same if c["type"] != "null"])


def _key(kind: Any, mode: Mode) -> str:
    return f"{mode} {kind!r}"


def _with_notes(notes: FieldNotes) -> type[GenerateJsonSchema]:
    """pydantic's generator, with our docstrings for descriptions and without titles made of names."""

    class Generator(GenerateJsonSchema):
        def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
            return False

        def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
            return self._noted(super().model_schema(schema), schema["cls"])

        def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
            return self._noted(super().dataclass_schema(schema), schema["cls"])

        def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
            made = super().typed_dict_schema(schema)
            cls = schema.get("cls")
            return made if cls is None else self._noted(made, cls)

        def _noted(self, made: JsonSchemaValue, cls: type) -> JsonSchemaValue:
            for field in made.get("properties", {}).values():
                if field.get("default", "") is None:  # as good as leaving the field out: it says nothing
                    del field["default"]
            fields: dict[str, FieldInfo] = getattr(cls, "model_fields", {})
            for name, text in notes.of(cls).items():
                shown = (fields[name].alias if name in fields else None) or name
                if shown in made.get("properties", {}):
                    made["properties"][shown].setdefault("description", text)
            return made

    return Generator
