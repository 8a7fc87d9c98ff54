"""What an error of the daemon looks like to clients of `/rpc`, `/stream` and `/create_session`."""

from __future__ import annotations

from typing import NotRequired

from starlette.responses import Response

from kolosal.errors import (
    AuthenticationFailed,
    ClientError,
    ContextLengthExceeded,
    ErrorFacts,
    Forbidden,
    InvalidRequest,
    KolosalError,
    Overloaded,
    error_row,
)
from kolosal.http.responses import JsonResponse, retry_after
from kolosal.http.sse import data_frame
from kolosal.routes.common.tool_turn import NO_MODEL
from kolosal.routes.jsonrpc.envelope import Code, RpcCall, RpcError, RpcFailure

_HTTP_OK = 200
_BAD_REQUEST = 400
_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503


class ErrorData(ErrorFacts):
    """What programs can tell errors apart by: the words of the OpenAI dialect, and the field at fault."""

    type: str
    param: NotRequired[str]
    retry_after_s: NotRequired[int]
    """The same request can succeed after this many seconds."""


class DetailError(ErrorFacts):
    """An error in one sentence."""

    detail: str
    reason: NotRequired[str]
    """Where `detail` is a sentence that clients look for: what is wrong."""


def rpc_error(error: KolosalError, call: RpcCall) -> RpcError:
    """An error while a method was carried out, with the call's id."""
    if error.code == NO_MODEL:
        return RpcError(Code.INTERNAL, error.message, request_id=call.id)
    retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else None
    code, what = Code.INTERNAL, f"Error processing {call.method}"
    if isinstance(error, ClientError):
        code, what = Code.INVALID_PARAMS, f"Invalid parameters for {call.method}"
    begins_as_elsewhere = isinstance(error, ContextLengthExceeded)  # clients know it by its first words
    return RpcError(
        code,
        error.message if begins_as_elsewhere else f"{what}: {error.message}",
        request_id=call.id,
        data=error_data(error),
        retry_after_s=retry_after_s,
    )


def error_data(error: KolosalError) -> ErrorData:
    """The `data` of an error."""
    row = error_row(error)
    data: ErrorData = {"type": row.openai_type}
    data.update(error.facts)  # type: ignore[typeddict-item] # mypy wants all keys
    if row.openai_code is not None:
        data["code"] = row.openai_code
    if error.param is not None:
        data["param"] = error.param
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        data["retry_after_s"] = error.retry_after_s
    return data


def rpc_status(error: RpcError) -> int:
    """The HTTP status of a single request's error: that of the envelope, but for what a later try can get round."""
    if error.code in (Code.PARSE, Code.INVALID_REQUEST):
        return _BAD_REQUEST
    if error.retry_after_s is None:
        return _HTTP_OK
    code = (error.data or {}).get("code")
    return _TOO_MANY_REQUESTS if code in ("queue_full", "rate_limit_exceeded") else _UNAVAILABLE


def rpc_failure_response(error: RpcError) -> JsonResponse[RpcFailure]:
    """One error as the answer to a request over HTTP."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return JsonResponse(error.failure(), rpc_status(error), headers)


def rpc_error_response(error: KolosalError, _request_id: str) -> Response:
    """An error of no request in particular, as an answer; its id is null."""
    return JsonResponse(transport_error(error).failure(), error_row(error).status, retry_after(error))


def transport_error(error: KolosalError) -> RpcError:
    """What is wrong with the transport of requests, or a defect of ours."""
    if isinstance(error, AuthenticationFailed | Forbidden):
        return RpcError(Code.SERVER, "Unauthorized")
    if isinstance(error, InvalidRequest):
        return RpcError(Code.PARSE, f"Parse error: {error.message}")
    if isinstance(error, ClientError):
        return RpcError(Code.INVALID_REQUEST, f"Invalid Request: {error.message}")
    return RpcError(Code.INTERNAL, error.message)


def detail_response(error: KolosalError, _request_id: str) -> Response:
    """`{"detail": …}`, with the statuses that these paths have."""
    body = DetailError(detail=_detail(error))
    body.update(error.facts)  # type: ignore[typeddict-item] # mypy wants all keys
    return JsonResponse(body, detail_status(error), retry_after(error))


def detail_status(error: KolosalError) -> int:
    """The HTTP status: an engine that is not there is a service that is not available."""
    status = error_row(error).status
    if error.code == NO_MODEL or (not isinstance(error, ClientError) and status == 422):
        return _UNAVAILABLE
    if isinstance(error, InvalidRequest) and error.param is not None:
        return 422
    return status


def _detail(error: KolosalError) -> str:
    if error.code == NO_MODEL:
        return "Model or tokenizer not loaded"
    return "Unauthorized" if isinstance(error, AuthenticationFailed) else error.message


def stream_error_frame(error: KolosalError) -> bytes:
    """The last frame of a stream that failed."""
    return data_frame({"error": error.message, **error.facts})
