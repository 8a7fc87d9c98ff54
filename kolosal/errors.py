"""Every error a client can be told, and the one table that says how each protocol words it.

    KolosalError
    ├─ ClientError      InvalidRequest · ContextLengthExceeded · AuthenticationFailed · KeyMissing · Forbidden
    │                   · NotFound · EngineNotFound · Conflict · MethodNotAllowed · PayloadTooLarge
    │                   · HeadersTooLarge · UnsupportedMediaType · UnsupportedFeature · ModelFileError
    ├─ Overloaded       QueueFull · TooManyAttempts · ServerBusy · QueueTimeout · Draining · InsufficientMemory
    │                   (each carries retry_after_s)
    ├─ EngineError      LoadFailed · EngineDied · GenerationFailed
    └─ InternalError    fixed text; the detail goes to the log under the request id

`ERROR_TABLE` maps class → HTTP status and OpenAI type and code. An instance may name a more precise `code`. Knows no
HTTP library: routes turn a row into a response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class KolosalError(Exception):
    """Base of all. `message` is shown to clients, so it holds no address, no traceback and no secret."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """The request field at fault, where there is one."""
        self.code = code
        """A more precise code than the class's row in `ERROR_TABLE`."""
        self.details = details
        """More that programs can use, as JSON values."""
        self.retry_after_s: int | None = None
        """When the same request may succeed; None where that is not known."""


class ClientError(KolosalError):
    """The request cannot be served as it is; sending it again will not help."""


class InvalidRequest(ClientError):
    """A field is missing, mistyped or out of range, or the body is not what its content type says."""


class ContextLengthExceeded(ClientError):
    """The prompt leaves no room for an answer in the context window. The message holds both numbers."""


class AuthenticationFailed(ClientError):
    """No valid API key."""


class KeyMissing(AuthenticationFailed):
    """No API key at all, where one is needed. Some protocols word this in another way than a wrong one."""


class Forbidden(ClientError):
    """The key is known but may not do this, or the request comes from a host or page that may not."""


class NotFound(ClientError):
    """No such engine, model or route."""


class EngineNotFound(NotFound):
    """No such engine, asked for by the name in the path of an engine route."""


class MethodNotAllowed(ClientError):
    """The route exists, the verb is not one of its own."""


class Conflict(ClientError):
    """The name is taken."""


class PayloadTooLarge(ClientError):
    """The body is longer than the limit."""


class HeadersTooLarge(ClientError):
    """The request has too many headers, or too long ones."""


class UnsupportedMediaType(ClientError):
    """The body is compressed, or in a charset that is not read here."""


class UnsupportedFeature(ClientError):
    """A known feature that this daemon or this model does not have."""


class ModelFileError(ClientError):
    """`model_path` names nothing that can be a model: raised before any engine is started."""


class Overloaded(KolosalError):
    """The same request can succeed later."""

    def __init__(self, message: str, *, retry_after_s: int = 1, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class QueueFull(Overloaded):
    """The engine, or this API key, has as many requests waiting as it may."""


class ServerBusy(Overloaded):
    """The daemon has as many requests as it may hold, whatever the engine."""


class QueueTimeout(Overloaded):
    """The request waited too long for its turn and was given up."""


class TooManyAttempts(Overloaded):
    """Too many wrong API keys came from this address."""


class Draining(Overloaded):
    """The daemon is shutting down."""


class InsufficientMemory(Overloaded):
    """The model does not fit into the memory that is free now."""


class EngineError(KolosalError):
    """The engine, not the request, is at fault."""


class LoadFailed(EngineError):
    """The worker could not load the model. The message quotes llama.cpp's reason."""

    worker_started = False
    """Whether a process was started in vain, which an engine does not do without end."""


class EngineDied(EngineError):
    """The worker process ended while the request was in flight, or ends too often to be started. Only its own requests are
    affected."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GenerationFailed(EngineError):
    """llama.cpp could not go on with this one request; the engine lives."""


class InternalError(KolosalError):
    """A defect of ours. The text is fixed; the cause is in the log."""

    def __init__(self) -> None:
        super().__init__("Internal server error")


class ErrorRow(NamedTuple):
    """How one class of error is shown on the wire."""

    status: int
    """HTTP status."""
    openai_type: str
    openai_code: str | None


ERROR_TABLE: dict[type[KolosalError], ErrorRow] = {
    InvalidRequest: ErrorRow(400, "invalid_request_error", None),
    ContextLengthExceeded: ErrorRow(400, "invalid_request_error", "context_length_exceeded"),
    AuthenticationFailed: ErrorRow(401, "invalid_request_error", "invalid_api_key"),
    KeyMissing: ErrorRow(401, "invalid_request_error", "invalid_api_key"),
    Forbidden: ErrorRow(403, "permission_error", None),
    NotFound: ErrorRow(404, "invalid_request_error", None),
    EngineNotFound: ErrorRow(404, "not_found_error", None),
    MethodNotAllowed: ErrorRow(405, "invalid_request_error", "method_not_allowed"),
    Conflict: ErrorRow(409, "invalid_request_error", None),
    PayloadTooLarge: ErrorRow(413, "invalid_request_error", "payload_too_large"),
    HeadersTooLarge: ErrorRow(431, "invalid_request_error", "headers_too_large"),
    UnsupportedMediaType: ErrorRow(415, "invalid_request_error", "unsupported_media_type"),
    UnsupportedFeature: ErrorRow(400, "invalid_request_error", "unsupported_feature"),
    ModelFileError: ErrorRow(400, "invalid_request_error", None),
    QueueFull: ErrorRow(429, "rate_limit_error", "queue_full"),
    ServerBusy: ErrorRow(503, "server_error", "server_busy"),
    QueueTimeout: ErrorRow(503, "server_error", "queue_timeout"),
    TooManyAttempts: ErrorRow(429, "rate_limit_error", "too_many_attempts"),
    Draining: ErrorRow(503, "server_error", "server_shutting_down"),
    InsufficientMemory: ErrorRow(503, "server_error", "insufficient_memory"),
    LoadFailed: ErrorRow(422, "model_loading_error", "model_loading_failed"),
    EngineDied: ErrorRow(503, "server_error", "engine_died"),
    GenerationFailed: ErrorRow(500, "server_error", "generation_failed"),
    InternalError: ErrorRow(500, "server_error", "internal_error"),
}

_BY_NAME: dict[str, type[KolosalError]] = {
    cls.__name__: cls
    for cls in (
        InvalidRequest,
        ContextLengthExceeded,
        GenerationFailed,
        InsufficientMemory,
        UnsupportedFeature,
    )
}


def error_row(error: KolosalError) -> ErrorRow:
    """The row of an error, with the instance's own code where it has one."""
    row = ERROR_TABLE[type(error)]
    return row if error.code is None else row._replace(openai_code=error.code)


def error_named(name: str, message: str, *, param: str | None = None) -> KolosalError:
    """The error a worker reports for one request by its class name; an unknown name becomes `GenerationFailed`."""
    return _BY_NAME.get(name, GenerationFailed)(message, param=param)
