"""The configure presets of CMakePresets.json as CMake arguments.

Owns the file's rules (inherits, null, typed values, macros) with CMake's own precedence: a preset's value wins over
its parents', an earlier parent over a later one. Knows nothing of Python packages, compilers or the network.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from kolosal.native.preflight import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PRESETS_FILE = "CMakePresets.json"
_MACRO = re.compile(r"\$(\w*)\{([^}]*)\}")


class Presets:
    """The presets of one checkout. Raises SetupError, naming the preset, for whatever cannot be resolved."""

    def __init__(self, root: Path, document: Mapping[str, Any]) -> None:
        self._root = root
        self._by_name: dict[str, Mapping[str, Any]] = {
            str(preset["name"]): preset for preset in document.get("configurePresets", [])
        }

    @classmethod
    def load(cls, root: Path) -> Presets:
        path = root / PRESETS_FILE
        try:
            return cls(root, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise SetupError(
                f"cannot read {path}: {exc!r}. Restore it with: git checkout {PRESETS_FILE}"
            ) from exc

    def selectable(self) -> list[str]:
        return [name for name, preset in self._by_name.items() if not preset.get("hidden", False)]

    def display_name(self, name: str) -> str:
        return str(self._by_name[name].get("displayName", name))

    def variables(self, name: str) -> dict[str, tuple[str, str]]:
        """The cache variables of a selectable preset: name -> (type or "", value)."""
        if name not in self.selectable():
            raise SetupError(f"unknown preset '{name}'. Known presets: {', '.join(self.selectable())}")
        merged = self._resolve(name, ())
        typed = {variable: self._typed(name, variable, value) for variable, value in merged.items()}
        return {variable: pair for variable, pair in typed.items() if pair is not None}

    def cmake_args(self, name: str) -> list[str]:
        """-D arguments in the order of the variables' names, so that equal presets give equal builds."""
        return [
            f"-D{variable}:{kind}={value}" if kind else f"-D{variable}={value}"
            for variable, (kind, value) in sorted(self.variables(name).items())
        ]

    def _resolve(self, name: str, path: tuple[str, ...]) -> dict[str, Any]:
        if name in path:
            raise SetupError(f"{PRESETS_FILE}: presets inherit in a circle: {' -> '.join((*path, name))}")
        if name not in self._by_name:
            raise SetupError(f"{PRESETS_FILE}: preset '{path[-1]}' inherits from unknown preset '{name}'")
        preset = self._by_name[name]
        inherits = preset.get("inherits", [])
        parents = [inherits] if isinstance(inherits, str) else inherits
        merged: dict[str, Any] = {}
        for parent in reversed(parents):
            merged.update(self._resolve(parent, (*path, name)))
        merged.update(preset.get("cacheVariables", {}))
        return merged

    def _typed(self, preset: str, variable: str, value: object) -> tuple[str, str] | None:
        """None for a variable that null unsets; as in CMake, a null hides the value a parent gave."""
        if value is None:
            return None
        if isinstance(value, bool):
            return "BOOL", "TRUE" if value else "FALSE"
        if isinstance(value, str):
            return "", self._expand(preset, value)
        if isinstance(value, dict) and isinstance(value.get("value"), (str, bool)):
            plain = self._typed(preset, variable, value["value"])
            assert plain is not None  # noqa: S101 - str and bool always give a value
            return str(value.get("type", plain[0])), plain[1]
        raise SetupError(
            f"{PRESETS_FILE}: preset '{preset}' gives {variable} the value {value!r}; "
            "allowed are a string, true, false, null, or an object with type and value"
        )

    def _expand(self, preset: str, value: str) -> str:
        known = {
            "sourceDir": self._root.as_posix(),
            "fileDir": self._root.as_posix(),
            "presetName": preset,
            "dollar": "$",
        }

        def replace(match: re.Match[str]) -> str:
            namespace, macro = match.groups()
            if namespace or macro not in known:
                raise SetupError(
                    f"{PRESETS_FILE}: preset '{preset}' uses {match.group(0)}; supported are "
                    + ", ".join(f"${{{name}}}" for name in known)
                )
            return known[macro]

        return _MACRO.sub(replace, value)


def default_preset(system: str, machine: str) -> str:
    """`system` as sys.platform says it, `machine` as uname -m does."""
    return "metal" if system == "darwin" and machine == "arm64" else "cpu"


def environment_value(args: list[str], inherited: str) -> str:
    """The CMAKE_ARGS for a build: the preset's, then what the caller's own CMAKE_ARGS adds or overrides."""
    return " ".join([*(shlex.quote(arg) for arg in args), inherited]).strip()
