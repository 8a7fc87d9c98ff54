"""The JSON of answers, for the document. Tests compare it with what is really sent."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class Embeddings(TypedDict):
    """Vectors."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class Embedding(TypedDict):
    """A vector."""

    embedding: list[float]


class Details(TypedDict):
    """What kind of model it is; texts are empty where its file is gone and it was never loaded."""

    parent_model: str
    format: Literal["gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class TaggedModel(TypedDict):
    """A model there is."""

    name: str
    model: str
    modified_at: str
    size: int
    """Bytes of its file."""
    digest: str
    """SHA-256 of its file, 64 hexadecimal digits."""
    details: Details


class ModelTags(TypedDict):
    """The models there are."""

    models: list[TaggedModel]


class RunningModel(TypedDict):
    """A model in memory."""

    name: str
    model: str
    size: int
    """Bytes it takes."""
    digest: str
    details: Details
    expires_at: str
    """When it is unloaded if nobody uses it; the year 2318 where it stays."""
    size_vram: int
    """How many of the bytes are in GPU memory."""
    context_length: int


class RunningModels(TypedDict):
    """The models in memory."""

    models: list[RunningModel]


class ShownModel(TypedDict):
    """What is known of a model."""

    modelfile: str
    parameters: str
    template: str
    """The chat template in use; empty where the model has none."""
    details: Details
    model_info: dict[str, Any]
    """By the names that GGUF files have."""
    capabilities: list[str]
    modified_at: str


class Version(TypedDict):
    """The version of Ollama whose API this is."""

    version: str


class OllamaError(TypedDict):
    """An error."""

    error: str
