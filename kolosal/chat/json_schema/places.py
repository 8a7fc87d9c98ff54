"""Where a schema stands in another one, what is said of such a place, and which keywords there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]
"""A JSON schema that is an object."""

OBJECT = ("properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties")  # fmt: skip
ARRAY = ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains")
STRING = ("pattern", "minLength", "maxLength", "format")
NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
COMBINED = ("anyOf", "oneOf", "allOf")
ASSERTIONS = frozenset((*OBJECT, *ARRAY, *STRING, *NUMBER, *COMBINED, "type", "enum", "const", "nullable", "not", "if"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unenforced:
    """What a schema says and answers may break."""

    pointer: str
    """Where it stands in the schema: a JSON pointer."""
    reason: str


@dataclass(frozen=True, slots=True)
class SchemaPlace:
    """Where a schema stands."""

    pointer: str
    depth: int = 0
    owner: str | None = ""
    """The definition that the schema is the whole of, `""` for the root; None: it is a part of one."""
    alone: bool = True
    """Nothing beside the schema says which members its value has."""

    def __truediv__(self, part: object) -> SchemaPlace:
        escaped = str(part).replace("~", "~0").replace("/", "~1")
        return SchemaPlace(f"{self.pointer}/{escaped}", self.depth + 1, None)

    def choice(self, keyword: str, index: int, *, alone: bool) -> SchemaPlace:
        """A schema that is about the same value as this one."""
        part = self / keyword / index
        return SchemaPlace(part.pointer, part.depth, self.owner, alone and self.alone)


@dataclass(slots=True)
class Notes:
    """What of one schema is not enforced, by its place: the first reason counts."""

    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, place: SchemaPlace, reason: str) -> None:
        """Note that what stands at a place is not enforced, or not all of it."""
        self.reasons.setdefault(place.pointer, reason)
