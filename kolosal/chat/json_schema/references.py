"""SchemaReferences: where a `$ref` leads: by its pointer, else to a definition of that name, nearest first, or by an anchor or id."""

from __future__ import annotations

from urllib.parse import unquote

from kolosal.chat.json_schema.places import ASSERTIONS, Schema, SchemaPlace

MAX_HOPS = 500
"""Of a chain of references."""


class SchemaReferences:
    """The references of one schema."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._index: dict[str, list[tuple[str, object]]] | None = None

    def resolve(self, reference: str, place: SchemaPlace) -> tuple[str, object] | None:
        """Where a reference leads in the end, and what is there; None where that is nowhere."""
        seen: set[str] = set()
        while len(seen) < MAX_HOPS:
            found = self._target(reference, place)
            if found is None or found[0] in seen:
                return None
            seen.add(found[0])
            target = found[1]
            onward = target.get("$ref") if isinstance(target, dict) else None
            if not isinstance(onward, str) or (isinstance(target, dict) and ASSERTIONS & target.keys()):
                return found
            reference, place = onward, SchemaPlace(found[0])
        return None

    def _target(self, reference: str, place: SchemaPlace) -> tuple[str, object] | None:
        document, _, fragment = reference.partition("#")
        if fragment.startswith("/") or (not fragment and not document):
            found = _pointed(self._root, unquote(fragment))
            if found is not _NOTHING:
                return unquote(fragment), found
        index = self._definitions()
        wanted = unquote(fragment).rpartition("/")[2] or document.rstrip("/").rpartition("/")[2]
        wanted = wanted.replace("~1", "/").replace("~0", "~")
        candidates = (
            index.get(reference) or index.get(wanted) or index.get(wanted.removesuffix(".json")) or []
        )
        near = [each for each in candidates if place.pointer.startswith(each[0].rpartition("/")[0].rpartition("/")[0])]  # fmt: skip
        return max(near, key=lambda each: len(each[0])) if near else next(iter(candidates), None)

    def _definitions(self) -> dict[str, list[tuple[str, object]]]:
        """All definitions, wherever they stand, by their names, anchors and ids."""
        if self._index is None:
            self._index = {}
            waiting: list[tuple[str, object]] = [("", self._root)]
            while waiting:
                pointer, value = waiting.pop()
                inner = (
                    value.items()
                    if isinstance(value, dict)
                    else enumerate(value)
                    if isinstance(value, list)
                    else ()
                )
                for key, each in inner:
                    below = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
                    if key in ("$id", "id", "$anchor") and isinstance(each, str):
                        self._index.setdefault(each.lstrip("#"), []).append((pointer, value))
                    elif key in ("$defs", "definitions", "schemas") and isinstance(each, dict):
                        for name, definition in each.items():
                            escaped = name.replace("~", "~0").replace("/", "~1")
                            self._index.setdefault(name, []).append((f"{below}/{escaped}", definition))
                    if isinstance(each, dict | list):
                        waiting.append((below, each))
        return self._index


_NOTHING = object()


def _pointed(root: object, pointer: str) -> object:
    """What a JSON pointer leads to; `_NOTHING` where that is nothing."""
    found = root
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif (
            isinstance(found, list)
            and key.isdecimal()
            and key.isascii()
            and len(key) < 9
            and int(key) < len(found)
        ):
            found = found[int(key)]
        else:
            return _NOTHING
    return found
