"""What is to be fetched, all of it known: sizes, digests, and where each file goes. JSON, so that it can be kept and sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

NO_VALIDATOR = ""
"""In place of an ETag: nothing tells whether a file is still the same, so it is never gone on with."""

Size = Annotated[int, Field(ge=0, le=1 << 50)]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file."""

    url: str
    path: str
    """Where it is when it is whole; until then it has the suffix `.part`."""
    size: Size | None
    """None: the server does not say."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    etag: str | None = None
    """Of a file without a digest: what tells whether it is still the same, or `NO_VALIDATOR`."""

    @property
    def name(self) -> str:
        """By which messages call it."""
        return self.url.rpartition("/")[2].partition("?")[0]


@dataclass(frozen=True, slots=True)
class HubLink:
    """How a file of the hub's cache is found by its name."""

    repo: str
    revision: str
    """The branch or tag that was asked for."""
    commit: str
    cache: str
    """The cache's folder."""
    names: tuple[str, ...]
    """Paths in the repository, as many as files in the plan."""


@dataclass(frozen=True, slots=True)
class OllamaManifest:
    """What is written once all layers are there."""

    path: str
    text: str
    """As the registry sent it."""
    name: str
    """`llama3.2:3b`."""


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """All that is fetched for one model."""

    source: str
    """The name it was asked for by, complete: with the quantisation that was chosen."""
    kind: Literal["hub", "ollama", "file"]
    name: str
    """What the model is called here."""
    quant: str
    files: tuple[PlannedFile, ...]
    model_path: str
    """What is loaded once all files are there."""
    present_bytes: Size = 0
    """What of it is on the disk already, whole or in part."""
    hub: HubLink | None = None
    ollama: OllamaManifest | None = None

    @property
    def total_bytes(self) -> int:
        """Of all files, as far as they are known."""
        return sum(file.size or 0 for file in self.files)
