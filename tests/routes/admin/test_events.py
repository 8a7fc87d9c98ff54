"""Events and log lines: live, after a break, and for readers that are slow."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from kolosal.log import log_lines_kept
from kolosal.observe.events import MAX_EVENTS
from tests.fakes import AsgiRequest, FakeEngine, FakeRegistry, app_with, eventually, http_client, says

CHAT = {"model": "a", "messages": [{"role": "user", "content": "Hi"}]}


def parsed(content: bytes) -> list[tuple[str, str | None, Any]]:
    """Each event's kind, id and data."""
    events = []
    for frame in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if line and not line.startswith(":"))
        if fields:
            events.append((fields["event"], fields.get("id"), orjson.loads(fields["data"])))
    return events


def get(path: str, query: str = "", **headers: str) -> AsgiRequest:
    request = AsgiRequest(path, method="GET")
    request.scope["query_string"] = query.encode()
    request.scope["headers"] = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
    ]
    return request


async def test_what_happens_is_told_as_it_happens() -> None:
    app = app_with(FakeEngine("a", says("Hello")))
    request = get("/v1/events")
    following = request.start(app)
    await request.until(b"hello")
    async with http_client(app) as client:
        await client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "r-1"})
    await request.until(b"request.ended")
    request.leave()
    await following
    _, started, ended = parsed(request.content)
    assert (started[0], started[2]["request_id"], started[2]["engine_id"]) == ("request.started", "r-1", "a")
    assert (ended[0], ended[2]["outcome"], ended[2]["completion_tokens"]) == ("request.ended", "completed", 1)
    assert isinstance(ended[2]["time"], int)


async def test_a_reader_that_comes_back_misses_nothing() -> None:
    engine = FakeEngine("a")
    app = app_with(engine)
    async with http_client(app) as client:
        kept = parsed((await client.get("/v1/events?follow=false")).content)
        _, position, _ = kept[-1]
        engine.observer.events.publish("x", n=1)
        engine.observer.events.publish("x", n=2)
        again = await client.get("/events?follow=false", headers={"last-event-id": str(position)})
        assert [data["n"] for kind, _, data in parsed(again.content) if kind == "x"] == [1, 2]
        by_query = await client.get(f"/v1/events?follow=false&after={position}")
        assert parsed(by_query.content) == parsed(again.content)


async def test_what_was_lost_is_told() -> None:
    engine = FakeEngine("a")
    app = app_with(engine)
    log = engine.observer.events
    position = log.id_of(log.ring.newest)
    for number in range(MAX_EVENTS + 7):
        log.publish("x", n=number)
    async with http_client(app) as client:
        some = parsed((await client.get(f"/v1/events?follow=false&after={position}")).content)
        other_run = parsed((await client.get("/v1/events?follow=false&after=0000-5")).content)
    assert [(kind, data.get("lost")) for kind, _, data in some[:3]] == [
        ("hello", None),
        ("events.lost", 7),
        ("x", None),
    ]
    assert other_run[0] == ("events.lost", None, {"lost": None})
    assert len([kind for kind, _, _ in other_run if kind == "x"]) == MAX_EVENTS


async def test_following_ends_when_the_daemon_does() -> None:
    engine = FakeEngine("a")
    request = get("/v1/events")
    following = request.start(app_with(engine))
    await request.until(b"hello")
    engine.observer.events.close()
    await following
    assert request.complete


async def test_a_reader_that_left_leaves_nothing_behind() -> None:
    request = get("/v1/events")
    following = request.start(app_with(FakeEngine("a")))
    await request.until(b"hello")
    request.leave()
    await following
    assert following.done()


@pytest.mark.parametrize("path", ["/v1/events", "/engines/a/logs?follow=true"])
async def test_a_head_request_ends(path: str) -> None:
    async with http_client(app_with(FakeEngine("a"))) as client:
        response = await client.head(path)
    assert (response.status_code, response.content) == (200, b"")


async def test_log_lines_are_shown_and_followed() -> None:
    engine = FakeEngine("a")
    engine.logs.feed(b"one\ntwo\nthree\n")
    app = app_with(engine)
    async with http_client(app) as client:
        body = (await client.get("/engines/a/logs?tail=2")).json()
        assert body == {"engine_id": "a", "lines": ["two", "three"], "dropped": 1}
        assert (await client.get("/engines/b/logs")).status_code == 404
    request = get("/v1/engines/a/logs", "follow=true&tail=1")
    following = request.start(app)
    await request.until(b"three")
    engine.logs.feed(b"four\n")
    await request.until(b"four")
    engine.logs.ring.close()
    await following
    assert [data["line"] for _, _, data in parsed(request.content)] == ["three", "four"]


async def test_states_of_engines_are_events() -> None:
    engine = FakeEngine("a")
    registry = FakeRegistry(engine)
    registry.remove("a")
    await eventually(lambda: engine.logs.ring._closed)
    told = [(event.kind, event.data.get("state")) for event in registry.observer.events.ring.last(9).items]
    assert told == [("engine.state", "ready"), ("engine.removed", None), ("engine.state", "closed")]


async def test_only_chosen_kinds_of_events() -> None:
    engine = FakeEngine("a")
    async with http_client(app_with(engine)) as client:
        for kind in ("x", "y", "z"):
            engine.observer.events.publish(kind)
        found = parsed((await client.get("/v1/events?follow=false&kinds=x,z")).content)
    assert [kind for kind, _, _ in found] == ["hello", "x", "z"]


async def test_the_log_of_the_daemon_is_shown_and_followed() -> None:
    app = app_with()
    registry = app.state.services.registry
    with log_lines_kept(registry.observer.log):
        logging.getLogger("kolosal").warning("something.happened", extra={"n": 1})
        following = get("/v1/logs", "follow=true")
        reading = following.start(app)
        await following.until(b"something.happened n=1")
        async with http_client(app) as client:
            lines = (await client.get("/logs?tail=5")).json()["lines"]
        assert any(line.endswith("WARNING something.happened n=1") for line in lines)
    await reading
