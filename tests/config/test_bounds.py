"""Every setting has bounds: what is just outside of them is refused by its key, what is inside is taken.

bounds.txt lists them, so that a setting that is new, gone or bounded otherwise is seen; after a change that is meant:
`python -m tests.config.test_bounds`. The wording is in test_errors.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kolosal.config.errors import ConfigError
from kolosal.config.load import load_settings
from kolosal.config.settings import Settings
from kolosal.engines.parameters import LoadingParameters
from tests.bounds import Bounds, Place

TABLE = Path(__file__).with_name("bounds.txt")

SCHEMA = Settings.model_json_schema()
BOUNDS = Bounds(SCHEMA["$defs"], ["http://a", "::1"])

MAX_MESSAGE_CHARS = 800
"""A message repeats a value in part only; one about an unknown key lists those that there are."""

MODEL = "models[0].load_params"


def places() -> dict[str, list[Place]]:
    """By section; the parameters of an engine to be added are one."""
    sections = {
        name: [*BOUNDS.places(schema, {})]
        for name, schema in SCHEMA["properties"].items()
        if name != "models"
    }
    return {**sections, MODEL: [*BOUNDS.places({"$ref": f"#/$defs/{LoadingParameters.__name__}"}, {})]}


PLACES = places()

every_section = pytest.mark.parametrize("section", PLACES)


def load(file: Path, section: str, values: dict[str, Any]) -> None:
    """Load a file with these values; JSON is YAML."""
    whole = (
        {"models": [{"id": "a", "path": "a", "load_params": values}]}
        if section == MODEL
        else {section: values}
    )
    file.write_text(json.dumps(whole), encoding="utf-8")
    load_settings(config_path=file, environ={})


@pytest.mark.fault("C1")
@every_section
def test_what_is_outside_is_refused_by_its_key(section: str, tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    wrong = []
    for place in PLACES[section]:
        key = ".".join((section, *place.path))
        keys = tuple(
            f"{file}:1: {each}: " for each in (key, key.removesuffix(".0"), key.replace(".0", "[0]"))
        )
        for value in place.outside():
            if isinstance(value, str) and any(kind.type == "array" for kind in place.kinds):
                continue  # a text is a list of what stands between commas
            try:
                load(file, section, place.put(value))
                message = "accepted"
            except ConfigError as exc:
                message = str(exc)
            if not message.startswith(keys) or "\n" in message or len(message) > MAX_MESSAGE_CHARS:
                wrong.append((place.label, str(value)[:60], message))
    assert wrong == []


@every_section
def test_what_is_inside_is_taken(section: str, tmp_path: Path) -> None:
    wrong = []
    for place in PLACES[section]:
        for value in place.inside():
            if (place.label, value) == ("kv_pool_tokens", 1):  # must be n_ctx at least
                continue
            try:
                load(tmp_path / "test.yaml", section, place.put(value))
            except ConfigError as exc:
                wrong.append((place.label, str(value)[:60], str(exc)))
    assert wrong == []


def test_every_setting_has_a_bound() -> None:
    assert [place.label for section in PLACES.values() for place in section if place.unbounded] == []


def test_the_bounds_are_these() -> None:
    assert table() == TABLE.read_text(encoding="utf-8"), "meant? python -m tests.config.test_bounds"


def table() -> str:
    return "".join(
        f"{line}\n"
        for name, section in PLACES.items()
        for line in sorted(f"{name}.{place}" for place in section)
    )


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
