"""Every error has one shape on the wire."""

from __future__ import annotations

import orjson
import pytest

from kolosal.errors import (
    ERROR_TABLE,
    EngineDied,
    InternalError,
    InvalidRequest,
    KolosalError,
    LoadFailed,
    QueueFull,
)
from kolosal.http.responses import JsonResponse, error_response


def _all_errors(base: type[KolosalError] = KolosalError) -> list[type[KolosalError]]:
    return [cls for sub in base.__subclasses__() for cls in (*_all_errors(sub), sub)]


@pytest.mark.parametrize("cls", ERROR_TABLE)
def test_each_row_is_an_openai_error(cls: type[KolosalError]) -> None:
    error = cls() if cls is InternalError else cls("why")
    response = error_response(error)
    row = ERROR_TABLE[cls]
    assert response.status_code == row.status
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert orjson.loads(response.body) == {
        "error": {"message": error.message, "type": row.openai_type, "param": None, "code": row.openai_code}
    }


def test_every_error_that_can_be_raised_has_a_row() -> None:
    abstract = {"ClientError", "Overloaded", "EngineError"}
    assert {cls for cls in _all_errors() if cls.__name__ not in abstract} == set(ERROR_TABLE)


def test_an_instance_may_be_more_precise() -> None:
    body = orjson.loads(error_response(InvalidRequest("m", param="a.0.b", code="odd")).body)
    assert body == {
        "error": {"message": "m", "type": "invalid_request_error", "param": "a.0.b", "code": "odd"}
    }


def test_overload_says_when_to_come_back() -> None:
    assert error_response(QueueFull("full", retry_after_s=7)).headers["retry-after"] == "7"


def test_an_engine_that_rests_says_when_to_come_back() -> None:
    assert error_response(EngineDied("rests", retry_after_s=7)).headers["retry-after"] == "7"
    assert "retry-after" not in error_response(EngineDied("died")).headers


def test_a_failed_load_carries_details() -> None:
    response = error_response(LoadFailed("broken", param="model_path", details={"n_ctx": 5}))
    assert response.status_code == 422
    assert orjson.loads(response.body)["error"]["details"] == {"n_ctx": 5}


def test_json_says_it_is_utf_8() -> None:
    response = JsonResponse({"a": "é"}, 201)
    assert (response.status_code, response.body) == (201, '{"a":"é"}'.encode())
    assert response.headers["content-type"] == "application/json; charset=utf-8"
