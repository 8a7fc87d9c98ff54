"""Responses that are kept: followed up, read, listed, cancelled and deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from kolosal.engines.ipc.calls import Render
from kolosal.errors import EngineDied
from kolosal.routes.openai.responses.kept import KeptResponses
from kolosal.schema import ChatPrompt, FinishReason, Message, TokenDelta, ToolCall, Usage
from kolosal.store import database
from tests.fakes import AsgiRequest, FakeEngine, eventually, http_client, says
from tests.routes.openai.responses.asking import (
    CALL,
    HELLO,
    WEATHER,
    client_of,
    create,
    events_of,
    in_turn,
    kept_by,
    stream,
)


def messages_of(engine: FakeEngine) -> tuple[Message, ...]:
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_follow_up_gets_the_conversation_but_not_the_instructions(streaming: bool) -> None:
    engine = FakeEngine(script=in_turn(says("One"), says("Two"), says("Three")))
    async with client_of(engine) as client:
        if streaming:
            first = (await stream(client, instructions="Count"))[-1]["response"]
        else:
            first = await create(client, instructions="Count")
        second = await create(client, input="And?", previous_response_id=first["id"])
        await create(client, input="And?", previous_response_id=second["id"], instructions="Go on")
    assert second["previous_response_id"] == first["id"]
    assert messages_of(engine) == (
        Message("system", "Go on"),
        Message("user", "Hello"),
        Message("assistant", "One"),
        Message("user", "And?"),
        Message("assistant", "Two"),
        Message("user", "And?"),
    )


async def test_a_tool_loop_of_two_rounds() -> None:
    engine = FakeEngine(script=in_turn(says(*CALL), says("Sun.")))
    async with client_of(engine) as client:
        first = await create(client, tools=[WEATHER])
        [call] = first["output"]
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sun"}
        second = await create(client, tools=[WEATHER], previous_response_id=first["id"], input=[result])
    assert second["output"][0]["content"][0]["text"] == "Sun."
    assert messages_of(engine) == (
        Message("user", "Hello"),
        Message("assistant", "", tool_calls=(ToolCall(call["call_id"], "weather", '{"city": "Paris"}'),)),
        Message("tool", "Sun", "weather", tool_call_id=call["call_id"]),
    )


async def test_an_item_can_be_referred_to() -> None:
    engine = FakeEngine(script=says("One"))
    async with client_of(engine) as client:
        first = await create(client)
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        await create(client, input=[reference, {"role": "user", "content": "Why?"}])
    assert messages_of(engine) == (Message("assistant", "One"), Message("user", "Why?"))


async def test_a_kept_response_reads_as_it_was_given() -> None:
    async with client_of(FakeEngine(script=says("One"))) as client:
        given = await create(client)
        for path in (f"/v1/responses/{given['id']}", f"/responses/{given['id']}"):
            assert (
                await client.get(path, params={"include[]": "message.output_text.logprobs"})
            ).json() == given


async def test_a_deleted_response_is_not_found() -> None:
    async with client_of(FakeEngine(script=says("One"))) as client:
        path = f"/v1/responses/{(await create(client))['id']}"
        deleted = (await client.delete(path)).json()
        assert deleted == {"id": path.rpartition("/")[2], "object": "response", "deleted": True}
        for response in (
            await client.get(path),
            await client.delete(path),
            await client.post(f"{path}/cancel"),
        ):
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "response_not_found"


async def test_the_settings_bound_what_is_kept() -> None:
    async with client_of(FakeEngine(script=says("One")), responses_max_count=1) as client:
        first, second = await create(client), await create(client)
        assert (await client.get(f"/v1/responses/{first['id']}")).status_code == 404
        assert (await client.get(f"/v1/responses/{second['id']}")).status_code == 200


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=true", "stream"),
        ("starting_after=3", "starting_after"),
        ("include=everything", "include"),
        ("stream=perhaps", "stream"),
    ],
)
async def test_what_a_kept_response_cannot_give_is_refused(query: str, param: str) -> None:
    async with client_of(FakeEngine(script=says("One"))) as client:
        given = await create(client)
        response = await client.get(f"/v1/responses/{given['id']}?{query}")
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


# --- input items ---


async def _items(query: str) -> tuple[int, dict[str, Any]]:
    entries = [{"role": "user", "content": str(number), "id": f"msg_{number}"} for number in range(5)]
    async with client_of(FakeEngine(script=says("a"))) as client:
        given = await create(client, input=entries)
        response = await client.get(f"/v1/responses/{given['id']}/input_items{query}")
    return response.status_code, response.json()


@pytest.mark.parametrize(
    ("query", "numbers", "has_more"),
    [
        ("", "43210", False),
        ("?order=asc", "01234", False),
        ("?limit=2", "43", True),
        ("?limit=2&after=msg_3", "21", True),
        ("?order=asc&limit=2&after=msg_2", "34", False),
        ("?after=msg_0", "", False),
    ],
)
async def test_input_items_come_in_pages(query: str, numbers: str, has_more: bool) -> None:
    status, page = await _items(query)
    assert status == 200
    ids = [f"msg_{number}" for number in numbers]
    assert [item["id"] for item in page["data"]] == ids
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    assert (page["object"], page["has_more"]) == ("list", has_more)


async def test_a_page_after_an_unknown_item_is_refused() -> None:
    status, body = await _items("?after=y")
    assert (status, body["error"]["param"]) == (400, "after")


async def test_input_items_are_those_of_the_request() -> None:
    async with client_of(FakeEngine(script=says("a"))) as client:
        first = await create(client)
        second = await create(client, input="More", previous_response_id=first["id"])
        page = (await client.get(f"/v1/responses/{second['id']}/input_items")).json()
    assert [item["content"] for item in page["data"]] == [[{"type": "input_text", "text": "More"}]]


# --- counting ---


@pytest.mark.parametrize("path", ["/v1/responses/input_tokens", "/responses/input_tokens"])
async def test_tokens_are_counted_without_generating(path: str) -> None:
    engine = FakeEngine(script=says("Yes"))
    async with client_of(engine) as client:
        first = await create(client)
        counted = await client.post(
            path, json=HELLO | {"previous_response_id": first["id"], "tools": [WEATHER]}
        )
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": len("Hello|Yes|Hello")}
    [render] = engine.calls
    assert isinstance(render, Render)
    assert isinstance(render.prompt, ChatPrompt)
    assert [tool.name for tool in render.prompt.tool_use.tools] == ["weather"]
    assert len(engine.requests) == 1


# --- running responses ---


class Streaming:
    """A stream that a test feeds, and others who look at it."""

    def __init__(self, **fields: Any) -> None:
        self.engine = FakeEngine()
        self.daemon = kept_by(self.engine)
        self.request = AsgiRequest("/v1/responses", HELLO | {"stream": True} | fields)
        self.id = ""

    async def __aenter__(self) -> Streaming:
        self.app = await self.daemon.__aenter__()
        self.client = http_client(self.app)
        self.task = self.request.start(self.app)
        await self.engine.submitted.wait()
        self.engine.streams[0].put(TokenDelta("Hel"))
        await self.request.until(b'"delta":"Hel"')
        self.id = self.events[0]["response"]["id"]
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.task
        await self.client.aclose()
        await self.daemon.__aexit__(*error)

    @property
    def events(self) -> list[dict[str, Any]]:
        return events_of(self.request.content.decode())

    async def shown(self) -> dict[str, Any]:
        body: dict[str, Any] = (await self.client.get(f"/v1/responses/{self.id}")).json()
        return body


async def test_a_running_response_can_be_read_but_not_followed_up() -> None:
    async with Streaming() as running:
        shown = await running.shown()
        assert (shown["status"], shown["output"][0]["content"][0]["text"]) == ("in_progress", "Hel")
        follow = await running.client.post("/v1/responses", json=HELLO | {"previous_response_id": running.id})
        assert (follow.status_code, follow.json()["error"]["param"]) == (400, "previous_response_id")
        running.engine.streams[0].put(TokenDelta("lo", (), FinishReason.STOP, Usage(1, 2)))
        await running.task
        assert await running.shown() == running.events[-1]["response"]
    assert running.engine.aborted == []


@pytest.mark.parametrize("verb", ["cancel", "delete"])
async def test_a_running_response_is_stopped_from_another_connection(verb: str) -> None:
    async with Streaming() as running:
        if verb == "cancel":
            for _ in range(2):
                answer = await running.client.post(f"/v1/responses/{running.id}/cancel")
                assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        else:
            await running.client.delete(f"/v1/responses/{running.id}")
        await running.task
        assert running.engine.aborted == [0]
        last = running.events[-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
        assert last["response"]["output"][0]["content"][0]["text"] == "Hel"
        shown = await running.shown()
        assert ("error" in shown and shown.get("status")) == ("cancelled" if verb == "cancel" else None)


async def test_a_finished_response_cannot_be_cancelled() -> None:
    async with client_of(FakeEngine(script=says("One"))) as client:
        given = await create(client)
        response = await client.post(f"/v1/responses/{given['id']}/cancel")
    assert response.status_code == 400
    assert "it is completed already" in response.json()["error"]["message"]


async def test_a_client_that_leaves_stops_the_generation() -> None:
    async with Streaming() as running:
        running.request.leave()
        await running.task
        assert running.engine.aborted == [0]
        assert (await running.shown())["status"] == "cancelled"


async def test_a_failure_half_way_is_an_event_and_is_kept() -> None:
    async with Streaming() as running:
        running.engine.streams[0].fail(EngineDied("The engine stopped"))
        await running.task
        last = running.events[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert last["response"]["error"] == {"code": "server_error", "message": "The engine stopped"}
        assert await running.shown() == last["response"]


async def test_nothing_is_kept_of_a_stream_that_is_not_to_be_stored() -> None:
    async with Streaming(store=False) as running:
        assert (await running.client.get(f"/v1/responses/{running.id}")).status_code == 404
        running.engine.streams[0].put(TokenDelta("lo", (), FinishReason.STOP, Usage(1, 2)))
        await running.task
        assert (await running.client.get(f"/v1/responses/{running.id}")).status_code == 404


async def test_what_was_made_before_a_cancellation_is_not_sent_after_it() -> None:
    async with Streaming() as running:
        running.engine.streams[0].put(TokenDelta("lo", (), FinishReason.STOP, Usage(1, 2)))
        await running.client.post(f"/v1/responses/{running.id}/cancel")
        await eventually(running.task.done)
        kinds = [event["type"] for event in running.events]
        assert sum(kind in ("response.completed", "response.incomplete") for kind in kinds) == 1
        assert orjson.loads(orjson.dumps(await running.shown())) == running.events[-1]["response"]


# --- the store ---


async def test_a_conversation_goes_on_after_a_restart(tmp_path: Path) -> None:
    url, engine = f"sqlite:///{tmp_path / 'kolosal.db'}", FakeEngine(script=in_turn(says("One"), says("Two")))
    async with client_of(engine, store_url=url) as client:
        first = await create(client)
    async with client_of(engine, store_url=url) as client:
        assert (await client.get(f"/v1/responses/{first['id']}")).json() == first
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        await create(client, previous_response_id=first["id"], input=[reference])
    assert messages_of(engine) == (
        Message("user", "Hello"), Message("assistant", "One"), Message("assistant", "One"),
    )  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
async def test_without_a_store_everything_is_answered_but_what_needs_it(
    tmp_path: Path, streaming: bool
) -> None:
    (tmp_path / "kolosal.db").write_bytes(b"this is no database" * 100)
    url = f"sqlite:///{tmp_path / 'kolosal.db'}"
    async with client_of(FakeEngine(script=says("One")), store_url=url) as client:
        if streaming:
            given = (await stream(client))[-1]["response"]
        else:
            given = await create(client)
        assert (given["status"], given["store"]) == ("completed", False)
        assert (await create(client, store=False))["status"] == "completed"
        for response in (
            await client.post("/v1/responses", json=HELLO | {"store": True, "stream": streaming}),
            await client.post("/v1/responses", json=HELLO | {"previous_response_id": given["id"]}),
            await client.get(f"/v1/responses/{given['id']}"),
            await client.delete(f"/v1/responses/{given['id']}"),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("streaming", [False, True])
async def test_what_could_not_be_kept_in_the_end_is_told(
    monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    async with client_of(FakeEngine(script=says("y" * 100_000))) as client:
        kept = await create(client, store=True)
        monkeypatch.setattr(database, "_PRAGMAS", (*database._PRAGMAS, "PRAGMA max_page_count = 1"))
        async with client_of(FakeEngine(script=says("y" * 100_000))) as full:  # as large as it is
            if not streaming:
                answer = await full.post("/v1/responses", json=HELLO | {"store": True})
                assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")
                assert (await create(full))["store"] is False
            else:
                last = (await stream(full, store=True))[-1]
                assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
                assert "no room left" in last["response"]["error"]["message"]
                last = (await stream(full))[-1]
                assert (last["type"], last["response"]["store"]) == ("response.completed", False)
    assert kept["store"] is True


async def test_a_client_that_leaves_while_its_response_is_kept_finds_it_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached, goes_on = asyncio.Event(), asyncio.Event()
    put = KeptResponses._put

    async def slowly(*arguments: Any) -> bool:
        reached.set()
        await goes_on.wait()
        return await put(*arguments)

    monkeypatch.setattr(KeptResponses, "_put", slowly)
    async with Streaming() as running:
        running.engine.streams[0].put(TokenDelta("lo", (), FinishReason.STOP, Usage(1, 2)))
        await reached.wait()
        running.request.leave()
        await running.task
        assert (await running.shown())["status"] == "completed"
        goes_on.set()
        await running.app.state.services.responses.settled(None, running.id)
        assert (await running.shown())["status"] == "completed"
