"""`context_management`: which earlier thoughts the model still gets to see. Pure.

https://docs.anthropic.com/en/docs/build-with-claude/context-editing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.fields import OBJECT, STRING, by_kind
from kolosal.schema import Message

MAX_EDITS = 16
"""Edits of one request."""

MAX_TURNS = 100_000
"""Turns whose thoughts can be kept."""

CLEAR_THINKING = "clear_thinking_20251015"
"""The one edit this daemon makes."""

_DEFAULT_TURNS = 1
"""Anthropic's own: without `keep` the thoughts of the last turn that has any stay."""


class KeptTurns(RequestBody):
    """How many turns keep their thoughts, the last ones; `all` of them need no number."""

    type: Literal["all", "thinking_turns"]
    value: Annotated[int, Field(ge=1, le=MAX_TURNS)] = _DEFAULT_TURNS


Keep: TypeAlias = Annotated[
    Annotated[Literal["all"], STRING] | Annotated[KeptTurns, OBJECT],
    by_kind("'all' or an object with a type"),
]


class Edit(RequestBody):
    """One edit of the conversation."""

    type: str
    keep: Keep | None = None


class ContextManagement(RequestBody):
    """`context_management`."""

    edits: Annotated[tuple[Edit, ...], Field(max_length=MAX_EDITS)] | None = None

    def kept_thoughts(self) -> int | None:
        """How many turns keep their thoughts; None: all."""
        kept: int | None = None
        for index, edit in enumerate(self.edits or ()):
            path = f"context_management.edits.{index}.type"
            if edit.type != CLEAR_THINKING:
                raise UnsupportedFeature(
                    f"{path}: edits of the type {edit.type[:60]!r} are not supported by this server, only {CLEAR_THINKING!r}",
                    param=path,
                )
            match edit.keep:
                case None:
                    kept = _DEFAULT_TURNS
                case KeptTurns(type="thinking_turns", value=value):
                    kept = value
                case _:
                    kept = None
        return kept


def clear_thinking(turns: Sequence[Message], kept: int | None) -> tuple[Message, ...]:
    """The conversation without the thoughts of all but the last `kept` turns that have any."""
    if kept is None:
        return tuple(turns)
    thoughtful = [index for index, turn in enumerate(turns) if turn.thinking is not None]
    cleared = set(thoughtful[:-kept])
    return tuple(
        replace(turn, thinking=None) if index in cleared else turn for index, turn in enumerate(turns)
    )
