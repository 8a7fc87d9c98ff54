"""What a run says to the model: the thread's messages and the calls that its runs made, in their order, and no more than there is room for.
Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

from kolosal.assistants.searches import FILE_SEARCH, found_texts
from kolosal.retrieval.citations import results_for_model
from kolosal.schema import Message, ToolCall
from kolosal.store.pages import StoredRow

TOKENS_PER_TURN = 32
"""What a chat template writes around a turn, at most, as far as is known without asking it."""


_LANDMARK_EVERY = 8
"""Of so many messages one may be the first of a prompt that was shortened, on average."""


def text_of(message: Mapping[str, Any]) -> str:
    """What a message says: its parts, joined by line breaks."""
    return "\n".join(part["text"]["value"] for part in message["content"])


def in_order(messages: Sequence[StoredRow], steps: Sequence[StoredRow], run_id: str) -> list[StoredRow]:
    """Messages and steps as they came, the oldest first.

    Steps whose calls were not carried out are left out, and what other runs than this one searched: their answers say it.
    """
    carried_out = (row for step in steps if (row := _carried_out(step, run_id)) is not None)
    return sorted((*messages, *carried_out), key=lambda row: row.seq)


def _carried_out(step: StoredRow, run_id: str) -> StoredRow | None:
    calls = step.data["step_details"]["tool_calls"]
    if any("function" in call and call["function"]["output"] is None for call in calls):
        return None
    if step.data["run_id"] != run_id:
        calls = [call for call in calls if "function" in call]
    if not calls:
        return None
    details = {**step.data["step_details"], "tool_calls": calls}
    return replace(step, data={**step.data, "step_details": details})


def to_messages(
    instructions: str, rows: Sequence[StoredRow], *, shows_searches: bool = True
) -> tuple[Message, ...]:
    """The turns of a chat, the instructions first. What a search found is the result of a call, or, where searches are not shown,
    stands behind what the user said."""
    turns = [Message("system", instructions)] if instructions else []
    answered_by = ""
    for row in rows:
        data = row.data
        if data["object"] == "thread.message":
            turns.append(Message(data["role"], text_of(data)))
            answered_by = data["run_id"] or ""
            continue
        calls = data["step_details"]["tool_calls"]
        if not shows_searches:
            found = [_result(call) for call in calls if FILE_SEARCH in call]
            turns = _told_to_user(turns, found) if found else turns
            calls = [call for call in calls if FILE_SEARCH not in call]
        if not calls:
            continue
        made = tuple(map(_call, calls))
        if answered_by == data["run_id"] and turns[-1].role == "assistant":  # said in the same breath
            turns[-1] = replace(turns[-1], tool_calls=made)
        else:
            turns.append(Message("assistant", "", tool_calls=made))
        turns += [
            Message("tool", _result(call), one.name, tool_call_id=one.id)
            for call, one in zip(calls, made, strict=True)
        ]
        answered_by = ""
    return tuple(turns)


def _call(call: Mapping[str, Any]) -> ToolCall:
    if FILE_SEARCH in call:
        arguments = json.dumps({"query": call[FILE_SEARCH]["query"]}, ensure_ascii=False)
        return ToolCall(call["id"], FILE_SEARCH, arguments)
    return ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])


def _result(call: Mapping[str, Any]) -> str:
    """What a call gave."""
    if FILE_SEARCH in call:
        search = call[FILE_SEARCH]
        return results_for_model(found_texts(search), search["first"])
    return str(call["function"]["output"])


def _told_to_user(turns: Sequence[Message], texts: Sequence[str]) -> list[Message]:
    """The turns, with these texts behind the last thing that the user said."""
    last = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        return [*turns, Message("user", "\n".join(texts))]
    told = replace(turns[last], content="\n".join((turns[last].content, *texts)))
    return [*turns[:last], told, *turns[last + 1 :]]


def surely_fits(messages: Sequence[Message], budget: int) -> bool:
    """Whether a prompt has no more tokens than this, without counting them: a token has a byte at least."""
    n_bytes = sum(
        len(message.content.encode(errors="replace"))
        + TOKENS_PER_TURN
        + sum(len(call.name) + len(call.arguments) + TOKENS_PER_TURN for call in message.tool_calls)
        for message in messages
    )
    return n_bytes + TOKENS_PER_TURN <= budget


def last_of(rows: Sequence[StoredRow], max_chars: int) -> Sequence[StoredRow]:
    """The last of these, one at least, with no more characters than this."""
    start = len(rows)
    while start > 0 and (start == len(rows) or max_chars >= _weight(rows[start - 1])):
        start -= 1
        max_chars -= _weight(rows[start])
    return rows[start:]


def shortened(rows: Sequence[StoredRow], n_tokens: int, budget: int) -> Sequence[StoredRow]:
    """The last of these, where all of them have so many tokens and there is room for `budget`; one less at least, never none.

    The answer may still be too long: tokens are taken to be spread evenly.
    """
    weights = [_weight(row) for row in rows]
    room = sum(weights) * budget * 9 // (10 * max(1, n_tokens))
    start = len(rows) - 1
    used = weights[start]
    while start > 1 and used + weights[start - 1] <= room:
        start -= 1
        used += weights[start]
    if len(rows) == 1:
        return rows
    return rows[_landmark(rows, max(start, 1)) :]


def _landmark(rows: Sequence[StoredRow], start: int) -> int:
    """Where to begin, at `start` or a little later: at a message whose id says that a beginning may be there.

    So the runs of a thread that outgrew the window begin at the same message for a while, and find what was computed before.
    """
    latest = start + (len(rows) - start) // 2
    asked = [i for i in range(start, latest + 1) if rows[i].data.get("role") == "user"]
    marked = (i for i in asked if crc32(rows[i].id.encode()) % _LANDMARK_EVERY == 0)
    return next(marked, next(iter(asked), start))


def _weight(row: StoredRow) -> int:
    data = row.data
    if data["object"] == "thread.message":
        return len(text_of(data)) + TOKENS_PER_TURN
    calls = data["step_details"]["tool_calls"]
    return sum(len(_call(call).arguments) + len(_result(call)) for call in calls) + TOKENS_PER_TURN
