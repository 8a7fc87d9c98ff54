"""LibraryModel: one model of the library. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from kolosal.models.file_version import FileVersion

Source: TypeAlias = Literal["folder", "huggingface", "ollama", "lm_studio"]
"""Whose folder a model lies in."""

Capability: TypeAlias = Literal["completion", "tools", "thinking", "infill", "embedding", "rerank"]
"""What the daemon can do with a model."""


Layer: TypeAlias = Literal["template", "system", "params", "messages"]
"""What a manifest of Ollama's says of a model besides its weights."""

LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model's header says."""

    architecture: str
    n_params: int
    quantization: str
    """As llama.cpp calls it: `Q4_K_M`; `unknown` where it cannot be told."""
    n_ctx_train: int
    """Tokens it was trained for; 0 where its file does not say."""
    n_embd: int
    n_vocab: int
    capabilities: tuple[Capability, ...]


@dataclass(frozen=True, slots=True)
class LibraryModel:
    """A model that can be loaded, or a damaged file."""

    name: str
    """Of no other model of the library."""
    source: Source
    files: tuple[FileVersion, ...]
    """Its parts in order; one, where it is not split."""
    facts: ModelFacts | None
    """None where the file is damaged."""
    header_error: str | None = None
    """What is wrong with its file, in one sentence."""
    store_error: str | None = None
    """Why the store that it lies in names no file that could be read."""
    projector: FileVersion | None = None
    """The `mmproj-…` file beside it."""
    digest: str | None = None
    """SHA-256 of its file, where that is known."""
    added_at: float = 0.0
    """Unix time at which its file came to lie there."""
    layers: tuple[tuple[Layer, Path], ...] = ()
    """Files with what its store says of it besides."""
    manifest: Path | None = None
    """The file by which its store has it, where it has one."""

    @property
    def error(self) -> str | None:
        """Why it cannot be loaded."""
        return self.store_error or self.header_error

    @property
    def path(self) -> Path:
        """What is loaded: its file, or the first part."""
        return self.files[0].path

    @property
    def size(self) -> int:
        """Bytes of all its parts."""
        return sum(file.size for file in self.files)
