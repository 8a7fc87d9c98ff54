"""H7: bodies that are hard to parse, on every route that reads one, at the price of a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

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

TRIES = 3
"""The best of so many is what a body costs: other work shares the machine's caches."""

BODIES = {
    "nothing": b"",
    "null": b"null",
    "an array": b"[]",
    "a number": b"1",
    "not closed": b'{"model": "fake"',
    "100,000 arrays in one another": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects in one another": b'{"model":' * 100_000,
    "1,000 arrays in one another": b'{"model": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "1,000,000 keys": b"{" + b",".join(b'"key %d":1' % n for n in range(1_000_000)) + b"}",
    "1,000,000 times the same key": b'{"model":"fake"' + b',"model":"fake"' * 1_000_000 + b"}",
    "5,000,000 empty arrays": b'{"model":[' + b"[]," * 5_000_000 + b"0]}",
    "5,000,000 numbers": b'{"model":[' + b"0," * 5_000_000 + b"0]}",
    "a number of 5,000 digits": b'{"model": ' + b"1" * 5000 + b"}",
    "NaN": b'{"model": NaN}',
    "Infinity": b'{"model": -Infinity}',
    "1e999": b'{"model": 1e999}',
    "a lone surrogate": rb'{"model": "\ud800"}',
    "no UTF-8": b'{"model": "\xff"}',
    "half a character": b'{"model": "\xf0\x9f\x92"}',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "UTF-16 without saying so": '{"model": "fake"}'.encode("utf-16"),
    "a NUL": b'{"model": "fake"}\x00',
    "a comment": b'{"model": "fake" /* this one */}',
    "a key twice and once wrong": b'{"model": "fake", "model": 5}',
}

ALWAYS_ANSWERED = ("/rpc", "/create_session")
"""One answers errors with 200, as JSON-RPC does; the other needs no body."""

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
async def test_every_route_refuses_what_is_no_body(path: str) -> None:
    app = app_with(FakeEngine("fake", says("Hi")))
    for what, body in BODIES.items():
        if len(body) < 100_000:
            request = await answer(app, path, body)
            assert request.status is not None
            least = 200 if path in ALWAYS_ANSWERED else 400
            assert least <= request.status < 500, what
            if path in OPENAI_SHAPED:
                error = orjson.loads(request.content)["error"]
                assert (request.status, error["type"]) == (400, "invalid_request_error"), what
                assert len(error["message"]) < 400


@pytest.mark.fault("H7")
@pytest.mark.parametrize("what", BODIES)
async def test_no_body_takes_more_than_a_moment(what: str, sized: Sized, seen: Seen) -> None:
    app = app_with(FakeEngine("fake", says("Hi")))
    await answer(app, "/v1/completions", b"{}")
    costs: list[float] = []
    worst: list[float] = []
    for _ in range(TRIES):
        with stalls() as taken:
            began = time.process_time()
            request = await answer(app, "/v1/completions", BODIES[what])
            costs.append(time.process_time() - began)
        worst.append(max(taken, default=0.0))
        error = orjson.loads(request.content)["error"]
        assert (request.status, error["type"]) == (400, "invalid_request_error")
    assert min(costs) < sized(10, 1) * MAX_CPU_S  # coverage alone makes it twice as slow
    assert min(worst) < sized(10, 1) * MAX_STALL_S
    if len(BODIES[what]) > 1_000_000:
        seen(f"{what}: {1000 * min(costs):.0f} ms, stall {1000 * min(worst):.0f} ms")
