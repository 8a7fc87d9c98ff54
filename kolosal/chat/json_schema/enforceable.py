"""A JSON schema as clients write it → what can be enforced of it, and where it says more. Pure.

Serialisers, generators and people write schemas in every draft, and beyond: `nullable`, lengths of `10.0`, nulls for what is left out,
definitions where nobody looks for them. Here they become one small language, which llguidance and our own grammars read: types,
members, items, values, bounds, patterns, `anyOf`, `allOf` and references to `$defs` at the root. What is left out allows more,
never less, and is told with its place. Where a schema leaves open what no model should write, the narrower is taken:
members that an object does not name, and numbers that no double holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from urllib.parse import quote

from kolosal.chat.json_schema.apart import apart
from kolosal.chat.json_schema.leaves import LeafKeywords
from kolosal.chat.json_schema.places import (
    ARRAY,
    ASSERTIONS,
    COMBINED,
    NUMBER,
    OBJECT,
    STRING,
    Notes,
    Schema,
    SchemaPlace,
    Unenforced,
)
from kolosal.chat.json_schema.references import MAX_HOPS, SchemaReferences

_TYPES = {
    **{name: name for name in ("object", "array", "string", "number", "integer", "boolean", "null")},
    "int": "integer", "long": "integer", "float": "number", "double": "number", "decimal": "number", "str": "string", "text": "string",
    "bool": "boolean", "dict": "object", "map": "object", "list": "array", "tuple": "array", "none": "null",
}  # fmt: skip
"""Types, and other names that generators write for them."""

_ANY_TYPE = frozenset({"any", "unknown", "mixed"})

_IMPLIED = (("object", OBJECT), ("array", ARRAY), ("string", STRING), ("number", NUMBER))
_LEFT_OUT = ("not", "if", "contains", "uniqueItems", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
"""Keywords that say what is valid and cannot be enforced, unless they say nothing."""

_MAX_DEPTH = 128


@dataclass(frozen=True, slots=True)
class Enforceable:
    """What can be enforced of a schema."""

    schema: Schema
    unenforced: tuple[Unenforced, ...]


def enforceable(schema: Mapping[str, Any]) -> Enforceable:
    """What can be enforced of the schema of an answer."""
    return _Translation(dict(schema)).whole()


def enforceable_object(schema: Mapping[str, Any]) -> Enforceable:
    """What can be enforced of the schema of a tool's arguments, which are always an object."""
    return _Translation(dict(schema)).whole(is_object=True)


class _Translation:
    """One schema. Used once."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._notes = Notes()
        self._references = SchemaReferences(root)
        self._leaves = LeafKeywords(self._notes)
        self._names: dict[str, str] = {}
        """Of each definition that is referred to, by its pointer."""
        self._waiting: list[tuple[str, object]] = []
        self._shared: set[str] = set()
        """Definitions whose values others say more about."""
        self._onward: dict[str, set[str]] = {}
        """For a definition, those that it refers to in its own place."""
        self._closable: list[tuple[str | None, Schema]] = []

    def whole(self, *, is_object: bool = False) -> Enforceable:
        """The schema that can be enforced, with its definitions."""
        translated = self._object_root() if is_object else self._schema(self._root, SchemaPlace(""))
        found = (
            translated
            if isinstance(translated, dict)
            else {}
            if translated
            else self._nothing(SchemaPlace(""))
        )
        definitions: dict[str, Any] = {}
        while self._waiting:
            pointer, target = self._waiting.pop()
            name = self._names[pointer]
            definitions[name] = self._schema(target, SchemaPlace(pointer, 0, name))
        for name in [*self._shared]:
            self._share(name)
        for owner, each in self._closable:
            if owner is None or owner not in self._shared:
                each["additionalProperties"] = False
        if definitions:
            found["$defs"] = definitions
        if isinstance(self._root.get("x-guidance"), dict):
            found["x-guidance"] = self._root["x-guidance"]
        return Enforceable(
            found, tuple(Unenforced(pointer, reason) for pointer, reason in self._notes.reasons.items())
        )

    def _share(self, name: str) -> None:
        """What a shared definition refers to in its own place is shared, too."""
        for other in self._onward.get(name, set()) - self._shared:
            self._shared.add(other)
            self._share(other)

    def _object_root(self) -> Schema:
        """The root of arguments: types besides objects are left out, and references followed."""
        root, place = self._root, SchemaPlace("")
        if isinstance(root.get("$ref"), str) and not ASSERTIONS & root.keys():
            found = self._references.resolve(root["$ref"], place)
            if found is not None and isinstance(found[1], dict):
                place, root = SchemaPlace(found[0]), found[1]
        types, _ = self._types(_without_nulls(root), place)
        if types is not None and "object" not in types:
            self._notes.add(place / "type", "arguments are always an object")
            root = {}
        known = {key: value for key, value in root.items() if key not in ("type", "nullable")}
        translated = self._schema({**known, "type": "object"}, place)
        return translated if isinstance(translated, dict) else {"type": "object"}

    # --- any schema ---

    def _schema(self, schema: object, place: SchemaPlace) -> Schema | bool:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict) or place.depth > _MAX_DEPTH:
            if schema is not None:
                self._notes.add(place, "a schema must be an object or a boolean")
            return {}
        given = _without_nulls(schema)
        self._note_left_out(given, place)
        if isinstance(given.get("$ref"), str):
            return self._reference(given, place)
        types, nullable = self._types(given, place)
        if "const" in given or "enum" in given:
            values = self._values(given, types, place, nullable=nullable)
            if values is not None:
                return values
        found = self._keywords(given, types, place)
        if nullable and types is None and found:
            return {"anyOf": [found, {"type": "null"}]}
        return found

    def _keywords(self, given: Schema, types: list[str] | None, place: SchemaPlace) -> Schema:
        """What the keywords say about values of these types."""
        combined = [
            keyword for keyword in COMBINED if isinstance(given.get(keyword), list) and given[keyword]
        ]
        if types is None and not combined:
            implied = [kind for kind, keywords in _IMPLIED if any(keyword in given for keyword in keywords)]
            types = implied[:1] or None
        found: Schema = {} if types is None else {"type": types[0] if len(types) == 1 else types}
        any_of = {"object", "array", "string", "number", "integer"} if types is None else set(types)
        if "object" in any_of:
            self._object(given, found, place, is_closed=not combined and place.alone)
        if "array" in any_of:
            self._array(given, found, place)
        if "string" in any_of:
            self._leaves.string(given, found, place)
        if any_of & {"number", "integer"}:
            self._leaves.number(given, found, place)
        self._combine(given, combined, found, place)
        return found

    def _types(self, given: Schema, place: SchemaPlace) -> tuple[list[str] | None, bool]:
        """The types that a schema names, None for any; and whether it takes null besides, as OpenAPI says it."""
        kinds = given.get("type")
        nullable = given.get("nullable") is True
        found: list[str] = []
        for kind in kinds if isinstance(kinds, list) else [] if kinds is None else [kinds]:
            name = kind.casefold() if isinstance(kind, str) else ""
            if name in _ANY_TYPE:
                return None, False
            if name in _TYPES:
                found.append(_TYPES[name])
            elif isinstance(kind, dict):  # draft 3: schemas in place of types
                return None, False
            else:
                self._notes.add(place / "type", f"{json.dumps(kind)[:60]} is no type")
        if found and nullable:
            found.append("null")
        return list(dict.fromkeys(found)) or None, nullable

    def _values(
        self, given: Schema, types: list[str] | None, place: SchemaPlace, *, nullable: bool
    ) -> Schema | None:
        """The values that a schema lists; None where it lists none that it allows."""
        if "const" not in given and not isinstance(given["enum"], list):
            self._notes.add(place / "enum", "it must be an array")
            return None
        keyword = "const" if "const" in given else "enum"
        values = [given["const"]] if keyword == "const" else [*given["enum"]]
        if nullable:
            values.append(None)
        once = {json.dumps(value, sort_keys=True): value for value in values}
        fitting = [value for value in once.values() if types is None or _is_of(value, types)]
        if not fitting:
            self._notes.add(place / keyword, "no value of it is of the type")
            return None
        for other in (*COMBINED, *(("enum",) if keyword == "const" else ())):
            if other in given:
                self._notes.add(place / other, f"it stands beside {keyword}")
        return {"const": fitting[0]} if len(fitting) == 1 else {"enum": fitting}

    def _combine(self, given: Schema, combined: list[str], found: Schema, place: SchemaPlace) -> None:
        alone = len(combined) == 1 and not any(keyword in given for keyword in OBJECT)
        groups: list[Schema] = []
        for keyword in combined:
            single = keyword != "allOf" or len(given[keyword]) == 1
            members = [
                self._schema(member, place.choice(keyword, index, alone=alone and single))
                for index, member in enumerate(given[keyword])
            ]
            if keyword == "allOf":
                groups += [member for member in members if isinstance(member, dict)]
            else:
                kept = [member for member in members if member is not False]
                if keyword == "oneOf" and not self._disjoint(given[keyword], place):
                    self._notes.add(place / keyword, "more than one of it may hold")
                groups.append({"anyOf": kept} if kept else self._nothing(place / keyword))
        for keyword in COMBINED:
            if keyword in given and keyword not in combined:
                self._notes.add(place / keyword, "it must be an array of at least one schema")
        if len(groups) == 1 and (not found or not found.keys() & groups[0].keys()):
            found.update(groups[0])
        elif groups:
            found["allOf"] = groups

    def _disjoint(self, members: list[object], place: SchemaPlace) -> bool:
        """Whether no value can be of two of these schemas, as far as is easily seen."""
        looked = [self._looked_at(member, place) for member in members]
        if len(looked) > 50:
            return False
        return all(apart(one, other) for one, other in combinations(looked, 2))

    def _looked_at(self, schema: object, place: SchemaPlace) -> Schema:
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            found = self._references.resolve(schema["$ref"], place)
            schema = None if found is None else found[1]
        return schema if isinstance(schema, dict) else {}

    def _note_left_out(self, given: Schema, place: SchemaPlace) -> None:
        for keyword in _LEFT_OUT:
            value = given.get(keyword)
            says = value not in (None, False, {}, [], True) or (
                keyword in ("uniqueItems", "not") and value is True
            )
            if keyword.startswith("unevaluated") and value is False:
                says = bool(given.keys() & set(COMBINED)) or keyword == "unevaluatedItems"
            if keyword == "not" and value == {}:
                says = True
            if says:
                self._notes.add(place / keyword, "it cannot be enforced")

    def _nothing(self, place: SchemaPlace) -> Schema:
        self._notes.add(place, "nothing can be valid")
        return {}

    # --- references ---

    def _reference(self, given: Schema, place: SchemaPlace) -> Schema | bool:
        beside = {key: value for key, value in given.items() if key in ASSERTIONS}
        found = self._references.resolve(given["$ref"], place)
        if found is None:
            self._notes.add(place / "$ref", f"it leads nowhere within {MAX_HOPS} steps")
            return self._schema(beside, place)
        pointer, target = found
        if not isinstance(target, dict) or _is_leaf(target):
            inlined = self._schema(target, SchemaPlace(pointer, place.depth + 1, None))
            if not beside or not isinstance(inlined, dict):
                return inlined
            reference = inlined
        else:
            if pointer not in self._names:
                self._names[pointer] = f"d{len(self._names)}"
                self._waiting.append((pointer, target))
            reference = {"$ref": f"#/$defs/{self._names[pointer]}"}
            if not place.alone or beside.keys() - {"nullable"}:
                self._shared.add(self._names[pointer])
            if place.owner:
                self._onward.setdefault(place.owner, set()).add(self._names[pointer])
        if beside.pop("nullable", False) is True:
            reference = {"anyOf": [reference, {"type": "null"}]}
        rest = (
            self._schema(beside, SchemaPlace(place.pointer, place.depth + 1, None, alone=False))
            if beside
            else {}
        )
        return {"allOf": [reference, rest]} if rest and isinstance(rest, dict) else reference

    # --- objects ---

    def _object(self, given: Schema, found: Schema, place: SchemaPlace, *, is_closed: bool) -> None:
        given = self._named_members(given, place)
        properties = self._mapping(given, "properties", place)
        members = {
            name: self._schema(value, place / "properties" / name) for name, value in properties.items()
        }
        required = self._required(given, properties, place)
        others = self._others(given, place)
        if others is False or (others is None and is_closed):
            members = {name: member for name, member in members.items() if member is not False}
        if members:
            found["properties"] = members
        self._pattern_members(given, found, place, others)
        if others is not None and "additionalProperties" not in found:
            found["additionalProperties"] = others
        closed = found.get("additionalProperties") is False and "patternProperties" not in found
        missing = [name for name in required if name not in members]
        if missing and closed:
            self._notes.add(
                place / "required", f"{json.dumps(missing[0])[:60]} is no property, and no other is allowed"
            )
            required = [name for name in required if name in members]
        if required:
            found["required"] = required
        if members and is_closed and "additionalProperties" not in found and "patternProperties" not in found:
            found["properties"] = members | {name: {} for name in missing}
            self._closable.append((place.owner, found))
            closed = True
        self._member_counts(given, found, place, is_closed=closed)

    def _named_members(self, given: Schema, place: SchemaPlace) -> Schema:
        """The schema with its `propertyNames` as other keywords, where they can say the same."""
        names = given.get("propertyNames")
        if names in (None, True, {}) or "patternProperties" in given:
            if names not in (None, True, {}):
                self._notes.add(place / "propertyNames", "it stands beside patternProperties")
            return given
        looked = self._looked_at(names, place)
        if looked.get("type") == "string" and not set(STRING) & looked.keys() and "enum" not in looked:
            return given
        pointer = quote(f"{place.pointer}/additionalProperties")
        value = {"$ref": f"#{pointer}"} if "additionalProperties" in given else True
        listed = looked.get("enum", [looked["const"]] if "const" in looked else None)
        own = given.get("properties")
        own = own if isinstance(own, dict) else {}
        if isinstance(listed, list):
            added = {name: value for name in listed if isinstance(name, str) and name not in own}
            return {**given, "properties": {**own, **added}, "additionalProperties": False}
        if isinstance(looked.get("pattern"), str) and not own:
            return {**given, "patternProperties": {looked["pattern"]: value}, "additionalProperties": False}
        self._notes.add(place / "propertyNames", "it cannot be enforced")
        return given

    def _mapping(self, given: Schema, keyword: str, place: SchemaPlace) -> Schema:
        value = given.get(keyword, {})
        if isinstance(value, dict):
            return value
        self._notes.add(place / keyword, "it must be an object")
        return {}

    def _required(self, given: Schema, properties: Schema, place: SchemaPlace) -> list[str]:
        """The names of `required`; with those of draft 3, which has a boolean in each property."""
        names = given.get("required", [])
        if isinstance(names, bool):  # draft 3: of this schema's own property
            names = []
        elif not isinstance(names, list):
            self._notes.add(place / "required", "it must be an array of names")
            names = []
        named = [name for name in names if isinstance(name, str)]
        named += [name for name, each in properties.items() if isinstance(each, dict) and each.get("required") is True]  # fmt: skip
        return list(dict.fromkeys(named))

    def _others(self, given: Schema, place: SchemaPlace) -> Schema | bool | None:
        """What members may be that have no schema of their own; None where the schema does not say."""
        value = given.get("additionalProperties")
        if value is None and given.get("unevaluatedProperties") is False and not given.keys() & set(COMBINED):
            return False
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str) and value.casefold() in ("true", "false"):
            return value.casefold() == "true"
        if not isinstance(value, dict):
            self._notes.add(place / "additionalProperties", "it must be a boolean or a schema")
            return None
        return self._schema(value, place / "additionalProperties")

    def _pattern_members(
        self, given: Schema, found: Schema, place: SchemaPlace, others: Schema | bool | None
    ) -> None:
        by_pattern = self._mapping(given, "patternProperties", place)
        written: dict[str, Schema | bool] = {}
        for source, value in by_pattern.items():
            here = place / "patternProperties" / source
            pattern = self._leaves.pattern(source, here)
            written[pattern or ""] = self._schema(value, here)
        if len(written) > 1:  # llguidance takes those only that cannot match the same name
            self._notes.add(place / "patternProperties", "names may match another one's schema")
            choices = [value for value in written.values() if value is not False]
            if others is False:
                found["additionalProperties"] = {"anyOf": choices} if choices else False
        elif written:
            found["patternProperties"] = written

    def _member_counts(self, given: Schema, found: Schema, place: SchemaPlace, *, is_closed: bool) -> None:
        members, required = found.get("properties", {}), found.get("required", [])
        least, most = (
            self._leaves.count(given, keyword, place) for keyword in ("minProperties", "maxProperties")
        )
        if least is not None and least > len(required):
            if members:
                self._notes.add(place / "minProperties", "some members may be left out")
            else:
                found["minProperties"] = least
        if most is not None and not (is_closed and len(members) <= most):
            if members or (least or 0) > most:
                self._notes.add(place / "maxProperties", "more members are named")
            else:
                found["maxProperties"] = most

    # --- arrays, strings, numbers ---

    def _array(self, given: Schema, found: Schema, place: SchemaPlace) -> None:
        items, first = given.get("items"), given.get("prefixItems")
        if isinstance(items, list):  # until draft 2019-09
            first, items = items, given.get("additionalItems")
        if isinstance(first, list) and first:
            name = "items" if isinstance(given.get("items"), list) else "prefixItems"
            found["prefixItems"] = [
                self._schema(each, place / name / index) for index, each in enumerate(first)
            ]
        elif first is not None and first != []:
            self._notes.add(place / "prefixItems", "it must be an array")
        if items is not None:
            found["items"] = self._schema(items, place / "items")
        least, most = self._leaves.count_range(given, "minItems", "maxItems", place)
        if found.get("items") is False and least > len(found.get("prefixItems", [])):
            self._notes.add(place / "minItems", "there are not as many items")
            least = 0
        if least:
            found["minItems"] = least
        if most is not None:
            found["maxItems"] = most


def _without_nulls(schema: Mapping[str, Any]) -> Schema:
    """A schema without keywords that are null, as serialisers write those that are left out. `const` may be null in earnest."""
    given = {key: value for key, value in schema.items() if value is not None}
    if "const" in schema and schema["const"] is None and given.get("type") in (None, "null"):
        given["const"] = None
    return given


_MAX_LEAF_VALUES, _MAX_LEAF_CHARS = 16, 400


def _is_leaf(schema: Schema) -> bool:
    """Whether a schema holds no other one, and is so short that it can stand in each place that refers to it."""
    if {"$ref", "pattern", *COMBINED, *OBJECT, *ARRAY} & schema.keys() or schema.get("type") in (
        "object",
        "array",
    ):
        return False
    values = schema.get("enum")
    values = [schema.get("const"), *(values if isinstance(values, list) else [])]
    return len(values) <= _MAX_LEAF_VALUES and len(json.dumps(values)) <= _MAX_LEAF_CHARS


def _is_of(value: object, types: Sequence[str]) -> bool:
    match value:
        case None:
            return "null" in types
        case bool():
            return "boolean" in types
        case int():
            return "integer" in types or "number" in types
        case float():
            return "number" in types or ("integer" in types and value.is_integer())
        case str():
            return "string" in types
        case list():
            return "array" in types
        case _:
            return "object" in types
