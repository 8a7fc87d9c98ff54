"""Whether no value is of two schemas, as far as is easily seen."""

from __future__ import annotations

import json
from typing import cast

from kolosal.chat.json_schema.places import Schema


def apart(one: Schema, other: Schema) -> bool:
    """Whether it is easily seen that no value is of both schemas: by type, by value, or by a member that both must have."""
    kinds = [_kinds_of(each) for each in (one, other)]
    if kinds[0] and kinds[1] and not kinds[0] & kinds[1]:
        return True
    values = [_values_of(each) for each in (one, other)]
    if values[0] is not None and values[1] is not None and not values[0] & values[1]:
        return True
    members = [each.get("properties") for each in (one, other)]
    if not all(isinstance(each, dict) for each in members):
        return False
    first, second = (cast("Schema", each) for each in members)
    needed = [each.get("required") for each in (one, other)]
    both = [
        name
        for name in first
        if name in second and all(isinstance(each, list) and name in each for each in needed)
    ]
    return any(
        isinstance(first[name], dict) and isinstance(second[name], dict) and apart(first[name], second[name])
        for name in both
    )


def _kinds_of(schema: Schema) -> set[str]:
    kinds = schema.get("type")
    found = {str(kind) for kind in (kinds if isinstance(kinds, list) else [kinds] if kinds else [])}
    return found | ({"integer"} if "number" in found else set())


def _values_of(schema: Schema) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return {json.dumps(value, sort_keys=True) for value in values} if isinstance(values, list) else None
