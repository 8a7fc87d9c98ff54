"""JSON-RPC 2.0: requests out of their JSON, errors and notifications. Pure; over HTTP and WebSocket alike.

https://www.jsonrpc.org/specification
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal, NotRequired, TypeAlias

import orjson
from typing_extensions import TypedDict

from kolosal.errors import InvalidRequest
from kolosal.http.body import kind_of
from kolosal.http.bulk import check_bulk

VERSION: Final = "2.0"

MAX_METHOD_CHARS = 256
"""Characters of a method's name."""

MAX_ID_CHARS = 256
"""Characters of a request's id; it comes back in the answer."""

RequestId: TypeAlias = str | int | None


class RpcErrorObject(TypedDict):
    """Why a request failed."""

    code: int
    """The specification's, and from -32000 on our own."""
    message: str
    data: NotRequired[Mapping[str, object]]
    """What programs can tell errors apart by."""


class RpcFailure(TypedDict):
    """The answer to a request that failed."""

    jsonrpc: Literal["2.0"]
    error: RpcErrorObject
    id: RequestId
    """That of the request; null where it could not be read."""


class RpcNotification(TypedDict):
    """What is said without having been asked."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Mapping[str, object]


class Code(IntEnum):
    """Codes of errors."""

    PARSE = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    SERVER = -32000
    """A session or a generation failed; over HTTP: no key, or an unknown one."""
    NO_MODEL = -32001
    """The model is not there, or cannot be loaded."""
    BUSY = -32002
    """A generation is already in progress."""
    NOTHING_TO_CANCEL = -32003


class RpcError(Exception):
    """What a request is refused with."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        request_id: RequestId = None,
        data: Mapping[str, object] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id
        self.data = data
        self.retry_after_s = retry_after_s
        """Where set: the same request can succeed after this many seconds."""

    def body(self) -> RpcErrorObject:
        """The `error` member."""
        body: RpcErrorObject = {"code": int(self.code), "message": self.message}
        if self.data:
            body["data"] = self.data
        return body

    def failure(self) -> RpcFailure:
        """The answer to the request."""
        return {"jsonrpc": VERSION, "error": self.body(), "id": self.request_id}


@dataclass(frozen=True, slots=True)
class RpcCall:
    """A valid request."""

    method: str
    params: Mapping[str, Any]
    id: RequestId
    is_notification: bool
    """It has no id, so that nobody waits for an answer."""


def parse_json(data: bytes | str) -> object:
    """JSON of any kind.

    Raises:
        RpcError: it is none, or holds too much.
    """
    try:
        check_bulk(data.encode() if isinstance(data, str) else data)
        return orjson.loads(data)
    except InvalidRequest as exc:
        raise RpcError(Code.PARSE, exc.message) from None
    except orjson.JSONDecodeError as exc:
        raise RpcError(Code.PARSE, f"Parse error: {exc}") from None


def parse_call(value: object) -> RpcCall:
    """One request.

    Raises:
        RpcError: it is no request; the error has its id where that could be read.
    """
    if not isinstance(value, dict):
        raise RpcError(Code.INVALID_REQUEST, f"Invalid Request: it must be an object, not {kind_of(value)}")
    given_id = value.get("id")
    is_text = isinstance(given_id, str) and len(given_id) <= MAX_ID_CHARS
    if not (given_id is None or is_text or (isinstance(given_id, int) and not isinstance(given_id, bool))):
        raise RpcError(
            Code.INVALID_REQUEST,
            f"Invalid Request: id must be a string of up to {MAX_ID_CHARS} characters, an integer or null",
        )
    if value.get("jsonrpc") != VERSION:
        raise RpcError(Code.INVALID_REQUEST, "Invalid JSON-RPC version", request_id=given_id)
    method = value.get("method")
    if not isinstance(method, str) or len(method) > MAX_METHOD_CHARS:
        raise RpcError(
            Code.INVALID_REQUEST,
            f"Invalid Request: method must be a string of up to {MAX_METHOD_CHARS} characters",
            request_id=given_id,
        )
    params = value.get("params")
    if params is not None and not isinstance(params, dict):
        raise RpcError(
            Code.INVALID_PARAMS,
            f"Invalid parameters for {method}: params must be an object, not {kind_of(params)}",
            request_id=given_id,
        )
    return RpcCall(method, params or {}, given_id, "id" not in value)


def notification(method: str, params: Mapping[str, object]) -> RpcNotification:
    """A message that nobody answers."""
    return {"jsonrpc": VERSION, "method": method, "params": params}
