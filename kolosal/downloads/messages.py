"""What the daemon and a fetcher say to each other: one request, and lines of JSON as long as it works."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from kolosal.downloads.plan import DownloadPlan


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Find out what is to be fetched."""

    source: str
    quant: str | None
    bare_is_ollama: bool
    folder: str
    registry: str
    trusted_hosts: tuple[str, ...]
    cuda_visible_devices: str | None = None
    """Which GPUs workers have."""
    op: Literal["plan"] = "plan"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Find repositories of the hub that have models."""

    words: str
    limit: int
    op: Literal["search"] = "search"


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Fetch it."""

    plan: DownloadPlan
    registry: str
    trusted_hosts: tuple[str, ...]
    op: Literal["fetch"] = "fetch"


@dataclass(frozen=True, slots=True)
class Offer:
    """One of the models that a repository has."""

    source: str
    """The complete name that fetches it."""
    quant: str
    """Its quantisation, or its file's name where that says none."""
    size: int
    comfortable: bool
    """Whether the machine's memory holds it well."""
    loadable: bool
    """Whether it does at all."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The answer to a `PlanRequest`, and its end."""

    plan: DownloadPlan
    comfortable: bool
    """Whether the machine's memory holds it well."""
    loadable: bool
    """Whether it does at all."""
    free_bytes: int
    """Of the disk that it goes to."""
    offers: tuple[Offer, ...] = ()
    """All that the repository has, the smallest first; none of other places than the hub."""
    kind: Literal["planned"] = "planned"


@dataclass(frozen=True, slots=True)
class FoundRepository:
    """A repository of the hub that has models."""

    name: str
    """By which its models are fetched: `hf.co/ORG/REPO`."""
    downloads: int
    """How often it was fetched lately."""
    likes: int
    gated: bool
    """Whether its owners must be asked first."""
    last_modified: str | None
    """UTC, as ISO 8601 writes it."""


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """The answer to a `SearchRequest`, and its end."""

    repositories: tuple[FoundRepository, ...]
    """Those that are fetched most first."""
    kind: Literal["found"] = "found"


@dataclass(frozen=True, slots=True)
class FileProgress:
    """So much of one file is there."""

    file: int
    """Its index in the plan."""
    completed: int
    total: int | None
    verifying: bool = False
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class Fetched:
    """All files are there; the end."""

    kind: Literal["fetched"] = "fetched"


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """It cannot be done; the end. The name of a class in `kolosal.errors`, and what that is made of."""

    error: str
    message: str
    param: str | None = None
    code: str | None = None
    kind: Literal["failed"] = "failed"


Request: TypeAlias = Annotated[PlanRequest | SearchRequest | FetchRequest, Field(discriminator="op")]
Message: TypeAlias = Annotated[
    Planned | HubAnswer | FileProgress | Fetched | FetchFailed, Field(discriminator="kind")
]


@cache
def request_adapter() -> TypeAdapter[PlanRequest | SearchRequest | FetchRequest]:
    """Reads a request. Made when it is first needed, as the next one is: an idle daemon pays nothing for it."""
    return TypeAdapter(Request)


@cache
def message_adapter() -> TypeAdapter[Planned | HubAnswer | FileProgress | Fetched | FetchFailed]:
    """Reads a message."""
    return TypeAdapter(Message)
