"""Backend: what the engine loop needs of llama.cpp, and nothing more.

`LlamaCppBackend` is the real one; tests have one without a model (`tests/fake_worker`). Native pointers stay behind this
protocol.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from kolosal.engines.ipc.messages import EngineInfo
from kolosal.sampling import SamplingParams

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from kolosal.engines.worker.constraint import Constraint
    from kolosal.engines.worker.schedule.plan import Chunk
    from kolosal.engines.worker.schedule.speculative import DraftSource


class BackendError(Exception):
    """llama.cpp could not do what it was asked. The message names the call and its result."""


class KVCacheFull(BackendError):
    """`llama_decode` returned 1: no cells for this batch. Nothing was computed; a smaller batch may fit."""


class DecodeFailed(BackendError):
    """`llama_decode` failed. The sequences of the batch are lost, the others are not."""


class PrefillFailed(BackendError):
    """A chunk cannot be computed in the prefill context, or there is no room for its cells. Nothing changed."""


class RestoreFailed(BackendError):
    """A saved state has no room, or is of another model or of other parameters. The sequence id has no cells."""


LEAST_LOGPROB = -9999.0
"""Stands for the log-probability of what is impossible: JSON has no infinities. The number is the OpenAI API's."""


class OutOfMemory(BackendError):
    """There is no memory for what was asked; the engine lives. The message says how much would be needed."""


class Reuse(Enum):
    """Which cells of other sequences a new one can use: `EngineInfo.prompt_cache`."""

    PREFIX = "prefix"
    """Any prefix of any sequence can be shared: plain attention."""
    WHOLE = "whole"
    """A finished sequence can only be continued where it ended, or at a checkpoint: recurrent states cannot be cut, nor sliding
    windows that drop cells."""
    NONE = "none"
    """Turned off."""


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """What the chat template needs from the model."""

    text: str | None
    """The Jinja source of the model file; None when it has none."""
    bos: str
    eos: str


@dataclass(frozen=True, slots=True)
class FimTokens:
    """The tokens of a model that can fill in the middle; None for those it does not have."""

    prefix: int | None = None
    suffix: int | None = None
    middle: int | None = None
    repository: int | None = None
    file: int | None = None
    """Stands before each file of a repository."""


class RowLogprobs(Protocol):
    """How probable the model held each token after a row of the last batch, before any sampler changed that."""

    @property
    def top(self) -> tuple[tuple[int, float], ...]:
        """The most probable tokens with their log-probabilities, as many as were asked for, the most probable first."""

    def of(self, token: int) -> float:
        """The log-probability of a token, at least `LEAST_LOGPROB`."""


class Sampler(Protocol):
    """The state of one sequence's sampling: chain, penalties, random numbers."""

    def accept(self, token: int) -> None:
        """Note a token that was not sampled, so that penalties count it."""

    def close(self) -> None:
        """Free it. Idempotent."""


class Embedder(Protocol):
    """A context of its own on the weights of a backend. Used by one thread, which may be another than the engine's."""

    max_tokens: int
    """Tokens of one input at most."""
    batch_tokens: int
    """Tokens of several inputs that are best computed at once."""
    batch_inputs: int
    """Inputs that can be computed at once."""

    def pool(self, inputs: Seq[Seq[int]]) -> list[array[float]]:
        """A vector for each input, as the model makes it; of a ranking model its score, alone.

        Raises:
            OutOfMemory: there is no room for inputs of this size.
            BackendError: they could not be computed.
        """

    def close(self) -> None:
        """Free it, before the backend. Idempotent."""


class Backend(Protocol):
    """One model and one context.

    `tokenize`, `token_bytes`, `written`, `is_end` and `new_sampler` only read the vocabulary and may be called from any
    thread; the rest belongs to the engine thread.
    """

    info: EngineInfo
    template: TemplateSource
    can_trim: bool
    """Whether the last cells of a sequence can be cut off."""
    fim: FimTokens
    rank_template: str | None
    """How a ranking model wants to see `{query}` and `{document}`; None where its file does not say."""
    n_slots: int
    """Sequence ids: more than run at once, so that finished sequences can keep theirs."""
    prefill_cells: int
    """Tokens of one sequence that the prefill context can hold; 0 where there is none."""
    cell_s: float
    """Seconds that a cell adds to a step of a few streams that do not see it; 0 where that is not known."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The tokens of a text.

        `add_special` adds the tokens the model wants at the start; `parse_special` reads control tokens written in the
        text as such, instead of as plain characters.
        """

    def control_tokens(self) -> frozenset[int]:
        """Tokens that no text is read as: they say where turns begin and end. Slow, and called once."""

    def control_texts(self) -> frozenset[str]:
        """How the model's control tokens are written, e.g. `<|im_end|>`."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token adds to the text; empty for control tokens."""

    def written(self, token: int) -> bytes:
        """The bytes of a token as people write it: those it adds to the text, or the spelling of a control token."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""

    def new_sampler(self, params: SamplingParams, prompt: Seq[int]) -> Sampler:
        """The sampling state of a new sequence.

        Raises:
            BackendError: it could not be made.
        """

    def new_draft(self) -> DraftSource | None:
        """A draft model's source for a new sequence; None where no draft model is loaded. Engine thread only to use."""

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        """The tokens of a query and a document as ranking models without a template want to see them."""

    def open_embedder(self) -> Embedder:
        """A second context, for vectors. Belongs to the thread that opens it.

        Raises:
            BackendError: it could not be made.
        """

    def constraint_tokenizer(self) -> LLTokenizer:
        """The vocabulary as llguidance wants it. Slow, and called once."""

    def decode(self, chunks: Seq[Chunk]) -> None:
        """Compute the cells of all chunks in one batch.

        Raises:
            KVCacheFull: there are no cells; nothing changed.
            DecodeFailed: the state of these sequences is undefined until they are released.
        """

    def prefill(self, chunk: Chunk, between_layers: Callable[[], bool]) -> bool:
        """Compute the cells of a chunk in a context of its own, on the same weights, and put them where `decode` would have.

        `between_layers` is called between two layers and may use all of this backend but this; when it returns False the
        chunk is given up, and nothing has changed. Returns whether it was computed. No row of it can be sampled from.

        Raises:
            PrefillFailed: only a step can do it. Whatever `between_layers` raises is raised, too.
        """

    def close_prefill_context(self) -> None:
        """Free what `prefill` has taken, until it is called again. Idempotent."""

    def sample(self, sampler: Sampler, output: int, constraint: Constraint | None) -> int:
        """The next token after the `output`-th row the last `decode` was asked for, counted over all its chunks.

        With a constraint only tokens it allows are chosen from.
        """

    def row_logprobs(self, output: int, n_top: int) -> RowLogprobs:
        """The log-probabilities after the `output`-th row, with the `n_top` highest. Before that row is sampled."""

    def release(self, slot: int) -> None:
        """Forget all cells of a sequence id; those no other id sees are free."""

    def copy(self, source: int, slot: int, n_cells: int) -> None:
        """Let `slot`, which is empty, see the first `n_cells` cells of `source` too."""

    def trim(self, slot: int, n_cells: int) -> None:
        """Forget all cells of a sequence id but the first `n_cells`."""

    def cells(self, slot: int) -> int:
        """How many tokens the cache really holds for a sequence id."""

    def save(self, slot: int) -> memoryview:
        """A copy of all cells of a sequence id, recurrent states included, for `restore`.

        Raises:
            BackendError: it could not be made.
        """

    def state_key(self) -> bytes:
        """What a state depends on: equal where `restore` may be given what `save` gave in another process. Blocks.

        Raises:
            OSError: the model cannot be read.
        """

    def restore(self, slot: int, state: memoryview) -> None:
        """Give `slot`, which is empty, cells of its own as they were when `save` copied them.

        Only what `save` gave in a context of the same model and parameters may be handed in: a state is trusted.

        Raises:
            RestoreFailed: there is no room for them, or they are of another context.
        """

    def close(self) -> None:
        """Free everything. Idempotent."""
