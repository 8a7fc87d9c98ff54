"""Which backends there are, by name: those that come with Kolosal, those of other packages, and those that this process was told of.

A backend is named by where its class is, `package.module:Class`, and imported in worker processes only: the daemon never runs its code.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from functools import cache

from kolosal.engines.parameters import LLAMACPP, MAX_BACKEND_CHARS
from kolosal.errors import InvalidRequest

ENTRY_POINTS = "kolosal.backends"
"""The group of entry points that other packages name their backends in."""

ECHO, TRANSFORMERS = "echo", "transformers"

_BUILT_IN = {
    ECHO: "kolosal.backends.echo:EchoInterface",
    TRANSFORMERS: "kolosal.backends.transformers.interface:TransformersInterface",
}

_NEEDED = {TRANSFORMERS: ("torch", "transformers")}
"""Packages that must be installed for a backend: those of the extra of its name."""

_NAME = re.compile(rf"[\w.-]{{1,{MAX_BACKEND_CHARS}}}", re.ASCII)

registered: dict[str, str] = {}
"""Those that `register_backend` added, with where their classes are."""


def register_backend(name: str, interface: type | str) -> None:
    """Have engines of this process use a class, or the one at `package.module:Class`, as the backend `name`.

    Worker processes import it by that place, so it must be at the top of a module that they can import.

    Raises:
        ValueError: the name is none, or is taken; or the class cannot be found by its place.
    """
    place = interface if isinstance(interface, str) else f"{interface.__module__}:{interface.__qualname__}"
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"A backend's name has letters, digits, '_', '-' and '.', not {name[:MAX_BACKEND_CHARS]!r}"
        )
    if name == LLAMACPP or name in _BUILT_IN or registered.get(name, place) != place:
        raise ValueError(f"There is a backend '{name}' already")
    module, colon, attribute = place.partition(":")
    if not colon or module == "__main__" or "<locals>" in attribute:
        raise ValueError(
            f"{place!r} is no class that another process can import, as in 'package.module:Class'"
        )
    registered[name] = place


def backend_names() -> list[str]:
    """The backends that an engine can have. Reads the disk."""
    built_in = [name for name in _BUILT_IN if not _missing(name)]
    return [LLAMACPP, *built_in, *sorted({*registered, *_of_packages()} - {LLAMACPP, *built_in})]


def check_backend(name: str) -> None:
    """See that there is a backend of this name. Reads the disk.

    Raises:
        InvalidRequest: there is none.
    """
    if missing := _missing(name):
        raise unsupported(
            f"The backend '{name}' needs {' and '.join(missing)}: pip install 'kolosal[{name}]'."
        )
    if name not in backend_names():
        raise unsupported(f"There is no backend {name[:MAX_BACKEND_CHARS]!r}.")


def unsupported(message: str) -> InvalidRequest:
    """The error for a backend that an engine cannot have."""
    names = ", ".join(backend_names())
    return InvalidRequest(f"{message} There are: {names}", param="backend", code="unsupported_backend")


def find_class(name: str) -> type:
    """The class of a backend, by its name or its place, imported.

    Raises:
        InvalidRequest: there is none of that name.
        ImportError: it cannot be imported.
        AttributeError: its module has nothing of that name.
        TypeError: that is no class.
    """
    place = name if ":" in name else _BUILT_IN.get(name) or _of_packages().get(name)
    if place is None:
        raise unsupported(f"There is no backend {name[:MAX_BACKEND_CHARS]!r}.")
    module, _, attribute = place.partition(":")
    found = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise TypeError(f"{place} is no class")
    return found


def _missing(name: str) -> list[str]:
    """Packages that a backend of ours lacks. Imports nothing."""
    return [package for package in _NEEDED.get(name, ()) if importlib.util.find_spec(package) is None]


@cache
def _of_packages() -> dict[str, str]:
    """The backends of other packages."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {each.name: each.value for each in found if _NAME.fullmatch(each.name)}
