"""A draft model: a small model of the same vocabulary that drafts for a large one.

Owns its weights, its context and the sequence ids in it. A draft is greedy. What it cannot do costs a draft and nothing
else: where its own KV cache is full, it has no idea.
"""

from __future__ import annotations

import time

from kolosal.engines.worker.llamacpp.batch import LlamaBatch
from kolosal.engines.worker.llamacpp.load import LoadedModel
from kolosal.engines.worker.llamacpp.logits import StepLogits
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.schedule.prefix_cache import common_prefix

_WEIGHT = 0.2
"""Of the newest measurement in the moving average of what a draft token costs."""


class DraftModel:
    """The draft model of an engine. Used on the engine thread."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._memory = native.llama_get_memory(loaded.context)
        self._batch = LlamaBatch(loaded.info.n_batch)
        self._logits = StepLogits(loaded.context, loaded.info.n_vocab)
        self._free_slots = list(range(loaded.n_slots))
        self.seconds_per_token = 0.0
        """What one draft token costs; learned."""

    def take_slot(self) -> int | None:
        """A sequence id with no cells, if there is one left."""
        return self._free_slots.pop() if self._free_slots else None

    def give_back(self, slot: int) -> None:
        """Free a sequence id and its cells."""
        native.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._free_slots.append(slot)

    def cut(self, slot: int, n_cells: int) -> bool:
        """Keep the first cells of a sequence id only; False where that is not possible."""
        return bool(native.llama_memory_seq_rm(self._memory, slot, n_cells, -1))

    def most_probable(self, slot: int, tokens: list[int], start: int) -> int | None:
        """Compute tokens from position `start` on; the most probable next one, None where there is no room."""
        n_batch = self._loaded.info.n_batch
        for at in range(0, len(tokens), n_batch):
            piece = tokens[at : at + n_batch]
            self._batch.clear()
            self._batch.add(slot, start + at, piece, 1)
            if native.llama_decode(self._loaded.context, self._batch.struct) != 0:
                return None
        self._logits.begin(1, all_greedy=True)
        return self._logits.most_probable(0)

    def try_out(self, token: int) -> None:
        """Compute a token: what would end the process ends the load."""
        if (slot := self.take_slot()) is not None:
            self.most_probable(slot, [token], 0)
            self.give_back(slot)

    def note_cost(self, seconds: float) -> None:
        """Learn what a draft token costs."""
        self.seconds_per_token += _WEIGHT * (seconds - self.seconds_per_token)

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._loaded.close()


class DraftSequence:
    """One sequence in the draft model. Made on any thread; takes a sequence id with its first draft. See `DraftSource`."""

    def __init__(self, model: DraftModel) -> None:
        self._model = model
        self._tokens: list[int] = []
        self._computed: list[int] = []  # whose cells the draft model has, draft tokens included
        self._slot: int | None = None
        self._closed = False

    @property
    def seconds_per_token(self) -> float:
        return self._model.seconds_per_token

    def extend(self, tokens: list[int]) -> None:
        self._tokens += tokens

    def match_length(self) -> int:
        return 0

    def draft(self, limit: int) -> list[int]:
        if self._slot is None and not self._closed:
            self._slot = self._model.take_slot()
        if self._slot is None or not self._catch_up(self._slot):
            return []
        draft: list[int] = []
        pending = self._tokens[len(self._computed) :]
        while len(draft) < limit:
            started = time.perf_counter()
            token = self._model.most_probable(self._slot, pending, len(self._computed))
            if token is None:
                self.close()
                break
            if draft:  # the first also computes what the sequence said meanwhile
                self._model.note_cost(time.perf_counter() - started)
            self._computed += pending
            draft.append(token)
            pending = [token]
        return draft

    def _catch_up(self, slot: int) -> bool:
        """Cut off draft tokens that were rejected. At least one token is left to compute."""
        keep = common_prefix(self._computed, self._tokens, len(self._tokens) - 1)
        if keep < len(self._computed) and not self._model.cut(slot, keep):
            self.close()
            return False
        del self._computed[keep:]
        return True

    def close(self) -> None:
        self._closed = True
        if self._slot is not None:
            self._model.give_back(self._slot)
            self._slot = None
