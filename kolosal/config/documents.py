"""The section `documents:`: files that clients upload, and what is made of them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kolosal.config.section import SettingsSection


class DocumentSettings(SettingsSection):
    """Bounds of files, and what embeds them."""

    variable_prefix: ClassVar[str] = "DOCUMENTS_"

    max_file_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, le=1024**3)
    """Bytes of one uploaded file; a longer one is refused with 413. What all files of a key may have is `store.max_bytes_per_key`."""
    embedding_engine: str | None = Field(default=None, min_length=1, max_length=200)
    """The engine that makes the vectors of vector stores; empty: one that is loaded and makes embeddings, first those made for it."""
