"""Reading a YAML file into plain values and remembering on which line each one stands.

Owns the rules of the file format: YAML 1.2's plain words (`on`, `off`, `yes` are text, only `true` and `false` are
booleans), no duplicate keys, no aliases, bounded size. Knows nothing of what the settings are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import JsonValue
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kolosal.config.errors import ConfigError
from kolosal.files.deadline import LIMIT_S, within
from kolosal.files.regular import FileTooLong, read_regular

MAX_CONFIG_BYTES = 1024 * 1024
"""Bytes of a configuration file; bounds the memory that a wrong path (a model, a log) can cost."""

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of mappings and positions in lists, from the root."""


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file says. `lines` has an entry for every key and list item."""

    path: Path
    values: JsonValue
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def at(self, key: KeyPath) -> str:
        """`path:line` of a value, or of the nearest one around it that is written in the file."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.path}:{self.lines[key]}" if key else str(self.path)


class _Loader(yaml.SafeLoader):
    """Only its parser is used: nodes are turned into values here, so no tag can make an object."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(AliasEvent):
            # nine lines of nested aliases expand to gigabytes
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}  # what YAML 1.1 takes for a value: `off` is False, 1:30 is 90


def _resolver(kind: str, pattern: str, first: list[str]) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(pattern), first)


_resolver("null", r"^(?:~|null|Null|NULL|)$", [*"~nN", ""])
_resolver("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"])
_resolver("int", r"^[-+]?[0-9]+$", [*"-+0123456789"])
_resolver("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", [*"-+.0123456789"])


def _text(text: str) -> str:
    text.encode()  # a lone surrogate, which an escape can make, is no text
    return text


_SCALARS: dict[str, Callable[[str], JsonValue]] = {
    "tag:yaml.org,2002:null": lambda _: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": _text,
}


def read_yaml(path: Path) -> YamlFile:
    """What a file says. It is no longer than `MAX_CONFIG_BYTES`."""
    return _parse(_read(path), path)


def parse_yaml(content: bytes, path: Path) -> YamlFile:
    """The same of what a file is to say."""
    return _parse(content, path)


def parse_value(text: str, name: str) -> JsonValue:
    """A value as it would be written in a file; `name` is what messages call it."""
    return _parse(text.encode(errors="replace"), Path(name)).values


def _parse(content: bytes, path: Path) -> YamlFile:
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(content)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        values = None if root is None else _value(root, (), path, lines)
    except yaml.MarkedYAMLError as exc:
        where = f"{path}:{exc.problem_mark.line + 1}" if exc.problem_mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(exc).split())}") from exc
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    return YamlFile(path, values, lines)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_CONFIG_BYTES)
    except FileTooLong:
        raise ConfigError(
            f"{path}: longer than {MAX_CONFIG_BYTES} bytes, so it is not a configuration file"
        ) from None
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ConfigError(f"{path}: cannot be read: {reason}") from exc


def _value(node: Node, at: KeyPath, path: Path, lines: dict[KeyPath, int]) -> JsonValue:
    if isinstance(node, MappingNode):
        return _mapping(node, at, path, lines)
    if isinstance(node, SequenceNode):
        items: list[JsonValue] = []
        for index, item in enumerate(node.value):
            lines[(*at, index)] = _line(item)
            items.append(_value(item, (*at, index), path, lines))
        return items
    assert isinstance(node, ScalarNode)  # noqa: S101 - YAML has three kinds of node
    construct = _SCALARS.get(node.tag)
    if construct is None:
        raise ConfigError(f"{path}:{_line(node)}: {dotted(at)}: the tag '{node.tag}' is not supported")
    try:
        return construct(node.value)
    except ValueError:  # also an integer of more than 4300 digits, which Python refuses
        raise ConfigError(f"{path}:{_line(node)}: {dotted(at)}: not a usable value") from None


def _mapping(node: MappingNode, at: KeyPath, path: Path, lines: dict[KeyPath, int]) -> dict[str, JsonValue]:
    values: dict[str, JsonValue] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, ScalarNode):
            raise ConfigError(f"{path}:{_line(key_node)}: a key must be a plain word")
        key = key_node.value
        here = (*at, key)
        if key in values:
            first = lines[here]
            raise ConfigError(f"{path}:{_line(key_node)}: {dotted(here)}: given twice, first on line {first}")
        lines[here] = _line(key_node)
        values[key] = _value(value_node, here, path, lines)
    return values


def exists(path: Path) -> bool:
    """Whether there is such a file; False where we may not look (services run as another user), or it can be no path."""
    try:
        return within(LIMIT_S, path.exists)
    except (OSError, ValueError):
        return False


def dotted(key: KeyPath) -> str:
    """A key path as text on one line: `models[0].load_params.n_ctx`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")
    return (text if text.isprintable() else repr(text))[:200]


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
