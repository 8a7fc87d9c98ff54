"""What a manifest of Ollama's says of a model besides its weights, as settings of a model here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from kolosal.files.regular import read_regular
from kolosal.models.entry import Layer
from kolosal.models.ollama_settings import OllamaParameters, is_go_template, parameters_of, settings_of
from kolosal.models.settings import ModelSettings

log = logging.getLogger(__name__)

_MAX_BYTES = 1024 * 1024
"""Of one of these files."""


def layer_settings(name: str, layers: Sequence[tuple[Layer, Path]]) -> ModelSettings | None:
    """The settings of a model; None where its manifest says nothing that holds here. Blocks on the disk.

    A template in Go's language is none for us: that of the model's file holds. What cannot be used is left out, and logged.
    """
    said: dict[Layer, bytes] = {}
    for kind, path in layers:
        try:
            said[kind] = read_regular(path, _MAX_BYTES)
        except OSError as exc:
            _left_out(name, kind, exc.strerror or str(exc))
    template = said.get("template", b"").decode(errors="replace")
    try:
        settings = settings_of(
            None,
            _parameters(name, said.get("params")),
            system=said.get("system", b"").decode(errors="replace") or None,
            template=None if not template.strip() or is_go_template(template) else template,
            messages=_turns(name, said.get("messages")),
        )
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        _left_out(name, str(first["loc"]), first["msg"])
        return None
    return settings if settings.model_dump(exclude_defaults=True) else None


def _parameters(name: str, text: bytes | None) -> OllamaParameters:
    nothing = OllamaParameters({}, {}, ())
    try:
        given = orjson.loads(text or b"{}")
        return parameters_of(given) if isinstance(given, dict) else nothing
    except ValueError as exc:
        _left_out(name, "params", str(exc))
        return nothing


def _turns(name: str, text: bytes | None) -> Sequence[Mapping[str, Any]]:
    try:
        turns = orjson.loads(text or b"[]")
    except ValueError as exc:
        _left_out(name, "messages", str(exc))
        return ()
    return turns if isinstance(turns, list) else ()


def _left_out(name: str, what: str, reason: str) -> None:
    log.warning("download.setting_left_out", extra={"model": name, "setting": what, "reason": reason})
