"""`POST /api/show`: what is known of a model, loaded or not, in Ollama's words. Looking at it loads nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.chat.formats import detect_thinking_tags
from kolosal.engines.engine import Engine
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.file_cache import FileVersion
from kolosal.routes.common.model_cards import ModelCard
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import services_of
from kolosal.routes.ollama.encode import rfc3339
from kolosal.routes.ollama.names import NamedModelBody, decode_ollama

_QUANTIZATION = re.compile(
    r"\b(I?Q\d\w*|TQ\d_\d|BF16|F16|F32|MXFP4|NVFP4)\b(?: - (Small|Medium|Large)| (mix))?"
)
"""A kind of quantisation in llama.cpp's description of a model, e.g. `qwen2 1.5B Q4_K - Medium`."""

_SHORTER = {"Q2_K_M": "Q2_K", "IQ3_S_m": "IQ3_M"}
"""Kinds whose names in llama.cpp's description are not the usual ones."""

_UNITS = (("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0))
"""Letters for large numbers, with their decimals."""


class ShowBody(NamedModelBody):
    """A model to look at."""

    verbose: bool | None = None
    """Whether `model_info` has the elements of long arrays of numbers, too; vocabularies are always left out."""


class ModelDetails(TypedDict):
    """What kind of model it is; texts are empty where its file is gone and it was never loaded."""

    parent_model: str
    format: Literal["gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ShowResponse(TypedDict):
    """What is known of a model."""

    modelfile: str
    parameters: str
    template: str
    """The chat template in use; empty where the model has none."""
    details: ModelDetails
    model_info: Mapping[str, Any]
    """By the names that GGUF files have."""
    capabilities: list[str]
    modified_at: str


@Operation(
    group=Group.OLLAMA,
    scope=Access.ANY_KEY,
    body=ShowBody,
    example={"model": "tiny"},
    answer="What the model's file says, and how its engine uses it.",
)
async def show(request: Request) -> JsonResponse[ShowResponse]:
    """One engine, as Ollama shows a model."""
    body = await decode_ollama(request, ShowBody)
    services = services_of(request)
    engine = body.engine(services.registry)
    n_ctx, path = engine.config.parameters.n_ctx, Path(engine.config.model_path)
    read = await unless_disconnected(request, services.cards.of(path))
    model = describe_model(engine, read and read[1], verbose=bool(body.verbose))
    source = path if is_admin(request.scope) else path.name  # as with `GET /engines/{engine_id}`
    return JsonResponse(
        {
            "modelfile": f"FROM {source}\nPARAMETER num_ctx {n_ctx}\n",
            "parameters": f"{'num_ctx':<30} {n_ctx}",
            "template": model.template,
            "details": model.details,
            "model_info": model.metadata,
            "capabilities": model.capabilities,
            "modified_at": rfc3339(await asyncio.to_thread(_modified_at, engine)),
        }
    )


def _modified_at(engine: Engine) -> datetime:
    """When the model file was written; when the engine was added where it is gone. Reads the disk."""
    try:
        return FileVersion.of(Path(engine.config.model_path)).modified_at
    except OSError:
        return added_at(engine)


def added_at(engine: Engine) -> datetime:
    """When an engine was added."""
    return datetime.fromtimestamp(engine.created_at, UTC)


@dataclass(frozen=True, slots=True)
class ModelDescription:
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
    def details(self) -> ModelDetails:
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


def describe_model(
    engine: Engine, card: ModelCard | None = None, *, verbose: bool = False
) -> ModelDescription:
    """What an engine's file says, loaded or not; where it is gone, what the worker found in it.

    `verbose` asks for the elements of long arrays, too.
    """
    if card is None:
        return _described_by_worker(engine)
    info = engine.info
    template = engine.config.parameters.chat_template or card.chat_template
    return ModelDescription(
        card.architecture,
        card.n_params,
        card.quantization,
        card.model_info(verbose=verbose),
        card.can_generate if info is None else info.can_generate,
        detect_thinking_tags(template) is not None,
        template,
    )


def _described_by_worker(engine: Engine) -> ModelDescription:
    info, template = engine.info, engine.config.parameters.chat_template or ""
    if info is None:
        return ModelDescription(template=template)
    name = info.architecture
    metadata = {
        "general.architecture": name,
        "general.parameter_count": info.n_params,
        f"{name}.context_length": info.n_ctx_train,
        f"{name}.embedding_length": info.n_embd,
        f"{name}.vocab_size": info.n_vocab,
    }
    return ModelDescription(
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
