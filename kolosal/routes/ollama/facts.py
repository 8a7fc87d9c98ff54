"""What is known of a model, in Ollama's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kolosal.chat.formats import detect_thinking_tags
from kolosal.engines.engine import Engine
from kolosal.routes.common.model_cards import ModelCard

_QUANTIZATION = re.compile(
    r"\b(I?Q\d\w*|TQ\d_\d|BF16|F16|F32|MXFP4|NVFP4)\b(?: - (Small|Medium|Large)| (mix))?"
)
"""A kind of quantisation in llama.cpp's description of a model, e.g. `qwen2 1.5B Q4_K - Medium`."""

_SHORTER = {"Q2_K_M": "Q2_K", "IQ3_S_m": "IQ3_M"}
"""Kinds whose names in llama.cpp's description are not the usual ones."""

_UNITS = (("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0))
"""Letters for large numbers, with their decimals."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model; empty texts and 0 stand for what is not."""

    family: str = ""
    n_params: int = 0
    quantization: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """By the names that GGUF files have."""
    can_generate: bool = True
    thinks: bool = False
    template: str = ""
    """The chat template in use, where there is one."""

    @property
    def details(self) -> dict[str, Any]:
        """`details`."""
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family] if self.family else [],
            "parameter_size": parameter_size(self.n_params) if self.n_params else "",
            "quantization_level": self.quantization,
        }

    @property
    def capabilities(self) -> list[str]:
        """What the model can do; tools are told in words to those whose template knows none."""
        if not self.can_generate:
            return ["embedding"]
        return ["completion", "tools", *(["thinking"] if self.thinks else [])]


def facts_of(engine: Engine, card: ModelCard | None = None, *, verbose: bool = False) -> ModelFacts:
    """What an engine's file says, loaded or not; where it is gone, what the worker found in it.

    `verbose` asks for the elements of long arrays, too.
    """
    if card is None:
        return _facts_of_worker(engine)
    info = engine.info
    template = engine.config.parameters.chat_template or card.chat_template
    return ModelFacts(
        card.architecture,
        card.n_params,
        card.quantization,
        card.model_info(verbose=verbose),
        card.can_generate if info is None else info.can_generate,
        detect_thinking_tags(template) is not None,
        template,
    )


def _facts_of_worker(engine: Engine) -> ModelFacts:
    info, template = engine.info, engine.config.parameters.chat_template or ""
    if info is None:
        return ModelFacts(template=template)
    name = info.architecture
    metadata = {
        "general.architecture": name,
        "general.parameter_count": info.n_params,
        f"{name}.context_length": info.n_ctx_train,
        f"{name}.embedding_length": info.n_embd,
        f"{name}.vocab_size": info.n_vocab,
    }
    return ModelFacts(
        name,
        info.n_params,
        quantization(info.description),
        metadata,
        info.can_generate,
        info.thinking_tags is not None,
        template,
    )


def parameter_size(count: int) -> str:
    """A number of parameters as people write it: `134.52M`, `7.6B`."""
    for unit, size, decimals in _UNITS:
        if count >= size:
            number = count / size
            return f"{number:.0f}{unit}" if number.is_integer() else f"{number:.{decimals}f}{unit}"
    return str(count)


def quantization(description: str) -> str:
    """The kind of quantisation: `Q4_K_M`; `unknown` where the description names none."""
    found = _QUANTIZATION.search(description)
    if found is None:
        return "unknown"
    level, size, mixed = found.groups()
    more = size or mixed
    name = level if more is None else f"{level}_{more[0]}"
    return _SHORTER.get(name, name)
