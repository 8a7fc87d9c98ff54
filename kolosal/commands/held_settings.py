"""What holds for a model where a request says nothing, and where each value came from: a part of `kolosal show`."""

from __future__ import annotations

from kolosal.commands.answers import Body
from kolosal.commands.text import printable

DEFAULT = "default"


def held_settings(answer: Body) -> list[str]:
    """Lines for what `GET /v1/model-settings/{model}` answers: each value that is not a default, with its origin."""
    rows = answer.get("holds")
    said = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    told = [row for row in said if row.get("origin") != DEFAULT]
    names = [printable(str(row.get("name"))) for row in told]
    values = [_shown(row.get("value")) for row in told]
    name_width, value_width = max(map(len, names), default=0), max(map(len, values), default=0)
    lines = [
        f"{name:<{name_width}}  {value:<{value_width}}  {printable(str(row.get('origin')))}"
        for name, value, row in zip(names, values, told, strict=True)
    ]
    return lines or ["Nothing is said of this model: loading parameters and sampling are at their defaults"]


def _shown(value: object) -> str:
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= 40 else text[:39] + "…"
