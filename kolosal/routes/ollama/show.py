"""`POST /api/show`: what is known of a model, loaded or not, in Ollama's words. Looking at it loads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.chat.formats import detect_thinking_tags
from kolosal.engines.engine import Engine
from kolosal.engines.parameters import LLAMACPP
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.models.cards import ModelCard
from kolosal.models.entry import ModelFacts
from kolosal.models.names import parameter_size
from kolosal.models.ollama_settings import written_modelfile, written_parameters
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.known_models import KnownModel, known_model
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of, services_of
from kolosal.routes.ollama.encode import rfc3339
from kolosal.routes.ollama.names import NamedModelBody, decode_ollama, not_found

_QUANTIZATION = re.compile(
    r"\b(I?Q\d\w*|TQ\d_\d|BF16|F16|F32|MXFP4|NVFP4)\b(?: - (Small|Medium|Large)| (mix))?"
)
"""A kind of quantisation in llama.cpp's description of a model, e.g. `qwen2 1.5B Q4_K - Medium`."""

_SHORTER = {"Q2_K_M": "Q2_K", "IQ3_S_m": "IQ3_M"}
"""Kinds whose names in llama.cpp's description are not the usual ones."""

_FORMATS = {LLAMACPP: "gguf", "transformers": "safetensors"}
"""What the files of a backend's models are."""


class ShowBody(NamedModelBody):
    """A model to look at."""

    verbose: bool | None = None
    """Whether `model_info` has the elements of long arrays of numbers, too; vocabularies are always left out."""


class ModelDetails(TypedDict):
    """What kind of model it is; texts are empty where its file is gone and it was never loaded."""

    parent_model: str
    format: str
    """`gguf`; `safetensors` with the backend `transformers`; empty with others."""
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class SystemField(TypedDict, total=False):
    """What the model is told first, where it is told something."""

    system: str


class ShowResponse(SystemField):
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
    """One engine or model of the library, as Ollama shows a model."""
    body = await decode_ollama(request, ShowBody)
    services = services_of(request)
    name = body.checked_name(services.registry)
    found = await known_model(services, name, partial(not_found, services.registry, name))
    path = Path(found.config.model_path)
    read = await unless_disconnected(request, services.cards.of(path, services.file_checks()(str(path))))
    model = describe_model(found, read and read[1], verbose=bool(body.verbose))
    source = path if is_admin(request.scope) else path.name  # as with `GET /engines/{engine_id}`
    said = caller_of(request).model(body.model or body.name)
    system: SystemField = {"system": said.system} if said is not None and said.system else {}
    file = str(source) if found.config.model_path else found.config.backend
    n_ctx = found.n_ctx
    return JsonResponse(
        {
            "modelfile": written_modelfile(file, said, n_ctx),
            "parameters": "\n".join(f"{key:<30} {value}" for key, value in written_parameters(said, n_ctx)),
            **system,
            "template": model.template,
            "details": model.details,
            "model_info": model.metadata,
            "capabilities": model.capabilities,
            "modified_at": rfc3339(modified_at(found)),
        }
    )


def modified_at(model: KnownModel) -> datetime:
    """When the model file was written; when the engine was added where it is gone."""
    if model.files:
        return model.files[0].modified_at
    return datetime.now(UTC) if model.engine is None else datetime.fromtimestamp(model.engine.created_at, UTC)


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
    format: str = "gguf"

    @property
    def details(self) -> ModelDetails:
        """`details`."""
        return _details(self.family, self.n_params, self.quantization, self.format)

    @property
    def capabilities(self) -> list[str]:
        """What the model can do; tools are told in words to those whose template knows none."""
        if not self.can_generate:
            return ["embedding"]
        return ["completion", "tools", *(["thinking"] if self.thinks else [])]


def model_details(facts: ModelFacts | None, engine: Engine | None) -> ModelDetails:
    """What kind of model it is, by its file; where that cannot be read, by its worker."""
    if facts is not None:
        return _details(facts.architecture, facts.n_params, facts.quantization, "gguf")
    return _details("", 0, "", "gguf") if engine is None else _described_by_worker(engine).details


def _details(family: str, n_params: int, quantization: str, kind: str) -> ModelDetails:
    return {
        "parent_model": "",
        "format": kind,
        "family": family,
        "families": [family] if family else [],
        "parameter_size": parameter_size(n_params) if n_params else "",
        "quantization_level": quantization,
    }


def describe_model(
    model: KnownModel, card: ModelCard | None = None, *, verbose: bool = False
) -> ModelDescription:
    """What a model's file says, loaded or not; where it is gone, what the worker found in it.

    `verbose` asks for the elements of long arrays, too.
    """
    engine = model.engine
    if card is None:
        return ModelDescription() if engine is None else _described_by_worker(engine)
    info = None if engine is None else engine.info
    template = model.config.parameters.chat_template or card.chat_template
    return ModelDescription(
        card.facts.architecture,
        card.facts.n_params,
        card.facts.quantization,
        card.model_info(verbose=verbose),
        card.can_generate if info is None else info.can_generate,
        detect_thinking_tags(template) is not None,
        template,
    )


def _described_by_worker(engine: Engine) -> ModelDescription:
    info, template = engine.info, engine.config.parameters.chat_template or ""
    kind = _FORMATS.get(engine.config.backend, "")
    if info is None:
        return ModelDescription(template=template, format=kind)
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
        kind,
    )


def quantization(description: str) -> str:
    """The kind of quantisation: `Q4_K_M`; `unknown` where the description names none."""
    found = _QUANTIZATION.search(description)
    if found is None:
        return "unknown"
    level, size, mixed = found.groups()
    more = size or mixed
    name = level if more is None else f"{level}_{more[0]}"
    return _SHORTER.get(name, name)
