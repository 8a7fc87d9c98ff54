"""A request's grammar → llguidance's own form, as text. Pure, but that llguidance does it; imports nothing else of weight."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class GrammarPart(NamedTuple):
    """A grammar of its own, which others may refer to by its name."""

    name: str
    kind: str
    """A `GrammarKind`."""
    source: str


class GrammarTask(NamedTuple):
    """What is to be compiled: one grammar, or a turn with those it refers to."""

    parts: list[GrammarPart]
    turn: str | None
    """The Lark source of a turn."""
    json_options: dict[str, Any]
    """How JSON schemas are read, where they do not say it themselves."""


def grammar_text(task: GrammarTask) -> str:
    """The grammar in llguidance's own form.

    Raises:
        ValueError: a source is not of its kind.
        RecursionError: it is nested too deeply.
    """
    texts = {name: _translated(kind, source, task.json_options) for name, kind, source in task.parts}
    if task.turn is None:
        [text] = texts.values()
        return text
    parts = [{**_part(text), "name": name} for name, text in texts.items()]
    return json.dumps({"grammars": [{"name": "turn", "lark_grammar": task.turn}, *parts]})


def _translated(kind: str, source: str, json_options: dict[str, Any]) -> str:
    from llguidance import LLMatcher  # noqa: PLC0415 - most workers never need it

    match kind:
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(source, defaults=json_options)  # type: ignore[arg-type]
        case "regex":
            return LLMatcher.grammar_from_regex(source)
        case "lark":
            return LLMatcher.grammar_from_lark(source)
        case "gbnf":
            return LLMatcher.grammar_from_lark(_lark_of_gbnf(source))
        case _:
            raise ValueError(f"no grammar is of kind {kind}")


def _part(text: str) -> dict[str, Any]:
    """A grammar as others refer to it."""
    if not text.startswith('{"grammars"'):
        return {"lark_grammar": text}
    part: dict[str, Any] = json.loads(text)["grammars"][0]
    return part


def _lark_of_gbnf(source: str) -> str:
    from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark  # noqa: PLC0415

    try:
        return gbnf_to_lark(source)
    except GbnfToLarkError as exc:
        raise ValueError(str(exc)) from exc
