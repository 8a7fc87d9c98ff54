"""Backend: what the engine loop needs of llama.cpp, and nothing more.

`LlamaCppBackend` is the real one, `FakeBackend` a deterministic one with scripted faults. Native pointers stay behind
this protocol.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from kolosal.engines.messages import EngineInfo
from kolosal.schema import SamplingParams

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from kolosal.engines.worker.constraint import Constraint
    from kolosal.engines.worker.scheduler import Chunk
    from kolosal.engines.worker.speculative import GuessSource


class BackendError(Exception):
    """llama.cpp could not do what it was asked. The message names the call and its result."""


class KVCacheFull(BackendError):
    """`llama_decode` returned 1: no cells for this batch. Nothing was computed; a smaller batch may fit."""


class DecodeFailed(BackendError):
    """`llama_decode` failed. The sequences of the batch are lost, the others are not."""


class Reuse(Enum):
    """What a model's memory allows."""

    PREFIX = "prefix"
    """Any prefix of any sequence can be shared: plain attention."""
    WHOLE = "whole"
    """A finished sequence can only be continued where it ended: sliding windows and recurrent states cannot be cut."""
    NONE = "none"
    """Turned off."""


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """What the chat template needs from the model."""

    text: str | None
    """The Jinja source of the model file; None when it has none."""
    bos: str
    eos: str


class Sampler(Protocol):
    """The state of one sequence's sampling: chain, penalties, random numbers."""

    def accept(self, token: int) -> None:
        """Note a token that was not sampled, so that penalties count it."""

    def close(self) -> None:
        """Free it. Idempotent."""


class Backend(Protocol):
    """One model and one context.

    `tokenize`, `token_bytes`, `is_end` and `new_sampler` only read the vocabulary and may be called from any thread;
    the rest belongs to the engine thread.
    """

    info: EngineInfo
    template: TemplateSource
    reuse: Reuse
    """Which cells of other sequences a new one can use."""
    can_trim: bool
    """Whether the last cells of a sequence can be cut off."""
    n_slots: int
    """Sequence ids: more than run at once, so that finished sequences can keep theirs."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The tokens of a text.

        `add_special` adds the tokens the model wants at the start; `parse_special` reads control tokens written in the
        text as such, instead of as plain characters.
        """

    def control_texts(self) -> frozenset[str]:
        """How the model's control tokens are written, e.g. `<|im_end|>`."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token adds to the text; empty for control tokens."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""

    def new_sampler(self, params: SamplingParams, prompt: Seq[int]) -> Sampler:
        """The sampling state of a new sequence.

        Raises:
            BackendError: it could not be made.
        """

    def new_draft(self) -> GuessSource | None:
        """A draft model's guesses for a new sequence; None where no draft model is loaded. Engine thread only to use."""

    def constraint_tokenizer(self) -> LLTokenizer:
        """The vocabulary as llguidance wants it. Slow, and called once."""

    def decode(self, chunks: Seq[Chunk]) -> None:
        """Compute the cells of all chunks in one batch.

        Raises:
            KVCacheFull: there are no cells; nothing changed.
            DecodeFailed: the state of these sequences is undefined until they are released.
        """

    def sample(self, sampler: Sampler, output: int, constraint: Constraint | None) -> int:
        """The next token after the `output`-th row the last `decode` was asked for, counted over all its chunks.

        With a constraint only tokens it allows are chosen from.
        """

    def release(self, slot: int) -> None:
        """Forget all cells of a sequence id; those no other id sees are free."""

    def copy(self, source: int, slot: int, n_cells: int) -> None:
        """Let `slot`, which is empty, see the first `n_cells` cells of `source` too."""

    def trim(self, slot: int, n_cells: int) -> None:
        """Forget all cells of a sequence id but the first `n_cells`."""

    def cells(self, slot: int) -> int:
        """How many tokens the cache really holds for a sequence id."""

    def close(self) -> None:
        """Free everything. Idempotent."""
