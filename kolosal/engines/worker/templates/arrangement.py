"""Turns in an order that a chat template takes, whatever order a client sends. Pure.

Templates differ: some want the system first, or none; some want user and assistant to alternate; some show one call a turn, or drop
what is said beside calls; some know no results. What one takes is found by trying it: a conversation of the same shape, with a
word in each turn that is looked for in what comes out, is rendered as it is, and then with ever more of the `STEPS`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from kolosal.chat.generic import write_calls, write_result
from kolosal.schema import Message, ToolCall

Turns: TypeAlias = list[Message]
Step: TypeAlias = Callable[[Turns], Turns]
Try: TypeAlias = Callable[[list[Turns]], list[str]]
"""What a template shows of each conversation; nothing where it refuses it."""

_SYSTEM: Final = ("system", "developer")

_MAX_SHAPE: Final = 48
"""Turns of a conversation that is tried; of a longer one its beginning and its end stand for it."""

_SHORT: Final = 16
"""Turns of a conversation whose rounds are not looked at."""

_MOST_COST: Final = 5
"""Of the steps of a variant; then all of them together are tried."""

_LETTERS: Final = {"system": "s", "developer": "d", "user": "u", "assistant": "a", "tool": "t"}
_ORPHANS: Final = re.compile("(?<![cCxXt])t+")
_REPEATED: Final = re.compile(r"(.{1,8}?)\1{2,}")
_ROUND: Final = re.compile("[sdu]+[^sdu]*|^[^sdu]+")


def shape_of(messages: Sequence[Message]) -> str:
    """A letter for each turn, less what is repeated: conversations of one shape are alike to a template, and a longer one seldom
    has another shape.

    `c` calls a tool, `C` several, `x` and `X` say something besides; `o` is a result whose call is not right before it.
    """
    letters = "".join(
        [_LETTERS.get(m.role, "?") if not m.tool_calls else _letter_of_calls(m) for m in messages]
    )
    if "t" in letters:
        letters = _ORPHANS.sub(lambda run: "o" * len(run[0]), letters)
    letters = _REPEATED.sub(r"\1\1", letters)
    if len(letters) <= _SHORT:
        return letters
    rounds: list[str] = _ROUND.findall(letters)
    kept = [each for index, each in enumerate(rounds[:-1]) if rounds.index(each) == index]
    letters = "".join((*kept, rounds[-1]))
    return letters if len(letters) <= _MAX_SHAPE else letters[: _MAX_SHAPE // 2] + letters[-_MAX_SHAPE // 2 :]


def _letter_of_calls(message: Message) -> str:
    letter = "x" if message.content else "c"
    return letter if len(message.tool_calls) == 1 else letter.upper()


def steps_for(shape: str, try_: Try, *, continues: bool) -> tuple[Step, ...]:
    """The fewest steps after which all turns of a conversation are shown; else those that show most of it.

    `continues`: the last turn is gone on with, and stays the last.
    """
    turns, needles = _sample(shape)
    best: tuple[Step, ...] = ()
    most = -1
    for variants in _variants(turns, tuple(step for step in STEPS if not (continues and step is _user_last))):
        texts = try_([list(variant) for variant in variants])
        for steps, text in zip(variants.values(), texts, strict=True):
            shown = sum(needle in text for needle in needles) if text else -1
            if shown == len(needles):
                return steps
            if shown > most:
                best, most = steps, shown
    return best


def arranged(turns: Turns, steps: Sequence[Step]) -> Turns:
    """The conversation after these steps."""
    for step in steps:
        turns = step(turns)
    return turns


def _sample(shape: str) -> tuple[Turns, list[str]]:
    """A conversation of a shape, and the words that it is looked for by."""
    roles = {letter: role for role, letter in _LETTERS.items()} | {"?": "other", "o": "tool"}
    turns: Turns = []
    needles: list[str] = []
    waiting: list[str] = []
    for index, letter in enumerate(shape):
        word = f"needle{index}x"
        if letter not in "cCxX":
            answered = waiting.pop(0) if letter == "t" and waiting else None
            turns.append(Message(roles[letter], word, tool_call_id=answered))
            needles.append(word)
            continue
        calls = tuple(
            ToolCall(f"{index:08}{number}", f"needle{index}f{number}", f'{{"needle{index}g{number}": 1}}')
            for number in range(1 + letter.isupper())
        )
        turns.append(Message("assistant", word if letter in "xX" else "", tool_calls=calls))
        needles += [word] if letter in "xX" else []
        needles += [part for call in calls for part in (call.name, call.name.replace("f", "g"))]
        waiting = [call.id for call in calls]
    return turns, needles


def _variants(
    turns: Turns, usable: tuple[Step, ...]
) -> Iterator[dict[tuple[Message, ...], tuple[Step, ...]]]:
    """The conversation after ever more steps: those that cost the same together."""
    seen: set[tuple[Message, ...]] = set()
    for cost in (*range(_MOST_COST + 1), None):
        found: dict[tuple[Message, ...], tuple[Step, ...]] = {}
        for steps in _combinations(usable, cost):
            variant = tuple(arranged(turns, steps))
            if variant not in seen:
                seen.add(variant)
                found[variant] = steps
        if found:
            yield found


def _combinations(usable: tuple[Step, ...], cost: int | None) -> Iterator[tuple[Step, ...]]:
    """The steps, in their order, that cost so much together; None: all."""
    if cost is None:
        yield usable
        return
    for size in range(cost + 1):
        yield from (
            steps
            for steps in itertools.combinations(usable, size)
            if sum(map(STEPS.get, steps)) == cost  # type: ignore[arg-type]
        )


# --- the steps ---


def in_plain_words(turns: Turns) -> Turns:
    """Calls and results as text, for a template that knows none."""
    told: Turns = []
    after_result = False
    for turn in turns:
        if turn.tool_calls:
            told.append(
                replace(
                    turn, content=_joined(turn.content, write_calls(turn.tool_calls), "\n"), tool_calls=()
                )
            )
        elif turn.role == "tool" or (turn.role == "user" and after_result):
            content = write_result(turn.content) if turn.role == "tool" else turn.content
            if after_result:  # one turn, since many templates want users and assistants to alternate
                told[-1] = replace(told[-1], content=f"{told[-1].content}\n{content}")
            else:
                told.append(Message("user", content))
        else:
            told.append(turn)
        after_result = turn.role == "tool"
    return told


def _one_call_a_turn(turns: Turns) -> Turns:
    """Each call in a turn of its own, and its result right after it."""
    told: Turns = []
    results = {turn.tool_call_id: turn for turn in turns if turn.role == "tool" and turn.tool_call_id}
    moved: set[str | None] = set()
    for turn in turns:
        if turn.tool_call_id in moved:
            continue
        if len(turn.tool_calls) < 2:
            told.append(turn)
            continue
        for number, call in enumerate(turn.tool_calls):
            told.append(
                replace(turn, tool_calls=(call,))
                if number == 0
                else Message("assistant", "", tool_calls=(call,))
            )
            if call.id in results:
                told.append(results[call.id])
                moved.add(call.id)
    return told


def _text_before_calls(turns: Turns) -> Turns:
    """What is said beside calls in a turn before them."""
    told: Turns = []
    for turn in turns:
        if turn.tool_calls and turn.content:
            told += [Message("assistant", turn.content), replace(turn, content="")]
        else:
            told.append(turn)
    return told


def _text_after_calls(turns: Turns) -> Turns:
    """What is said beside calls at the beginning of the next turn that has text."""
    told: Turns = []
    waiting = ""
    for turn in turns:
        if turn.tool_calls:
            waiting = _joined(waiting, turn.content)
            told.append(replace(turn, content=""))
        else:
            told.append(replace(turn, content=_joined(waiting, turn.content)) if waiting else turn)
            waiting = ""
    return [*told, Message("assistant", waiting)] if waiting else told


def _orphans_in_words(turns: Turns) -> Turns:
    """Results whose call is not right before them, as text of the user."""
    told: Turns = []
    follows_call = False
    for turn in turns:
        follows_call = bool(turn.tool_calls) or (follows_call and turn.role == "tool")
        orphan = turn.role == "tool" and not follows_call
        told.append(Message("user", write_result(turn.content)) if orphan else turn)
    return told


def _one_system_first(turns: Turns) -> Turns:
    """What the system says first in one turn, and what it says later as text of the user."""
    n_first = sum(1 for _ in itertools.takewhile(lambda turn: turn.role in _SYSTEM, turns))
    return [*_merged(turns[:n_first]), *_system_told_by_user(turns[n_first:])]


def _system_told_by_user(turns: Turns) -> Turns:
    """What the system says as text of the user, where it stands: in the turn after it, else in the one before it, else alone.

    It stays where it was said, so that a prompt begins as the one before it, and KV cells can be shared.
    """
    told: Turns = []
    waiting: list[str] = []
    for turn in (*turns, None):
        if turn is not None and turn.role in _SYSTEM:
            waiting.append(turn.content)
            continue
        if waiting:
            text, waiting = "\n\n".join(waiting), []
            if turn is not None and turn.role == "user":
                turn = replace(turn, content=_joined(text, turn.content))  # noqa: PLW2901
            elif told and told[-1].role == "user":
                told[-1] = replace(told[-1], content=_joined(told[-1].content, text))
            else:
                told.append(Message("user", text))
        if turn is not None:
            told.append(turn)
    return told


def _user_within_results(turns: Turns) -> Turns:
    """What the user says right after results at the end of the last of them."""
    told: Turns = []
    for turn in turns:
        if turn.role == "user" and told and told[-1].role == "tool":
            told[-1] = replace(told[-1], content=_joined(told[-1].content, turn.content))
        else:
            told.append(turn)
    return told


def _user_first(turns: Turns) -> Turns:
    """An empty turn of the user before all that is not the system's."""
    n_first = sum(1 for _ in itertools.takewhile(lambda turn: turn.role in _SYSTEM, turns))
    if turns[n_first : n_first + 1] and turns[n_first].role == "user":
        return turns
    return [*turns[:n_first], Message("user", ""), *turns[n_first:]]


def _user_last(turns: Turns) -> Turns:
    """An empty turn of the user after the assistant's last one, which is answered all the same."""
    return [*turns, Message("user", "")] if turns and turns[-1].role == "assistant" else turns


def _merged(turns: Turns) -> Turns:
    """Neighbours of one role as one turn."""
    told: Turns = []
    for turn in turns:
        last = told[-1] if told else None
        if last is None or last.role != turn.role or turn.role == "tool" or last.tool_calls:
            told.append(turn)
            continue
        told[-1] = replace(
            last,
            content=_joined(last.content, turn.content),
            tool_calls=turn.tool_calls,
            thinking=_joined(last.thinking or "", turn.thinking or "") or None,
        )
    return told


def _joined(first: str, second: str, glue: str = "\n\n") -> str:
    return glue.join(filter(None, (first, second)))


STEPS: Final[dict[Step, int]] = {
    in_plain_words: 4,
    _one_call_a_turn: 1,
    _text_before_calls: 1,
    _text_after_calls: 1,
    _orphans_in_words: 1,
    _one_system_first: 1,
    _system_told_by_user: 1,
    _user_within_results: 1,
    _user_first: 1,
    _user_last: 1,
    _merged: 1,
}
"""In the order in which they are taken, with what each costs: where there is a choice, the cheaper ones are taken."""
