"""SettingsFile: `models.yaml` on the disk, read whole and written whole. What of it was written by hand stays as it is written.

Everything but `SettingsFile.change` blocks.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, JsonValue

from kolosal.config.errors import ConfigError
from kolosal.config.validation import validated
from kolosal.config.yaml_file import (
    MAX_CONFIG_BYTES,
    KeyPath,
    YamlFile,
    dotted,
    exists,
    parse_yaml,
    read_yaml,
)
from kolosal.engines.names import plain
from kolosal.files.atomic import write_file
from kolosal.files.in_thread import in_thread
from kolosal.files.regular import read_regular
from kolosal.models.models_file import NOTHING_SAID, ModelsFile
from kolosal.models.settings import (
    GIVEN_PARAMETERS,
    GIVEN_SAMPLING,
    GroupSettings,
    ModelSettings,
    ModelsSettings,
    ModelTurn,
    ProfileSettings,
)

FILE_NAME = "models.yaml"

Document: TypeAlias = MutableMapping[str, Any]
"""A file's values, to be changed in place."""

Change: TypeAlias = Callable[[Document], None]
"""Changes them."""


def read_models_file(path: Path | None) -> ModelsFile:
    """What a file says; nothing where there is none.

    Raises:
        ConfigError: it cannot be read, or holds something that is unknown, mistyped, out of range or ambiguous.
    """
    return NOTHING_SAID if path is None or not exists(path) else _checked(read_yaml(path))


class SettingsFile:
    """The file of one daemon, which is its only writer. Used on the event loop only."""

    def __init__(self, path: Path | None = None, said: ModelsFile = NOTHING_SAID) -> None:
        """`said` is what the file says; without a `path` nothing can be written."""
        self.path = path
        self.said = said
        """What holds."""
        self._lock = asyncio.Lock()

    async def read(self, accept: Callable[[ModelsFile], None]) -> ModelsFile:
        """What the file says now, which holds from now on where `accept` does not refuse it.

        Raises:
            ConfigError: it cannot be used; what held goes on to hold.
        """
        async with self._lock:
            said = await in_thread(read_models_file, self.path)
            accept(said)
            self.said = said
            return said

    async def change(self, change: Change, accept: Callable[[ModelsFile], None]) -> ModelsFile:
        """Write the file with a change made to it, which then holds.

        Raises:
            ConfigError: the file as it would be, or as it is, cannot be used, or it cannot be written; nothing has changed.
        """
        if self.path is None:
            raise ConfigError(
                f"there is no folder for {FILE_NAME}: start the daemon with a configuration file, or set HOME"
            )
        async with self._lock:
            content, said = await in_thread(partial(_changed, self.path, change))
            accept(said)
            try:
                await in_thread(write_file, self.path, content)
            except OSError as exc:
                raise ConfigError(f"{self.path}: cannot be written: {exc.strerror or exc}") from exc
            self.said = said
            return said


def put_model(name: str, settings: ModelSettings) -> Change:
    """The change that gives a model these settings, in place of any it had."""
    return lambda document: _put(document, "models", name, settings)


def put_group(name: str, group: GroupSettings) -> Change:
    """The same for a group."""
    return lambda document: _put(document, "groups", name, group)


def add_alias(name: str, alias: str) -> Change:
    """The change that gives a model another name, which means nothing else any more."""

    def change(document: Document) -> None:
        drop_alias(alias)(document)
        entry = _section(document, "models").setdefault(name, {})
        if entry is None:
            entry = document["models"][name] = {}
        aliases = _aliases(entry)
        if isinstance(entry.get("alias"), list):
            entry["alias"].append(alias)  # so that what is written beside the others stays
        else:
            entry["alias"] = [*aliases, alias]

    return change


def drop_alias(alias: str) -> Change:
    """The change that takes another name from whichever model has it."""

    def change(document: Document) -> None:
        for entry in (document.get("models") or {}).values():
            aliases = [] if entry is None else _aliases(entry)
            left = [each for each in aliases if plain(each) != plain(alias)]
            if len(left) == len(aliases):
                continue
            if left:
                entry["alias"] = left
            else:
                del entry["alias"]

    return change


def remove_name(name: str) -> Change:
    """The change that takes out a model, whose next name is then its own."""

    def change(document: Document) -> None:
        entries = document.get("models") or {}
        entry = entries.pop(name, None)
        aliases = [] if entry is None else _aliases(entry)
        if aliases:
            entries[aliases[0]] = entry
            drop_alias(aliases[0])(document)
        if not entries:
            document.pop("models", None)

    return change


def in_turn(*changes: Change) -> Change:
    """Several changes as one."""

    def change(document: Document) -> None:
        for each in changes:
            each(document)

    return change


def remove(section: str, name: str) -> Change:
    """The change that takes out a model or a group."""

    def change(document: Document) -> None:
        entries = document.get(section) or {}
        entries.pop(name, None)
        if not entries:
            document.pop(section, None)

    return change


def _put(document: Document, section: str, name: str, settings: BaseModel) -> None:
    written = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    entries = _section(document, section)
    if isinstance(entries.get(name), MutableMapping):
        _update(entries[name], written)
    else:
        entries[name] = _pretty(written)


def _section(document: Document, section: str) -> Document:
    if document.get(section) is None:
        document[section] = {}
    entries: Document = document[section]
    return entries


def _aliases(entry: Document) -> list[str]:
    given = entry.get("alias") or []
    return [given] if isinstance(given, str) else [str(each) for each in given]


def _update(old: Document, new: dict[str, Any]) -> None:
    """Make a mapping another one, so that what is equal, and the comments on it, stay as they are written."""
    for name in [*old]:
        if name not in new:
            del old[name]
    for name, value in new.items():
        if isinstance(old.get(name), MutableMapping) and isinstance(value, dict):
            _update(old[name], value)
        elif old.get(name) != value:
            old[name] = _pretty(value)


def _pretty(value: Any) -> Any:
    """Text of several lines as people write it."""
    from ruamel.yaml.scalarstring import LiteralScalarString  # noqa: PLC0415 - only who writes pays for it

    match value:
        case dict():
            return {name: _pretty(each) for name, each in value.items()}
        case list():
            return [_pretty(each) for each in value]
        case str() if "\n" in value and all(line == line.rstrip() for line in value.split("\n")):
            return LiteralScalarString(value)
    return value


def _changed(path: Path, change: Change) -> tuple[bytes, ModelsFile]:
    """A file's content with a change made to it, and what it says."""
    content = b""
    if exists(path):
        _checked(read_yaml(path))  # what is wrong by hand is not written over
        content = read_regular(path, MAX_CONFIG_BYTES)
    from ruamel.yaml import YAML  # noqa: PLC0415 - only who writes pays for it

    yaml = YAML(typ="rt")
    yaml.preserve_quotes, yaml.width, yaml.allow_unicode = True, 4096, True
    document = yaml.load(io.BytesIO(content)) or yaml.map()
    change(document)
    written = io.BytesIO()
    if document:
        yaml.dump(document, written)
    content = written.getvalue()
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: would be longer than {MAX_CONFIG_BYTES} bytes")
    return content, _checked(parse_yaml(content, path))


def _checked(file: YamlFile) -> ModelsFile:
    def place(key: KeyPath) -> str:
        shown = tuple(part for part in key if part != "[key]")
        return f"{file.at(shown)}: {dotted(shown)}" if shown else file.at(())

    values: JsonValue = file.values
    if values is None:
        return NOTHING_SAID
    if not isinstance(values, dict):
        raise ConfigError(f"{file.at(())}: must be a mapping of keys to values")
    given = {name: {} if value is None else value for name, value in values.items()}
    # JSON mode is strict about types and still takes a list for a tuple and text for an enum
    settings = validated(
        lambda: ModelsSettings.model_validate_json(json.dumps(given), strict=True), place, _known_keys
    )
    return ModelsFile.of(settings, place)


def _known_keys(loc: KeyPath) -> Iterable[str]:
    """What may stand in the place of an unknown key."""
    match loc:
        case (*_, "parameters", _):
            return sorted(GIVEN_PARAMETERS.names)
        case (*_, "sampling", _):
            return sorted(GIVEN_SAMPLING.names)
        case (*_, "messages", int(), _):
            return [*ModelTurn.model_fields]
        case ("groups", _, _):
            return [*GroupSettings.model_fields]
        case (*_, "profiles", _, _):
            return [*ProfileSettings.model_fields]
        case ("models", _, _):
            return [field.alias or name for name, field in ModelSettings.model_fields.items()]
    return [*ModelsSettings.model_fields]
