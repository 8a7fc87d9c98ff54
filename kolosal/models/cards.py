"""Cards: what model files say of themselves in their headers.

A card says of a model that was never loaded what its worker would: the table of quantisations and the list of encoders are
llama.cpp's.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kolosal.chat.formats import detect_thinking_tags
from kolosal.engines.memory.gguf import CHAT_TEMPLATE, GgufHeader
from kolosal.engines.memory.model_files import read_headers
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.errors import ModelFileError
from kolosal.models.entry import Capability, ModelFacts

_SHORT_ARRAY = 5
"""Elements up to which an array is shown also where nobody asks for all of it."""

_NOT_SHOWN = ("general.name", CHAT_TEMPLATE)
"""Keys that `model_info` leaves out, as Ollama does."""

_GUESSED = 1024
"""What llama.cpp adds to a kind of file that the file does not say."""

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""Quantisations by `general.file_type`."""

_FILE_TYPE_OF_TENSORS = {
    0: 0, 1: 1, 30: 32, 2: 2, 3: 3, 6: 8, 7: 9, 8: 7, 10: 10, 11: 12, 12: 15, 13: 17, 14: 18, 34: 36, 35: 37, 16: 19,
    17: 20, 22: 28, 18: 23, 19: 24, 29: 31, 20: 25, 23: 30, 21: 26, 40: 39, 41: 40, 42: 41,
}  # fmt: skip
"""What llama.cpp takes a file for that does not say it, by the type that most of its tensors have."""

_NO_TEXT = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "gemma-embedding", "t5encoder", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1",
})  # fmt: skip
"""Architectures that read a text whole and do not continue it."""


_POOLING_RANK = 4
"""`pooling_type` of models that rank documents."""

_FIM_MIDDLE = ("tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id")
"""Keys of the token that models know which fill in the middle of a text."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the headers of one model say."""

    facts: ModelFacts
    header: GgufHeader
    """That of the first part, without its tensors."""

    @property
    def can_generate(self) -> bool:
        """Whether the model continues text."""
        return self.facts.architecture not in _NO_TEXT

    @property
    def chat_template(self) -> str:
        """The chat template; empty where the file has none."""
        return _template(self.header)

    def model_info(self, *, verbose: bool) -> dict[str, Any]:
        """All keys but some; long arrays are empty unless `verbose`, and those that were not kept always."""
        said: dict[str, Any] = {
            key: [] if isinstance(value, tuple) and len(value) > _SHORT_ARRAY and not verbose else value
            for key, value in self.header.metadata.items()
            if key not in _NOT_SHOWN
        }
        return {
            f"{self.facts.architecture}.vocab_size": self.facts.n_vocab,
            **{key: [] for key in self.header.lengths},
            **said,
            "general.parameter_count": self.facts.n_params,
        }


def read_card(path: Path) -> ModelCard | None:
    """The card of a model, whose file or first part `path` is; None where it cannot be read. Reads the disk."""
    try:
        headers = read_headers(path)
        facts = facts_of(headers)
    except ModelFileError:
        return None
    first = headers[0]
    return ModelCard(facts, GgufHeader(first.metadata, first.lengths, ()))


def read_facts(path: Path) -> ModelFacts | None:
    """The same in short."""
    try:
        return facts_of(read_headers(path))
    except ModelFileError:
        return None


def facts_of(headers: Sequence[GgufHeader]) -> ModelFacts:
    """What the parts of a model say of it.

    Raises:
        ModelFileError: they do not say its architecture, or hold no weights.
    """
    shape = ModelShape.of(headers)
    return ModelFacts(
        sys.intern(shape.architecture),
        shape.n_params,
        FILE_TYPES.get(_file_type(headers), "unknown"),
        shape.n_ctx_train,
        shape.n_embd,
        shape.n_vocab,
        tuple(_capabilities(shape.architecture, headers[0])),
    )


def _capabilities(architecture: str, header: GgufHeader) -> Iterator[Capability]:
    """What can be done with a model; tools are told in words to those whose template knows none."""
    if architecture in _NO_TEXT:
        ranks = header.metadata.get(f"{architecture}.pooling_type") == _POOLING_RANK
        yield "rerank" if ranks else "embedding"
        return
    yield from ("completion", "tools")
    if detect_thinking_tags(_template(header)) is not None:
        yield "thinking"
    if any(key in header.metadata for key in _FIM_MIDDLE):
        yield "infill"


def _template(header: GgufHeader) -> str:
    template = header.metadata.get(CHAT_TEMPLATE)
    return template if isinstance(template, str) else ""


def _file_type(headers: Sequence[GgufHeader]) -> int:
    said = headers[0].metadata.get("general.file_type")
    if isinstance(said, int) and not isinstance(said, bool):
        return said & ~_GUESSED
    kinds = Counter(tensor.kind for header in headers for tensor in header.tensors)
    return _FILE_TYPE_OF_TENSORS.get(kinds.most_common(1)[0][0], 0)
