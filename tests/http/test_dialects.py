"""Dialects: whose errors a path gets, whichever layer answers."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kolosal.errors import InvalidRequest, KolosalError
from kolosal.http.dialects import OPENAI, Dialect, dialect_of
from kolosal.http.guard import BodyLimit
from kolosal.http.handlers import EXCEPTION_HANDLERS
from kolosal.http.request_log import RequestLog
from tests.fakes import http_client


def _shout(error: KolosalError, request_id: str) -> Response:
    return PlainTextResponse(f"{request_id}: {error.message.upper()}", 418)


LOUD = Dialect(("/loud", "/v2/loud"), _shout, request_id_header="loud-id")


async def _refuse(request: Request) -> Response:
    await request.body()
    raise InvalidRequest("no")


async def _fail(_request: Request) -> Response:
    raise RuntimeError("secret")


def _app() -> Starlette:
    routes = [
        Route(f"{prefix}/{end}", endpoint, methods=["POST"])
        for prefix in ("/loud", "/quiet")
        for end, endpoint in (("refuse", _refuse), ("fail", _fail))
    ]
    middleware = [
        Middleware(RequestLog, access_log=False, dialects=[LOUD]),
        Middleware(BodyLimit, max_bytes=10),
    ]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS)


@pytest.mark.parametrize(
    ("path", "owned"),
    [
        ("/loud", True),
        ("/loud/a/b", True),
        ("/v2/loud", True),
        ("/louder", False),
        ("/v2", False),
        ("/", False),
    ],
)
def test_a_dialect_owns_its_prefixes_and_what_is_below_them(path: str, owned: bool) -> None:
    assert LOUD.owns(path) is owned


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "/loud/refuse", b"", "NO"), ("POST", "/loud/fail", b"", "INTERNAL SERVER ERROR"),
        ("POST", "/loud/refuse", b"x" * 11, "THE REQUEST BODY IS LONGER"), ("POST", "/loud/nothing", b"", "UNKNOWN ROUTE"),
        ("GET", "/loud/refuse", b"", "METHOD NOT ALLOWED"),
    ],
)  # fmt: skip
async def test_every_layer_answers_in_the_dialect_of_the_path(
    method: str, path: str, body: bytes, words: str
) -> None:
    async with http_client(_app()) as client:
        loud = await client.request(method, path, content=body)
        quiet = await client.request(method, path.replace("loud", "quiet"), content=body)
    assert loud.status_code == 418
    assert loud.text.startswith(f"{loud.headers['loud-id']}: {words}")
    assert "error" in quiet.json()
    assert "loud-id" not in quiet.headers


def test_without_middleware_it_is_openais() -> None:
    assert dialect_of({"type": "http", "path": "/loud"}) is OPENAI
