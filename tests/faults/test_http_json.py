"""H7: bodies that are hard to parse, on every route that reads one, at the price of a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from kolosal.routes import all_routes
from kolosal.routes.common.operation import operation_of
from tests.fakes import AsgiRequest, FakeEngine, app_with, says
from tests.faults.drivers import stalls

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]

MAX_CPU_S = 0.05

MAX_STALL_S = 0.02

TRIES = 10
"""The best of so many is what a body costs: other work shares the machine's caches. Mostly the first will do."""

BODIES: dict[str, Callable[[int], bytes]] = {
    "nothing": lambda _: b"",
    "null": lambda _: b"null",
    "an array": lambda _: b"[]",
    "a number": lambda _: b"1",
    "not closed": lambda _: b'{"model": "fake"',
    "arrays in one another": lambda n: b'{"model": ' + b"[" * (n // 50) + b"]" * (n // 50) + b"}",
    "objects in one another": lambda n: b'{"model":' * (n // 50),
    "1,000 arrays in one another": lambda _: b'{"model": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "many keys": lambda n: b'{"model":5' + b"".join(b',"key %d":1' % key for key in range(n // 5)) + b"}",
    "many times the same key": lambda n: b'{"model":5' + b',"model":5' * (n // 5) + b"}",
    "many empty arrays": lambda n: b'{"model":[' + b"[]," * n + b"0]}",
    "many numbers": lambda n: b'{"model":[' + b"0," * n + b"0]}",
    "a number of 5,000 digits": lambda _: b'{"model": ' + b"1" * 5000 + b"}",
    "NaN": lambda _: b'{"model": NaN}',
    "Infinity": lambda _: b'{"model": -Infinity}',
    "1e999": lambda _: b'{"model": 1e999}',
    "a lone surrogate": lambda _: rb'{"model": "\ud800"}',
    "no UTF-8": lambda _: b'{"model": "\xff"}',
    "half a character": lambda _: b'{"model": "\xf0\x9f\x92"}',
    "two byte order marks": lambda _: b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "UTF-16 without saying so": lambda _: '{"model": "fake"}'.encode("utf-16"),
    "a NUL": lambda _: b'{"model": "fake"}\x00',
    "a comment": lambda _: b'{"model": "fake" /* this one */}',
    "a key twice and once wrong": lambda _: b'{"model": "fake", "model": 5}',
}
"""Bodies by what is odd about them, and by how many of it a large one has."""

ALWAYS_ANSWERED = ("/rpc", "/create_session", "/threads", "/vector_stores")
"""The first answers errors with 200, as JSON-RPC does; the others need no body."""

PATHS = [
    route.path.replace("{engine_id}", "new")
    for route in all_routes()
    if isinstance(route, Route) and not route.path.startswith("/v1/")
    if (operation := operation_of(route.endpoint)) is not None and operation.body is not None
    if "POST" in (route.methods or ())
]
OPENAI_SHAPED = ("/chat/completions", "/completions", "/embeddings", "/responses", "/engines")


async def answer(app: Starlette, path: str, body: bytes) -> AsgiRequest:
    request = AsgiRequest(path)
    request._body = body
    await request.start(app)
    return request


@pytest.mark.fault("H7")
@pytest.mark.parametrize("path", PATHS)
async def test_every_route_refuses_what_is_no_body(path: str, tmp_path: Path) -> None:
    app = app_with(FakeEngine("fake", says("Hi")), store_url=f"sqlite:///{tmp_path / 'kolosal.db'}")
    for what, body in BODIES.items():
        request = await answer(app, path, body(5000))
        assert request.status is not None
        least = 200 if path in ALWAYS_ANSWERED else 400
        assert least <= request.status < 500, what
        if path in OPENAI_SHAPED:
            error = orjson.loads(request.content)["error"]
            assert (request.status, error["type"]) == (400, "invalid_request_error"), what
            assert len(error["message"]) < 400
    await app.state.services.indexer.close()
    await app.state.services.store.close()


@pytest.mark.fault("H7")
@pytest.mark.parametrize("what", BODIES)
async def test_no_body_takes_more_than_a_moment(what: str, sized: Sized, seen: Seen) -> None:
    app = app_with(FakeEngine("fake", says("Hi")))
    await answer(app, "/v1/completions", b"{}")
    body = BODIES[what](sized(200_000, 5_000_000))
    may_cost, may_stall = (
        sized(10, 1) * MAX_CPU_S,
        sized(10, 1) * MAX_STALL_S,
    )  # coverage alone makes it twice as slow
    costs: list[float] = []
    worst: list[float] = []
    while len(costs) < TRIES and not (costs and min(costs) < may_cost and min(worst) < may_stall):
        with stalls() as taken:
            began = time.process_time()
            request = await answer(app, "/v1/completions", body)
            costs.append(time.process_time() - began)
        worst.append(max(taken, default=0.0))
        error = orjson.loads(request.content)["error"]
        assert (request.status, error["type"]) == (400, "invalid_request_error")
    assert min(costs) < may_cost
    assert min(worst) < may_stall
    if len(body) > 1_000_000:
        seen(f"{what}: {1000 * min(costs):.0f} ms, stall {1000 * min(worst):.0f} ms")
