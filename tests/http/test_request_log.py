"""Around every request: ids, log lines, the cap on bodies, and 500s that tell nothing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kolosal.http.guard import BodyLimit
from kolosal.http.handlers import EXCEPTION_HANDLERS
from kolosal.http.request_log import RequestLog
from kolosal.http.responses import JsonResponse
from tests.fakes import app_with, http_client


async def _echo(request: Request) -> Response:
    return JsonResponse({"bytes": len(await request.body())})


async def _fail(_request: Request) -> Response:
    raise RuntimeError("secret at 0x7ffd")


def _app() -> Starlette:
    routes = [Route("/echo", _echo, methods=["POST"]), Route("/fail", _fail)]
    middleware = [Middleware(RequestLog, access_log=True), Middleware(BodyLimit, max_bytes=10)]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS)


async def test_every_response_has_a_request_id() -> None:
    async with http_client(app_with()) as client:
        ids = {(await client.get(path)).headers["x-request-id"] for path in ("/health", "/nope", "/engines")}
        assert len(ids) == 3
        chosen = await client.get("/health", headers={"x-request-id": "abc-1"})
        assert chosen.headers["x-request-id"] == "abc-1"
        odd = await client.get("/health", headers={"x-request-id": "a b\tc"})
        assert odd.headers["x-request-id"].startswith("req_")


async def test_a_defect_of_ours_is_logged_under_the_id_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with http_client(_app()) as client:
        response = await client.get("/fail", headers={"x-request-id": "r-1"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "r-1"
    assert response.json() == {
        "error": {
            "message": "Internal server error",
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
    }
    record = next(r for r in caplog.records if r.message == "request.failed")
    assert vars(record)["request_id"] == "r-1"
    assert "secret at 0x7ffd" in caplog.text


async def test_the_end_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with http_client(_app()) as client:
        await client.post("/echo", content=b"x")
    fields = vars(next(r for r in caplog.records if r.message == "request.finished"))
    assert (fields["method"], fields["path"], fields["status"]) == ("POST", "/echo", 200)


async def test_health_checks_that_go_well_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with http_client(app_with()) as client:
        for path in ("/health", "/v1/health", "/status", "/engines"):
            await client.get(path)
        await client.post("/health")
    logged = [
        (vars(record)["path"], vars(record)["status"], record.levelno)
        for record in caplog.records
        if record.message == "request.finished"
    ]
    assert logged == [
        ("/health", 200, logging.DEBUG), ("/v1/health", 200, logging.DEBUG), ("/status", 200, logging.DEBUG),
        ("/engines", 200, logging.INFO), ("/health", 405, logging.INFO),
    ]  # fmt: skip


async def test_a_body_up_to_the_limit_passes() -> None:
    async with http_client(_app()) as client:
        assert (await client.post("/echo", content=b"x" * 10)).json() == {"bytes": 10}


async def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with http_client(_app()) as client:
        response = await client.post("/echo", content=never(), headers={"content-length": "11"})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("headers", [{}, {"content-length": "2"}, {"content-length": "-5"}])
async def test_a_body_that_grows_over_the_limit_is_refused(headers: dict[str, str]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 5

    async with http_client(_app()) as client:
        assert (await client.post("/echo", content=chunks(), headers=headers)).status_code == 413


async def test_a_compressed_body_is_refused() -> None:
    async with http_client(app_with()) as client:
        response = await client.post(
            "/v1/completions", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
        )
    assert response.status_code == 415
    assert response.json()["error"]["code"] == "unsupported_media_type"


async def test_unknown_routes_and_verbs_have_the_same_shape() -> None:
    async with http_client(app_with()) as client:
        unknown = await client.get("/v2/" + "x" * 500)
        assert unknown.status_code == 404
        assert unknown.json()["error"]["message"].startswith("Unknown route: GET /v2/xxx")
        assert len(unknown.json()["error"]["message"]) < 150
        assert (await client.get("/engines/none/none")).status_code == 404
        wrong = await client.put("/engines")
        assert wrong.status_code == 405
        assert wrong.headers["allow"] == "GET, HEAD, POST"
        assert wrong.json()["error"]["code"] == "method_not_allowed"
        assert (await client.get("/v1/chat/completions")).headers["allow"] == "POST"
