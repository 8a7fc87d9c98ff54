"""Which files of a repository are a model, and which quantisation is best here. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from kolosal.engines.memory.model_files import PART_NAME
from kolosal.errors import DownloadFailed, InvalidRequest, NotFound

_QUANT = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|F16|F32|FP16|FP32|MXFP4(?:_[A-Z]+)*|NVFP4))(?=[-._/]|$)",
    re.IGNORECASE,
)
_UNQUANTISED = frozenset({"BF16", "F16", "F32", "FP16", "FP32"})
_PROJECTORS = ("F16", "FP16", "BF16", "Q8_0", "F32", "FP32")
"""Kinds of projectors, the most useful first."""

_OVERHEAD_BYTES = 600 * 1024 * 1024
"""What an engine takes besides its weights at least: its process, a KV cache of some thousand tokens, buffers."""

_SHOWN = 40


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """A file there is."""

    name: str
    """Its path in the repository."""
    size: int
    sha256: str | None
    etag: str
    """What the hub's cache calls its content."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a repository: a file, or the parts of one."""

    quant: str
    """As `Q4_K_M`; empty where the name says none."""
    files: tuple[RepositoryFile, ...]
    """The first part first."""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.quant or self.files[0].name


@dataclass(frozen=True, slots=True)
class Room:
    """How much memory there is for a model, in bytes."""

    comfortable: int
    """Where it runs well and others find room too."""
    total: int
    """All there is."""

    @classmethod
    def of(cls, host_total: int, gpus_free: int, gpus_total: int) -> Room:
        """Of a machine: its GPUs where it has some, else half of the host's memory."""
        return cls(gpus_free or host_total // 2, host_total + gpus_total)

    def is_comfortable(self, size: int) -> bool:
        """Whether a model of this size runs well."""
        return needed_memory(size) <= self.comfortable

    def holds(self, size: int) -> bool:
        """Whether a model of this size can be loaded at all."""
        return needed_memory(size) <= self.total


def needed_memory(size: int) -> int:
    """Bytes of memory that a model with files of this size takes, by rule of thumb: its header is not here yet."""
    return size + size // 20 + _OVERHEAD_BYTES


def quantisation_of(name: str) -> str:
    """The quantisation that a file's name says, in capitals; empty where it says none."""
    stem = re.sub(r"\.gguf$", "", PART_NAME.sub("", name), flags=re.IGNORECASE)
    found = _QUANT.findall(stem)
    return found[-1].upper() if found else ""


def variants(files: Iterable[RepositoryFile]) -> list[Variant]:
    """The models among the files, the smallest first. A split model whose parts are not all there is none."""
    groups: defaultdict[str, list[RepositoryFile]] = defaultdict(list)
    for file in files:
        if _is_model(file.name):
            groups[PART_NAME.sub("", file.name)].append(file)
    found = []
    for group in groups.values():
        parts = tuple(sorted(group, key=lambda file: file.name))
        part = PART_NAME.search(parts[0].name)
        if part is None or len(parts) == int(part[2]):
            found.append(Variant(quantisation_of(parts[0].name), parts))
    return sorted(found, key=lambda variant: (variant.size, variant.files[0].name))


def projector(files: Iterable[RepositoryFile]) -> RepositoryFile | None:
    """The file that lets a model of this repository see, where there is one."""
    found = [file for file in files if _is_gguf(file.name) and _base(file.name).startswith("mmproj")]

    def rank(file: RepositoryFile) -> tuple[int, str]:
        quant = quantisation_of(file.name)
        return (_PROJECTORS.index(quant) if quant in _PROJECTORS else len(_PROJECTORS), file.name)

    return min(found, key=rank, default=None)


def choose(repo: str, found: Sequence[Variant], wanted: str | None, room: Room) -> Variant:
    """The model to fetch: the one that was named, else the best that fits.

    The best is the largest of at most eight bits a weight that fits comfortably; where none does, the smallest.

    Raises:
        NotFound: the repository has no such file or quantisation.
        InvalidRequest: several of its models are what was named.
        DownloadFailed: it has no model at all.
    """
    if not found:
        raise DownloadFailed(
            f"{repo} holds no GGUF model: look for one with `kolosal search {repo.rpartition('/')[2]}`"
        )
    if wanted is not None:
        return _named(repo, found, wanted)
    quantised = [each for each in found if each.quant not in _UNQUANTISED] or [*found]
    fitting = [each for each in quantised if room.is_comfortable(each.size)]
    chosen = fitting[-1] if fitting else quantised[0]
    return _only(
        repo, [each for each in quantised if each.quant == chosen.quant] if chosen.quant else [chosen]
    )


def _named(repo: str, found: Sequence[Variant], wanted: str) -> Variant:
    word = wanted.casefold()
    if word.endswith(".gguf"):
        named = [
            each
            for each in found
            if any(word in (file.name.casefold(), _base(file.name).casefold()) for file in each.files)
        ]
    else:
        named = [each for each in found if each.quant.casefold() == word] or [
            each for each in found if each.quant.casefold() == f"ud-{word}"
        ]
    if named:
        return _only(repo, named)
    there = ", ".join(dict.fromkeys(each.label for each in found[:_SHOWN]))
    raise NotFound(f"{repo} has no {wanted[:100]}; it has {there}", param="source", code="quant_not_found")


def _only(repo: str, named: Sequence[Variant]) -> Variant:
    if len(named) == 1:
        return named[0]
    names = ", ".join(each.files[0].name for each in named[:_SHOWN])
    raise InvalidRequest(
        f"{repo} has {len(named)} models of {named[0].label}: name the file, one of {names}", param="source"
    )


def _is_model(name: str) -> bool:
    base = _base(name)
    return _is_gguf(name) and not base.startswith("mmproj") and "imatrix" not in base


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _base(name: str) -> str:
    return PurePosixPath(name).name.lower()
