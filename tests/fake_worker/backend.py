"""FakeBackend: a deterministic backend with scripted faults, for tests of everything above it.

Real code with the real contract, but no model: tokens are bytes, and the next token is computed only from what the
fake KV cells of the sequence hold. So a mixed-up cell shows as a wrong answer:

 * a prompt that contains `<say>TEXT</say>` is answered with TEXT,
 * any other prompt is answered by counting on from the last number in it: `… 7:` gives `8 9 10 …`.

Faults are words of `--fault`, see `Faults`.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kolosal.chat.formats import detect_thinking_tags, detect_tool_format
from kolosal.engines.ipc.messages import EngineInfo, Pooling
from kolosal.engines.parameters import FittedConfig
from kolosal.engines.worker.backend import (
    BackendError,
    DecodeFailed,
    FimTokens,
    KVCacheFull,
    OutOfMemory,
    PrefillFailed,
    RestoreFailed,
    Reuse,
    TemplateSource,
)
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.sampling import SamplingParams

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from kolosal.engines.worker.constraint import Constraint

N_VOCAB = 262
"""The 256 bytes and six control tokens: llguidance's byte tokenizer."""

BOS, END = 256, 261

N_LAYERS = 3
"""How often `prefill` lets others work."""

FIM = (257, 258, 259)
"""Before the prefix, before the suffix, before the middle."""

_CONTROLS = {"<s>": BOS, "<end>": END}
_SAY = re.compile(r"<say>(.*?)</say>", re.DOTALL)


@dataclass(slots=True)
class Faults:
    """What goes wrong, and when. Steps are counted from 1.

    `load_error` · `load_hang` · `load_crash` · `step_s=0.01` (time per step) · `decode@5=1` (llama_decode returns 1 at
    step 5) · `crash@5` (SIGKILL-like exit at step 5) · `hang@5` · `garbage@5` (a line that is no frame) ·
    `stderr=TEXT` (written at load) · `ignore_shutdown` (SIGTERM too) · `reuse=whole` (memory that cannot be cut) ·
    `prefill@2` (the second chunk of the prefill context) ·
    `embed@1=memory|decode|defect|nan|wait` (what the first batch of embeddings does) · `rank` (a ranking model) · `no_text` (a
    model that cannot generate) · `compile_crash` (at the first grammar).
    """

    words: frozenset[str] = frozenset()
    step_s: float = 0.0
    stderr: str = ""
    reuse: Reuse = Reuse.PREFIX
    pooling: Pooling = "mean"
    at_step: dict[int, str] = field(default_factory=dict)
    at_embedding: dict[int, str] = field(default_factory=dict)
    at_prefill: set[int] = field(default_factory=set)

    @classmethod
    def parse(cls, specs: Iterable[str]) -> Faults:
        faults = cls()
        for spec in specs:
            name, _, value = spec.partition("=")
            kind, _, step = name.partition("@")
            if name == "step_s":
                faults.step_s = float(value)
            elif name == "reuse":
                faults.reuse = Reuse(value)
            elif spec == "rank":
                faults.pooling = "rank"
            elif name == "stderr":
                faults.stderr = value
            elif kind == "embed":
                faults.at_embedding[int(step)] = value
            elif kind == "prefill":
                faults.at_prefill.add(int(step))
            elif step:
                faults.at_step[int(step)] = f"{kind}={value}" if value else kind
            else:
                faults.words |= {spec}
        return faults


class _Cell:
    """One KV cell. Several sequence ids may see the same one, so identity counts."""

    __slots__ = ("token",)

    def __init__(self, token: int) -> None:
        self.token = token


class FakeLogprobs:
    """One token has half of the probability, the others share the other half."""

    def __init__(self, likely: int, n_top: int) -> None:
        self._likely = likely
        others = (token for token in range(N_VOCAB) if token != likely)
        order = itertools.islice(itertools.chain([likely], others), n_top)
        self.top = tuple((token, self.of(token)) for token in order)

    def of(self, token: int) -> float:
        return math.log(0.5 if token == self._likely else 0.5 / (N_VOCAB - 1))


class FakeSampler:
    """Carries nothing: the fake chooses by the cells alone."""

    def __init__(self) -> None:
        self.closed = False

    def accept(self, token: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakeEmbedder:
    """A vector of four numbers: how often each remainder by 4 occurs among the tokens. As a score: how many there are."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self.max_tokens = backend.info.n_ctx
        self.batch_tokens, self.batch_inputs = 32, 4
        self.batches: list[int] = []
        """Inputs of each batch."""
        self.closed = False

    def pool(self, inputs: Seq[Seq[int]]) -> list[array[float]]:
        self.batches.append(len(inputs))
        if self._backend.fault_of_embedding(len(self.batches)) == "nan":
            return [array("f", [math.nan]) for _ in inputs]
        if self._backend.info.pooling == "rank":
            return [array("f", [len(tokens)]) for tokens in inputs]
        return [array("f", (sum(t % 4 == k for t in tokens) for k in range(4))) for tokens in inputs]

    def close(self) -> None:
        self.closed = True


class FakeBackend:
    """See `Backend` for the contract."""

    def __init__(
        self,
        config: FittedConfig,
        on_progress: Callable[[float], None],
        faults: Faults | None = None,
        write_raw: Callable[[bytes], object] | None = None,
    ) -> None:
        self._faults = faults or Faults()
        self._write_raw = write_raw
        self._fail_to_load(on_progress)
        p = config.parameters
        self.info = EngineInfo(
            description="fake", architecture="fake", n_params=0, size_bytes=0, n_vocab=N_VOCAB, n_ctx_train=min(p.n_ctx, 100_000),
            n_ctx=p.n_ctx, kv_pool_tokens=p.kv_pool_tokens or p.n_ctx * p.n_parallel, n_parallel=p.n_parallel,
            n_batch=max(p.n_batch, p.n_parallel), n_ubatch=min(p.n_ubatch, p.n_batch), n_threads=p.n_threads or 1,
            n_threads_batch=p.n_threads_batch or 1, n_gpu_layers=0, flash_attn=p.flash_attn.value,
            chat_template="configured" if p.chat_template else "chatml", prompt_cache=(self._faults.reuse if p.cache_prompt else Reuse.NONE).value,
            tool_format=detect_tool_format(p.chat_template or ""),
            thinking_tags=detect_thinking_tags(p.chat_template or ""),
            can_generate="no_text" not in self._faults.words, n_embd=4, pooling=self._faults.pooling,
        )  # fmt: skip
        self.can_trim = self._faults.reuse is Reuse.PREFIX
        self.fim = FimTokens(*FIM)
        self.rank_template: str | None = None
        self.n_slots = 2 * p.n_parallel + 2
        self.prefill_cells = p.n_ctx if self.can_trim and p.n_parallel > 1 else 0
        self.cell_s = 0.0
        self.prefills: list[int] = []
        """Tokens of each chunk that the prefill context was given."""
        self.has_prefill_context = False
        self.template = TemplateSource(None, "<s>", "<end>")
        self.steps = 0
        self.embedder: FakeEmbedder | None = None
        self.waits, self.go_on = threading.Event(), threading.Event()
        """Set by a batch of embeddings that waits, and what it waits for."""
        self.samplers: list[FakeSampler] = []
        self._cells: dict[int, list[_Cell]] = {}
        self._outputs: list[list[_Cell]] = []

    # --- vocabulary ---

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        tokens = [BOS] if add_special else []
        parts = re.split(r"(<s>|<end>)", text) if parse_special else [text]
        for part in parts:
            control = _CONTROLS.get(part) if parse_special else None
            tokens += [control] if control is not None else part.encode()
        return tokens

    def control_tokens(self) -> frozenset[int]:
        return frozenset(_CONTROLS.values())

    def control_texts(self) -> frozenset[str]:
        return frozenset(_CONTROLS)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < BOS else b""

    def written(self, token: int) -> bytes:
        spelling = next((text for text, control in _CONTROLS.items() if control == token), "")
        return self.token_bytes(token) or spelling.encode()

    def is_end(self, token: int) -> bool:
        return token == END

    def new_sampler(self, params: SamplingParams, prompt: Seq[int]) -> FakeSampler:
        if params.seed == 0xBAD:
            raise BackendError("no sampler for this seed")
        self.samplers.append(FakeSampler())
        return self.samplers[-1]

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        return [BOS, *query.encode(), END, *document.encode(), END]

    def open_embedder(self) -> FakeEmbedder:
        self.embedder = FakeEmbedder(self)
        return self.embedder

    def new_draft(self) -> None:
        return None

    def constraint_tokenizer(self) -> LLTokenizer:
        from llguidance import LLTokenizer  # noqa: PLC0415 - only constrained requests need it

        if "compile_crash" in self._faults.words:
            os._exit(3)
        return LLTokenizer("byte", n_vocab=N_VOCAB)

    # --- context ---

    def decode(self, chunks: Seq[Chunk]) -> None:
        self.steps += 1
        if self._faults.step_s:
            time.sleep(self._faults.step_s)
        self._fail_at_step(self._faults.at_step.get(self.steps, ""))
        if sum(len(chunk.tokens) for chunk in chunks) + self._used() > self.info.kv_pool_tokens:
            raise KVCacheFull("the fake cache is full")
        self._outputs = []
        for chunk in chunks:
            cells = self._cells.setdefault(chunk.slot, [])
            if len(cells) != chunk.start:
                raise DecodeFailed(f"position {chunk.start} after {len(cells)} cells")
            cells += [_Cell(token) for token in chunk.tokens]
            self._outputs += [cells[: len(cells) - back] for back in range(chunk.n_outputs - 1, -1, -1)]

    def prefill(self, chunk: Chunk, between_layers: Callable[[], bool]) -> bool:
        self.prefills.append(len(chunk.tokens))
        self.has_prefill_context = True
        seen = [cell.token for cell in self._cells.get(chunk.slot, ())]
        assert len(seen) == chunk.start
        assert chunk.start + len(chunk.tokens) <= self.prefill_cells
        for _ in range(N_LAYERS):
            if not between_layers():
                return False
        if len(self.prefills) in self._faults.at_prefill:
            raise PrefillFailed("scripted")
        cells = self._cells.setdefault(chunk.slot, [])
        assert [cell.token for cell in cells] == seen, (
            "the cells before a chunk changed while it was computed"
        )
        if len(chunk.tokens) + self._used() > self.info.kv_pool_tokens:
            raise PrefillFailed("the fake cache is full")
        cells += [_Cell(token) for token in chunk.tokens]
        return True

    def close_prefill_context(self) -> None:
        self.has_prefill_context = False

    def _used(self) -> int:
        return len({cell for cells in self._cells.values() for cell in cells})

    def sample(self, sampler: object, output: int, constraint: Constraint | None) -> int:
        assert isinstance(sampler, FakeSampler)
        assert not sampler.closed, "sampled after close"
        token = next_token([cell.token for cell in self._outputs[output]])
        return token if constraint is None else _nearest_allowed(token, constraint.mask())

    def row_logprobs(self, output: int, n_top: int) -> FakeLogprobs:
        return FakeLogprobs(next_token([cell.token for cell in self._outputs[output]]), n_top)

    def release(self, slot: int) -> None:
        self._cells.pop(slot, None)

    def copy(self, source: int, slot: int, n_cells: int) -> None:
        assert not self._cells.get(slot), "copied over cells"
        assert self.can_trim or n_cells == len(self._cells[source]), (
            "memory that cannot be cut was copied in part"
        )
        self._cells[slot] = self._cells[source][:n_cells]

    def trim(self, slot: int, n_cells: int) -> None:
        del self._cells[slot][n_cells:]

    def cells(self, slot: int) -> int:
        return len(self._cells.get(slot, ()))

    def save(self, slot: int) -> memoryview:
        return memoryview(array("i", [cell.token for cell in self._cells[slot]]).tobytes())

    def state_key(self) -> bytes:
        return b"fake"

    def restore(self, slot: int, state: memoryview) -> None:
        assert not self._cells.get(slot), "restored over cells"
        tokens = state.cast("i").tolist()
        if len(tokens) + self._used() > self.info.kv_pool_tokens:
            raise RestoreFailed("the fake cache is full")
        self._cells[slot] = [_Cell(token) for token in tokens]

    def close(self) -> None:
        self._cells.clear()
        if "ignore_shutdown" in self._faults.words:
            time.sleep(3600)

    # --- faults ---

    def _fail_to_load(self, on_progress: Callable[[float], None]) -> None:
        if self._faults.stderr:
            print(self._faults.stderr, file=sys.stderr, flush=True)  # noqa: T201 - stands for llama.cpp's own output
        on_progress(0.5)
        if "load_error" in self._faults.words:
            raise BackendError("the fake model is broken on purpose")
        if "load_crash" in self._faults.words:
            os._exit(3)
        if "load_hang" in self._faults.words:
            time.sleep(3600)

    def fault_of_embedding(self, batch: int) -> str | None:
        """What goes wrong with a batch of embeddings, where it does not fail here."""
        if self._faults.step_s:
            time.sleep(self._faults.step_s)
        fault = self._faults.at_embedding.get(batch)
        match fault:
            case "memory":
                raise OutOfMemory("the fake has no memory")
            case "decode":
                raise BackendError("scripted")
            case "defect":
                raise ZeroDivisionError
            case "wait":
                self.waits.set()
                self.go_on.wait()
            case _:
                pass
        return fault

    def _fail_at_step(self, fault: str) -> None:
        match fault.partition("="):
            case ("decode", _, "1"):
                raise KVCacheFull("scripted")
            case ("decode", _, code):
                raise DecodeFailed(f"llama_decode failed with {code}")
            case ("crash", _, _):
                os._exit(3)
            case ("hang", _, _):
                time.sleep(3600)
            case ("garbage", _, _) if self._write_raw is not None:
                self._write_raw(b"this is no frame\n")
            case _:
                pass


def _nearest_allowed(token: int, mask: bytes) -> int:
    """The token itself where the mask has it, else the next one that it has."""
    order = itertools.chain(range(token, N_VOCAB), range(token))
    return next((t for t in order if mask[t // 8] >> t % 8 & 1), END)


def next_token(tokens: Seq[int]) -> int:
    """What the fake model says after these tokens."""
    text = bytes(token for token in tokens if token < BOS)
    said = _SAY.findall(text.decode(errors="surrogateescape"))
    if said:
        return _next_of_speech(text, said[-1].encode(errors="surrogateescape"))
    return _next_of_count(text)


def _next_of_speech(text: bytes, speech: bytes) -> int:
    """The answer so far is the longest beginning of the speech that the text ends with, after the last marker."""
    tail = text.rpartition(b"</say>")[2]
    for length in range(min(len(speech), len(tail)), -1, -1):
        if tail.endswith(speech[:length]):
            return speech[length] if length < len(speech) else END
    return END


def _next_of_count(text: bytes) -> int:
    head = text.rstrip(b"0123456789 ")
    said = text[len(head) :]
    numbers = re.findall(rb"\d+", head)
    expected = b""
    for number in itertools.count(int(numbers[-1]) + 1 if numbers else 1):
        expected += b"%d " % number
        if len(expected) > len(said):
            break
    return expected[len(said)] if expected.startswith(said) else ord("!")
