"""The frames between the daemon and a worker process, both ways.

A frame is one line of JSON, so a worker can be driven and read by hand:
`printf '{"tag":"hello",…}\\n' | python -m kolosal.engines.worker`. Both ends decode into the frozen types below and
nothing else; an unknown tag, a wrong type or an oversized line is a `FrameError`, which ends the worker and never the
daemon. No pickle anywhere: the worker parses hostile files, so its bytes are hostile too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias, TypeVar

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from kolosal.chat.formats import ToolFormat
from kolosal.engines.ipc.calls import Call, CallResult
from kolosal.engines.parameters import FittedConfig
from kolosal.sampling import MAX_TOKENS_LIMIT
from kolosal.schema import GenerateRequest, TokenDelta

PROTOCOL_VERSION = 10
"""Raised when a frame changes; a worker of another version refuses the handshake."""

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Longest line either end accepts."""


_MAX_REASON_CHARS = 300
"""A bad frame is quoted in its error, which may be shown to a client: not the whole of it."""


class FrameError(Exception):
    """The other end sent something that is no frame of this protocol."""


# --- daemon → worker ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SavedFolder:
    """Where workers keep conversations as files."""

    path: str
    max_bytes: Annotated[int, Field(ge=1)]
    """Of all files of all engines."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame: what to load."""

    config: FittedConfig
    saved_folder: SavedFolder | None = None
    """None: conversations end with the worker."""
    protocol: int = PROTOCOL_VERSION
    tag: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Submit:
    """Start one generation, or go on with one that a worker before this one began.

    `request_id` is unique for the life of the worker.
    """

    request_id: int
    request: GenerateRequest
    generated: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MAX_TOKENS_LIMIT)] = ()
    """The tokens of the answer that were sent before: they count, and none of them is sent again."""
    n_logged: Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)] = 0
    """Tokens of the prompt whose log-probabilities were sent before."""
    tag: Literal["submit"] = "submit"


@dataclass(frozen=True, slots=True)
class UnaryCall:
    """Call something that is no generation; ends with one `UnaryResult` or `Failed`. Ids are of the same series as for `Submit`."""

    request_id: int
    call: Annotated[Call, Field(discriminator="kind")]
    tag: Literal["call"] = "call"


@dataclass(frozen=True, slots=True)
class Abort:
    """Free this generation at the next step, or drop this call. Idempotent; an unknown id is ignored, as it may just have finished."""

    request_id: int
    tag: Literal["abort"] = "abort"


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a `Pong` of the same number, from the engine's own thread."""

    number: int
    tag: Literal["ping"] = "ping"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Free everything and exit with status 0."""

    tag: Literal["shutdown"] = "shutdown"


# --- worker → daemon ---------------------------------------------------------------------------------------------


Pooling: TypeAlias = Literal["mean", "cls", "last", "rank"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the worker really got, which may be less than was asked for.

    `GET /engines/{id}` answers it as `info`, so the names of these fields are the API's.
    """

    description: str
    """llama.cpp's own words, e.g. `llama 135M Q4_1`."""
    architecture: str
    n_params: int
    size_bytes: int
    """Bytes of all tensors."""
    n_vocab: int
    n_ctx_train: int
    """Tokens the model was trained for."""
    n_ctx: int
    kv_pool_tokens: int
    n_parallel: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    n_threads_batch: int
    n_gpu_layers: int
    """Layers that are in GPU memory; 0 where llama.cpp was built without a GPU."""
    flash_attn: str
    chat_template: Literal["model", "configured", "chatml"]
    """Where the chat template comes from; `chatml` is the fallback for a model without one."""
    prompt_cache: Literal["prefix", "whole", "none"]
    """What of the KV cache new requests can use: any common prefix, only a whole finished conversation, or nothing."""
    tool_format: ToolFormat = ToolFormat.GENERIC
    """How the model writes tool calls."""
    thinking_tags: tuple[str, str] | None = None
    """What the model writes around its thoughts; None where it has none."""
    can_generate: bool = True
    """Whether the model continues text; one that cannot makes embeddings or ranks."""
    n_embd: int = 0
    """Numbers of one embedding."""
    pooling: Pooling = "mean"
    """How embeddings are made of a text's tokens; `rank`: the model scores how well a document answers a query."""
    sampling: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]],
        Field(max_length=64),
    ] = field(default_factory=dict)
    """What the model's file says of how its tokens are best chosen: its keys `general.sampling.*`, by their ends."""
    unused_bytes: int = 0
    """Host memory that is the worker's, the KV cache mostly, but that the system has back until it is written to."""
    repacked_bytes: int = 0
    """Of weights that are mapped from the file: how many llama.cpp copied in a layout for this processor. The file's are then
    read no more."""

    @property
    def warnings(self) -> list[str]:
        """What the owner of an engine should know of it, a sentence each."""
        if not self.n_ctx_train or self.n_ctx <= self.n_ctx_train:
            return []
        return [
            f"n_ctx is {self.n_ctx}, but the model was trained for {self.n_ctx_train} tokens: what it writes beyond them may make no sense"
        ]


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    info: EngineInfo
    tag: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Progress:
    """Loading goes on. `fraction` is 0…1."""

    fraction: Annotated[float, Field(allow_inf_nan=False)]
    tag: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """What one step added to one generation."""

    request_id: int
    delta: TokenDelta


@dataclass(frozen=True, slots=True)
class SavedCounts:
    """What conversations that were saved have come to since the worker was started."""

    host_bytes: Annotated[int, Field(ge=0)] = 0
    """Host memory in use for them now."""
    disk_bytes: Annotated[int, Field(ge=0)] = 0
    """Files of conversations with this model."""
    restores: Annotated[int, Field(ge=0)] = 0
    tokens: Annotated[int, Field(ge=0)] = 0
    """Cells that were restored, and so not computed again."""
    seconds: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """What computing them would have taken longer, by what steps of prompts take."""

    def __add__(self, other: SavedCounts) -> SavedCounts:
        return SavedCounts(
            self.host_bytes + other.host_bytes,
            self.disk_bytes + other.disk_bytes,
            self.restores + other.restores,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """One frame per engine step, for all generations that got something."""

    outputs: tuple[SequenceOutput, ...]
    kv_cells: int | None = None
    """Cells of the KV cache in use; None: not said this time."""
    saved: SavedCounts | None = None
    """None: as it was."""
    tag: Literal["step"] = "step"


@dataclass(frozen=True, slots=True)
class UnaryResult:
    """What a `UnaryCall` returned."""

    request_id: int
    result: Annotated[CallResult, Field(discriminator="kind")]
    tag: Literal["result"] = "result"


@dataclass(frozen=True, slots=True)
class Compiling:
    """The grammar of this generation is compiled from now on, or is not any more."""

    request_id: int
    begins: bool
    tag: Literal["compiling"] = "compiling"


@dataclass(frozen=True, slots=True)
class Pong:
    """The engine has come round to its next step since it was asked."""

    number: int
    tag: Literal["pong"] = "pong"


@dataclass(frozen=True, slots=True)
class Failed:
    """This one generation or call ended with an error; the engine lives."""

    request_id: int
    error: str
    """Name of a class of `kolosal.errors`."""
    message: str
    param: str | None = None
    n_prompt_tokens: int = 0
    """Of a prompt that is too long."""
    n_ctx: int = 0
    """What it had to fit into."""
    tag: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Fatal:
    """The last frame of a worker that cannot go on."""

    message: str
    lacked_memory: bool = False
    """Whether memory was short."""
    tag: Literal["fatal"] = "fatal"


ToWorker: TypeAlias = Hello | Submit | UnaryCall | Abort | Ping | Shutdown
FromWorker: TypeAlias = Ready | Progress | StepOutputs | UnaryResult | Compiling | Pong | Failed | Fatal

T = TypeVar("T")

_to_worker: TypeAdapter[ToWorker] = TypeAdapter(
    Annotated[ToWorker, Field(discriminator="tag")], config=ConfigDict(defer_build=True)
)
_from_worker: TypeAdapter[FromWorker] = TypeAdapter(
    Annotated[FromWorker, Field(discriminator="tag")], config=ConfigDict(defer_build=True)
)


def encode(frame: ToWorker | FromWorker) -> bytes:
    """A frame as one line, with its newline."""
    return orjson.dumps(frame, option=orjson.OPT_APPEND_NEWLINE)


def decode_to_worker(line: bytes) -> ToWorker:
    """The frame in a line the daemon wrote.

    Raises:
        FrameError: the line is no such frame.
    """
    return _decode(_to_worker, line)


def decode_from_worker(line: bytes) -> FromWorker:
    """The frame in a line the worker wrote.

    Raises:
        FrameError: the line is no such frame.
    """
    return _decode(_from_worker, line)


def _decode(adapter: TypeAdapter[T], line: bytes) -> T:
    if len(line) > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {len(line)} bytes, at most {MAX_FRAME_BYTES} are allowed")
    try:
        return adapter.validate_json(line, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "frame"
        raise FrameError(f"{where}: {first['msg'][:_MAX_REASON_CHARS]}") from exc
