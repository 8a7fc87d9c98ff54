"""What may stand where in a JSON value, as its schema says: values just outside each bound, and just inside.

Knows no endpoint and no dialect; what is done with the values is the tests'.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Schema = Mapping[str, Any]

ABSENT: Final = object()
"""Stands for a field that is left out."""

FAR: Final = (2**63, 2**64, 10**30, -(10**30), 1e300)
"""Numbers that a native integer or float cannot hold. 1e999 is no JSON number here: row H7 of the fault suite."""

MAX_STRUCTURES: Final = 20_000
"""Keys and objects in one array that is to be accepted: a body may have 24,000 (`kolosal/http/bulk.py`)."""

_ONE_OF_EACH_TYPE: Final[Mapping[str, object]] = {
    "string": "?", "integer": 5, "number": 5.5, "boolean": True, "array": ["?"], "object": {"?": 5}, "null": None,
}  # fmt: skip

_SIZES: Final = {
    "string": ("minLength", "maxLength"), "array": ("minItems", "maxItems"), "object": ("minProperties", "maxProperties"),
}  # fmt: skip
"""The keywords of the least and the greatest size, by type."""

_NUMBER: Final = ("minimum", "maximum")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value, neither a reference nor a union."""

    schema: Schema
    item: Any
    """The least item of an array, or value of an object."""

    @property
    def type(self) -> str:
        return str(self.schema.get("type", "anything"))

    @property
    def least(self) -> Any:
        return self.schema.get(_SIZES.get(self.type, _NUMBER)[0])

    @property
    def most(self) -> Any:
        return self.schema.get(_SIZES.get(self.type, _NUMBER)[1])

    @property
    def above(self) -> Any:
        return self.schema.get("exclusiveMinimum")

    @property
    def below(self) -> Any:
        return self.schema.get("exclusiveMaximum")

    @property
    def is_number(self) -> bool:
        return self.type in ("integer", "number")

    @property
    def values(self) -> list[Any] | None:
        """All values, where they are listed."""
        return [self.schema["const"]] if "const" in self.schema else self.schema.get("enum")

    @property
    def unbounded(self) -> bool:
        """Whether a value may be of any size. An object whose fields are told is as large as those."""
        if self.type in ("boolean", "null") or self.values is not None or self.schema.get("properties"):
            return False
        if self.is_number and self.least is None and self.above is None:
            return True
        return self.most is None and self.below is None

    def __str__(self) -> str:
        if self.values is not None:
            return " | ".join(map(repr, self.values))
        low = _or_nothing(self.least) if self.above is None else f">{self.above}"
        high = _or_nothing(self.most) if self.below is None else f"<{self.below}"
        size = f"{low}..{high}" if low or high else ""
        return " ".join(filter(None, (self.type, size, self.schema.get("pattern"))))

    def holds(self, value: object) -> bool:
        """Whether a number is one of this kind."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.is_number:
            return False
        if self.type == "integer" and isinstance(value, float):
            return False
        return not (
            (self.least is not None and value < self.least) or (self.above is not None and value <= self.above)
            or (self.most is not None and value > self.most) or (self.below is not None and value >= self.below)
        )  # fmt: skip

    def beyond(self) -> Iterator[object]:
        """Values of this type just outside each bound, and far outside."""
        if self.values is not None:
            yield (not self.values[0]) if self.type == "boolean" else "no such value"
        elif self.is_number:
            yield from () if self.least is None else (self.least - 1,)
            yield from () if self.most is None else (self.most + 1,)
            yield from (bound for bound in (self.above, self.below) if bound is not None)
            yield from FAR
        else:
            yield from (self._of_size(self.least - 1),) if self.least else ()
            yield from () if self.most is None else (self._of_size(self.most + 1),)
            yield from ("a\0b",) if "pattern" in self.schema else ()

    def edges(self) -> Iterator[object]:
        """The values at the bounds; of a pattern those that happen to match it."""
        pattern = self.schema.get("pattern")
        yield from (each for each in self._edges() if pattern is None or re.search(pattern, str(each)))

    def _edges(self) -> Iterator[object]:
        if self.values is not None:
            yield from self.values
        elif self.type == "boolean":
            yield from (True, False)
        elif self.type == "null":
            yield None
        elif self.is_number:
            yield from (bound for bound in (self.least, self.most) if bound is not None)
            yield from () if self.above is None else (self.above + 1e-9,)
            yield from () if self.below is None else (self.below - 1,)
        elif self.most is not None:
            yield self._of_size(self.least or 0)
            structures = _structures(self.item)
            yield self._of_size(min(self.most, MAX_STRUCTURES // structures) if structures else self.most)

    def _of_size(self, size: int) -> object:
        match self.type:
            case "string":
                return "x" * size
            case "array":
                return [self.item] * size
        return {str(number): self.item for number in range(size)}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one value stands, and the kinds of value that may."""

    path: tuple[str, ...]
    label: str
    """The path, with the tags of unions: two kinds of items may have fields of one name."""
    kinds: tuple[Kind, ...]
    required: bool
    is_tag: bool
    """Tells the objects of a union apart, so that another value is another object."""
    put: Callable[[object], Any]
    """The whole value with another one in this place."""

    def __str__(self) -> str:
        kinds = " | ".join(map(str, self.kinds)) or "refused"
        return f"{self.label}{'!' if self.required else ''}: {kinds}"

    @property
    def unbounded(self) -> bool:
        return any(kind.unbounded for kind in self.kinds)

    def outside(self) -> Iterator[object]:
        """Values that are refused, each for one reason."""
        types = {kind.type for kind in self.kinds}
        if self.is_tag or "anything" in types:
            return
        if self.required:
            yield ABSENT
        if "number" in types:
            types.add("integer")
        yield from (value for name, value in _ONE_OF_EACH_TYPE.items() if name not in types)
        for kind in self.kinds:
            yield from (value for value in kind.beyond() if not any(each.holds(value) for each in self.kinds))

    def inside(self) -> Iterator[object]:
        """Values that are accepted."""
        for kind in self.kinds:
            yield from kind.edges()


class Bounds:
    """The places of values whose schemas share their components."""

    def __init__(self, components: Mapping[str, Schema], texts: Collection[str] = ()) -> None:
        """`texts` are samples of patterns that no "x" matches."""
        self._components = components
        self._texts = texts

    def places(self, schema: Schema, whole: Mapping[str, Any]) -> Iterator[Place]:
        """All places of an object; `whole` is one that is accepted."""
        (kind,) = self._kinds(schema)
        yield from self._fields(kind, whole, lambda value: value, (), "")

    def _kinds(self, schema: Schema) -> tuple[Kind, ...]:
        if "$ref" in schema:
            return self._kinds(self._components[schema["$ref"].rpartition("/")[2]])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return tuple(kind for each in schema[union] for kind in self._kinds(each))
        inner = schema.get("items", schema.get("additionalProperties"))
        return (Kind(schema, self._least(inner) if isinstance(inner, Mapping) else "x"),)

    def _least(self, schema: Schema) -> Any:
        """The least value that a schema allows."""
        kind = self._kinds(schema)[0]
        if kind.values is not None:
            return kind.values[0]
        match kind.type:
            case "object":
                fields = kind.schema.get("properties", {})
                return {name: self._least(fields[name]) for name in kind.schema.get("required", ())}
            case "array":
                return [kind.item] * (kind.least or 0)
            case "string":
                texts = ["x" * max(kind.least or 0, 1), *self._texts]
                return next(each for each in texts if re.search(kind.schema.get("pattern", ""), each))
            case "integer" | "number":
                return max(kind.least or 0, 1)
        return True if kind.type == "boolean" else "x"

    def _fields(
        self, kind: Kind, whole: Mapping[str, Any], put: Callable[[object], Any], path: tuple[str, ...], label: str,
        tag: str | None = None,
    ) -> Iterator[Place]:  # fmt: skip
        def at(name: str) -> Callable[[object], Any]:
            others = {key: each for key, each in whole.items() if key != name}
            return lambda value: put(others if value is ABSENT else {**others, name: value})

        for name, schema in kind.schema.get("properties", {}).items():
            required = name in kind.schema.get("required", ())
            yield from self._at(
                schema, at(name), (*path, name), f"{label}{name}", required=required, is_tag=name == tag
            )
        more = kind.schema.get("additionalProperties")
        if isinstance(more, Mapping):
            yield from self._at(more, at("1"), (*path, "1"), f"{label}*")
        elif more is False:
            yield Place(
                (*path, "other"), f"{label}(any other)", (), required=False, is_tag=False, put=at("other")
            )

    def _at(
        self, schema: Schema, put: Callable[[object], Any], path: tuple[str, ...], label: str, *,
        required: bool = False, is_tag: bool = False,
    ) -> Iterator[Place]:  # fmt: skip
        kinds = self._kinds(schema)
        yield Place(path, label, kinds, required, is_tag, put)
        if items := [kind.schema["items"] for kind in kinds if kind.type == "array"]:
            yield from self._at({"anyOf": items}, lambda value: put([value]), (*path, "0"), f"{label}.0")
        objects = [kind for kind in kinds if kind.type == "object"]
        for kind in objects:
            tag, told = self._tag(kind) if len(objects) > 1 else (None, "")
            yield from self._fields(kind, self._least(kind.schema), put, path, f"{label}{told}.", tag)

    def _tag(self, kind: Kind) -> tuple[str | None, str]:
        """The field that tells an object from the others of its union, and what it says there."""
        for name, schema in kind.schema.get("properties", {}).items():
            values = self._kinds(schema)[0].values
            if values is not None and len(values) == 1:
                return name, f"<{values[0]}>"
        return ("type" if "type" in kind.schema.get("properties", {}) else None), "<other>"


def _or_nothing(bound: object) -> str:
    return "" if bound is None else str(bound)


def _structures(value: object) -> int:
    match value:
        case dict():
            return 1 + len(value) + sum(map(_structures, value.values()))
        case list():
            return 1 + sum(map(_structures, value))
    return 0
