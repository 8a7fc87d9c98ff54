"""Every error a client can be told, and the one table that says how each protocol words it.

    KolosalError
    ├─ ClientError      InvalidRequest · ContextLengthExceeded · AuthenticationFailed · KeyMissing · Forbidden
    │                   · NotFound · EngineNotFound · Conflict · MethodNotAllowed · PayloadTooLarge
    │                   · HeadersTooLarge · HttpVersionNotSupported · UnsupportedMediaType · UnsupportedFeature · ModelFileError
    ├─ Overloaded       QueueFull · QuotaExceeded · TooManyAttempts · ServerBusy · QueueTimeout · Draining
    │                   · InsufficientMemory · StoreUnavailable
    │                   (each carries retry_after_s)
    ├─ EngineError      LoadFailed · EngineDied · GenerationFailed
    ├─ StorageFull · DownloadFailed
    └─ InternalError    fixed text; the detail goes to the log under the request id

`ERROR_TABLE` maps class → HTTP status and OpenAI type and code. An instance may name a more precise `code`. Knows no
HTTP library: routes turn a row into a response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from typing_extensions import TypedDict


class ErrorFacts(TypedDict, total=False):
    """Numbers that programs go by, which every dialect says beside the message."""

    code: str | None
    n_prompt_tokens: int
    """Tokens of the prompt; where it was refused before it was tokenised, as many as it has at least."""
    n_ctx: int
    """Tokens that there is room for, the answer's included."""


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

    @property
    def facts(self) -> ErrorFacts:
        """What is said beside the message in every dialect."""
        return {}


class ClientError(KolosalError):
    """The request cannot be served as it is; sending it again will not help."""


class InvalidRequest(ClientError):
    """A field is missing, mistyped or out of range, or the body is not what its content type says."""


class ContextLengthExceeded(ClientError):
    """The prompt leaves no room for an answer in the context window."""

    n_prompt_tokens = n_ctx = 0
    """Both are 0 where only a daemon's words are known."""

    def __init__(
        self, message: str, *, param: str | None = None, n_prompt_tokens: int = 0, n_ctx: int = 0
    ) -> None:
        super().__init__(message, param=param)
        self.n_prompt_tokens = n_prompt_tokens
        self.n_ctx = n_ctx

    @classmethod
    def of(
        cls, n_prompt_tokens: int, n_ctx: int, *, where: str = "", note: str = "", param: str | None = None
    ) -> ContextLengthExceeded:
        """The error in the words by which clients of Anthropic and of OpenAI know that they should shorten the prompt.

        `where` is the field at fault where it is not the whole prompt; `note` goes with the number of tokens.
        """
        message = (
            f"prompt is too long: {note}{n_prompt_tokens} tokens > {n_ctx} maximum{where and f' in {where}'};"
            f" the maximum context length is {n_ctx} tokens, which must hold the answer too"
        )
        return cls(message, param=param, n_prompt_tokens=n_prompt_tokens, n_ctx=n_ctx)

    @property
    def facts(self) -> ErrorFacts:
        if not self.n_ctx:
            return {}
        return {
            "code": "context_length_exceeded",
            "n_prompt_tokens": self.n_prompt_tokens,
            "n_ctx": self.n_ctx,
        }


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


class HttpVersionNotSupported(ClientError):
    """The request line asks for a version of HTTP that is not spoken here."""


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


class QuotaExceeded(Overloaded):
    """This API key has used as many requests or tokens as it may within a minute or a day."""


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


class StoreUnavailable(Overloaded):
    """The database of what is kept cannot be used now. Engines answer all the same."""


class StorageFull(KolosalError):
    """There is no room on the disk for what is to be kept."""


class EngineError(KolosalError):
    """The engine, not the request, is at fault."""


class LoadFailed(EngineError):
    """The worker could not load the model. The message quotes llama.cpp's reason."""

    worker_started = False
    """Whether a process was started in vain, which an engine does not do without end."""
    lacked_memory = False
    """Whether it failed because memory was short: then it may succeed where other engines go."""


class EngineDied(EngineError):
    """The worker process ended while the request was in flight, or ends too often to be started. Only its own requests are
    affected."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GenerationFailed(EngineError):
    """llama.cpp could not go on with this one request; the engine lives."""


class DownloadFailed(KolosalError):
    """Another machine does not answer, or gives what it should not: a model cannot be fetched from it."""

    passes = False
    """Whether the same may succeed in a moment: a connection broke, or the other side is busy."""

    @classmethod
    def for_now(cls, message: str, retry_after_s: int | None = None) -> DownloadFailed:
        """One that passes."""
        error = cls(message)
        error.passes, error.retry_after_s = True, retry_after_s
        return error


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
    HttpVersionNotSupported: ErrorRow(505, "invalid_request_error", "http_version_not_supported"),
    UnsupportedMediaType: ErrorRow(415, "invalid_request_error", "unsupported_media_type"),
    UnsupportedFeature: ErrorRow(400, "invalid_request_error", "unsupported_feature"),
    ModelFileError: ErrorRow(400, "invalid_request_error", None),
    QueueFull: ErrorRow(429, "rate_limit_error", "queue_full"),
    QuotaExceeded: ErrorRow(429, "rate_limit_error", "rate_limit_exceeded"),
    ServerBusy: ErrorRow(503, "server_error", "server_busy"),
    QueueTimeout: ErrorRow(503, "server_error", "queue_timeout"),
    TooManyAttempts: ErrorRow(429, "rate_limit_error", "too_many_attempts"),
    Draining: ErrorRow(503, "server_error", "server_shutting_down"),
    InsufficientMemory: ErrorRow(503, "server_error", "insufficient_memory"),
    StoreUnavailable: ErrorRow(503, "server_error", "store_unavailable"),
    StorageFull: ErrorRow(507, "server_error", "insufficient_storage"),
    LoadFailed: ErrorRow(422, "model_loading_error", "model_loading_failed"),
    EngineDied: ErrorRow(503, "server_error", "engine_died"),
    GenerationFailed: ErrorRow(500, "server_error", "generation_failed"),
    DownloadFailed: ErrorRow(502, "server_error", "download_failed"),
    InternalError: ErrorRow(500, "server_error", "internal_error"),
}

_BY_NAME: dict[str, type[KolosalError]] = {
    cls.__name__: cls
    for cls in (
        InvalidRequest,
        GenerationFailed,
        InsufficientMemory,
        UnsupportedFeature,
    )
}


def error_row(error: KolosalError) -> ErrorRow:
    """The row of an error, with the instance's own code where it has one."""
    row = ERROR_TABLE[type(error)]
    return row if error.code is None else row._replace(openai_code=error.code)


def error_named(
    name: str, message: str, *, param: str | None = None, n_prompt_tokens: int = 0, n_ctx: int = 0
) -> KolosalError:
    """The error a worker reports for one request by its class name; an unknown name becomes `GenerationFailed`."""
    if name == ContextLengthExceeded.__name__:
        return ContextLengthExceeded(message, param=param, n_prompt_tokens=n_prompt_tokens, n_ctx=n_ctx)
    if name == EngineDied.__name__:  # a worker before this one
        return EngineDied(message)
    return _BY_NAME.get(name, GenerationFailed)(message, param=param)
