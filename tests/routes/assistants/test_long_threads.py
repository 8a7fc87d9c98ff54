"""Threads of very many messages: all that can be done with them is bounded, and holds nobody up (H11 watches every test)."""

from __future__ import annotations

import pytest

from kolosal.routes.assistants import threads
from kolosal.store.collections import MESSAGES
from tests.fakes import FakeEngine, says
from tests.routes.assistants.conftest import Assistants, Begin

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

N_MESSAGES = 10_000


async def filled(daemon: Assistants, n_messages: int) -> str:
    """A thread of so many messages, without a request for each."""
    thread = await daemon.sdk.beta.threads.create(messages=[{"role": "user", "content": "word " * 10}])
    async with daemon.services.store.writing(None) as session:
        [row] = await session.newest(MESSAGES, 1, thread_id=thread.id)
        messages = ({**row.data, "id": f"msg_{n}"} for n in range(1, n_messages))
        await session.insert_all(MESSAGES, ((each, {"thread_id": thread.id}) for each in messages))
    return thread.id


async def test_a_thread_of_many_messages_is_listed_answered_and_deleted(begin: Begin) -> None:
    engine = FakeEngine(script=says("Hello"))
    daemon = begin(engine)
    assistant = await daemon.sdk.beta.assistants.create(model="fake")
    thread_id = await filled(daemon, N_MESSAGES)
    for order, ids in (("asc", ["msg_1", "msg_2"]), ("desc", ["msg_9999", "msg_9998"])):
        path = f"/threads/{thread_id}/messages?limit=3&order={order}"
        listed = [each["id"] for each in (await daemon.http.get(path)).json()["data"]]
        assert listed[-len(ids) :] == ids or listed[: len(ids)] == ids
    run = await daemon.sdk.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=assistant.id)
    assert run.status == "completed"
    await daemon.http.delete(f"/threads/{thread_id}")
    async with daemon.services.store.reading(None) as session:
        assert await session.count(MESSAGES, "thread_id", thread_id) == 0


async def test_a_thread_that_is_full_takes_no_more(
    daemon: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MAX_MESSAGES", 3)
    assistant = await daemon.sdk.beta.assistants.create(model="fake")
    thread_id = await filled(daemon, 3)
    message = {"role": "user", "content": "more"}
    for path, body in (
        ("messages", message),
        ("runs", {"assistant_id": assistant.id, "additional_messages": [message]}),
    ):
        answer = await daemon.http.post(f"/threads/{thread_id}/{path}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "thread_full")
        assert "has 3 messages: at most 3 are allowed" in answer.json()["error"]["message"]
    run = await daemon.sdk.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=assistant.id)
    assert run.status == "completed"
