"""BackendInterfaceBase: what a backend must be able to do, and what it may be able to do besides.

A backend runs in a worker process of its own and nowhere else, on that process's event loop. What it cannot do is refused for it, by
name, before it is asked; `max_tokens`, stop strings, the context window and aborts are seen to for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from kolosal.backends.thread_context import ThreadContext
from kolosal.engines.parameters import EngineConfig
from kolosal.errors import UnsupportedFeature
from kolosal.schema import Usage

Messages: TypeAlias = list[dict[str, Any]] | str
"""The turns of a conversation, as its `ThreadContext` gives them; or text that is to be continued as it is."""


class Piece(str):
    """A piece of an answer, with the tokens that it was made of. Text alone counts as one token."""

    __slots__ = ("cached_tokens", "tokens")

    def __new__(cls, text: str, tokens: Sequence[int] = (), *, cached_tokens: int = 0) -> Piece:
        self = super().__new__(cls, text)
        self.tokens = tuple(tokens)
        self.cached_tokens = cached_tokens
        return self

    tokens: tuple[int, ...]
    """May be empty, where text belongs to no token; may be several."""
    cached_tokens: int
    """Tokens of the prompt that were found computed; said once, with the first piece."""


class Finish(str):
    """The last item of an answer: empty, and says how it ended."""

    __slots__ = ("finish_reason", "usage")

    def __new__(cls, finish_reason: Literal["stop", "length"] = "stop", usage: Usage | None = None) -> Finish:
        self = super().__new__(cls, "")
        self.finish_reason = finish_reason
        self.usage = usage
        return self

    finish_reason: Literal["stop", "length"]
    usage: Usage | None
    """None: the tokens are counted as they came."""


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What a backend says of its model once it is loaded."""

    description: str = ""
    architecture: str = ""
    n_params: int = 0
    size_bytes: int = 0
    n_vocab: int = 0
    n_ctx_train: int = 0
    """Tokens the model was trained for; 0 where that is not known."""
    chat_template: str = ""
    """Tells how the model writes tool calls and thoughts."""


class BackendInterfaceBase(ABC):
    """One engine's model. Made, loaded, used and closed in its worker process, on one thread: what blocks that thread for longer than
    `engines.step_timeout_s` ends the process."""

    thread_context: ClassVar[type[ThreadContext]] = ThreadContext
    """The class of conversations that this backend is paired with."""

    supports: ClassVar[frozenset[str]] = frozenset()
    """What it can do besides answering a conversation with `temperature`, `top_p`, `top_k`, `min_p` and `seed`: further fields of
    `SamplingParams` (each is then an argument of `inference`), and words of `kolosal.backends.arguments.FEATURES`."""

    can_resume: ClassVar[bool] = False
    """Whether `inference` gives the same items for the same request again, in another process. If so, an answer whose process died
    is begun again, what was sent of it is left out, and `generated` has the tokens of that."""

    def __init__(self, args: EngineConfig) -> None:
        self.args = args
        """Name, model path, loading parameters and `backend_options` of the engine."""

    def load(self, on_progress: Callable[[float], None]) -> BackendFacts:  # noqa: ARG002
        """Load the model; may block. `on_progress` is told how much is there, from 0 to 1, and puts off the deadline.

        Raises:
            MemoryError: memory is short: idle engines are unloaded, and it is tried once more.
            Exception: any other fails the load, with its words.
        """
        return BackendFacts()

    @abstractmethod
    def inference(self, messages: Messages, **kwargs: Any) -> AsyncGenerator[str, None]:
        """The answer, a piece at a time, and a `Finish` at the end: an asynchronous generator. Several run at once, `n_parallel` at most.

        The arguments: `temperature`, `top_p`, `top_k`, `min_p`, `seed` (None: any), `max_tokens` (how many fit), `stop` (a tuple),
        `request_id` (the thread's id, for what is kept between its runs; else unique), `generated` (see `can_resume`), and what
        `supports` has. A request that is aborted ends it where it waits, as a task that is cancelled.
        """

    @abstractmethod
    def count_tokens(self, messages: Messages, **kwargs: Any) -> int:
        """Tokens of a prompt, as the model sees it. The arguments are those of `inference` that the request gives."""

    def close(self) -> None:  # noqa: B027 - not every backend has something to free
        """Free what was loaded. Nothing runs any more."""

    # --- what it may have besides: its vocabulary ---

    def render(self, messages: Messages, **kwargs: Any) -> str:  # noqa: ARG002
        """A prompt as the text that the model sees, for clients that ask for it; turn after turn, where a backend does not say."""
        if isinstance(messages, str):
            return messages
        return "".join(f"{turn['role']}: {turn['content']}\n" for turn in messages)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> Sequence[int]:  # noqa: ARG002
        """The tokens of a text: with those that the model wants at the start; with control tokens that are spelled in it read as such."""
        raise self._lacks("tells no tokens")

    def token_bytes(self, token: int) -> bytes:  # noqa: ARG002
        """What a token adds to a text; of a control token, how it is written."""
        raise self._lacks("tells no tokens")

    def _lacks(self, what: str) -> UnsupportedFeature:
        return UnsupportedFeature(f"The backend '{self.args.backend}' {what}")
