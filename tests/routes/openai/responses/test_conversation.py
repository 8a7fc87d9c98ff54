"""From items to turns: what belongs to one turn of the assistant, and what is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kolosal.routes.openai.responses.conversation import to_messages
from kolosal.routes.openai.responses.items import (
    CallItem,
    CallOutputItem,
    Item,
    ItemStatus,
    MessageItem,
    MessageRole,
    ReasoningItem,
    text_of,
)
from kolosal.schema import Message, ToolCall


def said(role: MessageRole, text: str) -> MessageItem:
    return {
        "id": "msg",
        "type": "message",
        "role": role,
        "status": "completed",
        "content": [{"type": "input_text", "text": text}],
    }


def thought(*content: str, summary: str | None = None) -> ReasoningItem:
    return {
        "id": "rs",
        "type": "reasoning",
        "summary": [] if summary is None else [{"type": "summary_text", "text": summary}],
        "content": [{"type": "reasoning_text", "text": text} for text in content],
        "status": "completed",
    }


def call(arguments: str, status: ItemStatus) -> CallItem:
    return {
        "id": "fc",
        "type": "function_call",
        "call_id": "c1",
        "name": "f",
        "arguments": arguments,
        "status": status,
    }


CALL = call("{}", "completed")
OUTPUT: CallOutputItem = {
    "id": "fco",
    "type": "function_call_output",
    "call_id": "c1",
    "output": "x",
    "status": "completed",
}


def test_instructions_come_first() -> None:
    assert to_messages("Be brief", [said("system", "a")]) == (
        Message("system", "Be brief"),
        Message("system", "a"),
    )


def test_thoughts_text_and_calls_are_one_turn() -> None:
    items: list[Item] = [
        thought("a", "b"),
        thought(summary="c"),
        said("assistant", "d"),
        CALL,
    ]
    assert to_messages(None, items) == (
        Message("assistant", "d", tool_calls=(ToolCall("c1", "f", "{}"),), thinking="a\nb\nc"),
    )


def test_text_and_thoughts_after_an_answer_begin_a_turn() -> None:
    items: list[Item] = [CALL, said("assistant", "a"), said("assistant", "b"), thought("c")]
    assert to_messages(None, items) == (
        Message("assistant", "", tool_calls=(ToolCall("c1", "f", "{}"),)),
        Message("assistant", "a"),
        Message("assistant", "b"),
        Message("assistant", "", thinking="c"),
    )


def test_a_call_that_was_cut_off_is_left_out() -> None:
    cut_off = call('{"a', "incomplete")
    assert to_messages(None, [said("assistant", "a"), cut_off]) == (Message("assistant", "a"),)


items = st.lists(
    st.one_of(
        st.builds(said, st.sampled_from(["user", "assistant", "developer"]), st.text(min_size=1, max_size=2)),
        st.builds(thought, st.text(min_size=1, max_size=2)),
        st.just(CALL),
        st.just(OUTPUT),
    ),
    max_size=10,
)


@given(items)
def test_nothing_is_lost_and_the_order_stays(given: list[Item]) -> None:
    parts: list[str] = []
    for message in to_messages(None, given):
        parts += [*(message.thinking or "").split("\n"), *([message.content] if message.content else [])]
        parts += [call.id for call in message.tool_calls]
    expected: list[str] = []
    for item in given:
        if item["type"] == "reasoning":
            expected += [*item["content"][0]["text"].split("\n")]
        elif item["type"] == "function_call":
            expected.append(item["call_id"])
        elif item["type"] == "function_call_output":
            expected.append(text_of(item["output"]))
        elif item["type"] == "message":
            expected.append(text_of(item["content"]))
    assert [part for part in parts if part] == [part for part in expected if part]
