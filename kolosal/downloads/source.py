"""Names of models that can be fetched, as people write them. Pure.

hf.co/ORG/REPO[:QUANT or FILE]      hf:ORG/REPO[:QUANT or FILE]     Hugging Face's hub
ollama:NAME[:TAG]                   ollama:NAMESPACE/NAME[:TAG]     Ollama's registry
https://HOST/PATH/FILE.gguf                                         a file
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from kolosal.downloads.address import Url, parse_url
from kolosal.errors import InvalidRequest

MAX_SOURCE_CHARS = 2000
"""Of a name."""

_HUB_HOSTS = ("huggingface.co", "hf.co", "www.huggingface.co")
_BEGINNINGS = ("hf:", "ollama:", "http://", "https://", *(f"{host}/" for host in _HUB_HOSTS))
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_WANTED = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()/-]{0,254}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OLLAMA = re.compile(
    r"(?:(?P<namespace>[A-Za-z0-9][A-Za-z0-9_.-]{0,79})/)?(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,79})"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}))?"
)

_FORMS = "hf.co/ORG/REPO[:QUANT or FILE], ollama:NAME[:TAG] or https://HOST/FILE.gguf"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model in a repository of Hugging Face's hub."""

    repo: str
    """`ORG/REPO`."""
    wanted: str | None = None
    """A quantisation, or a file of the repository; None: whichever is best here."""
    revision: str = "main"

    @property
    def text(self) -> str:
        """The name as it is written."""
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf.co/{self.repo}{revision}" + (f":{self.wanted}" if self.wanted else "")


@dataclass(frozen=True, slots=True)
class OllamaSource:
    """A model in Ollama's registry."""

    namespace: str
    name: str
    tag: str

    @property
    def text(self) -> str:
        """The name as it is written."""
        return f"ollama:{self.short}"

    @property
    def short(self) -> str:
        """The name that Ollama's own clients have for it."""
        return f"{'' if self.namespace == 'library' else self.namespace + '/'}{self.name}:{self.tag}"


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file anywhere."""

    url: Url
    file: str
    """What it is called."""

    @property
    def text(self) -> str:
        """The name as it is written; keys and signatures of a query are nobody's business."""
        return self.url.without_query


Source: TypeAlias = HubSource | OllamaSource | FileSource


def is_source(name: str) -> bool:
    """Whether a name can only mean something that is to be fetched, and no engine, file or folder."""
    return name.strip().lower().startswith(_BEGINNINGS)


def parse_source(text: str, *, bare_is_ollama: bool = False) -> Source:
    """What a name means. With `bare_is_ollama`, one without a prefix is a name in Ollama's registry.

    Raises:
        InvalidRequest: it is no such name.
    """
    given = text.strip()
    if not given or len(given) > MAX_SOURCE_CHARS or not given.isprintable():
        raise _wrong(text)
    scheme, separator, rest = given.partition(":")
    if separator and scheme.lower() == "hf":
        return _hub(rest, text)
    if separator and scheme.lower() == "ollama":
        return _ollama(rest, text)
    for host in _HUB_HOSTS:
        if given.lower().startswith(f"{host}/"):
            return _hub(given[len(host) + 1 :], text)
    if "://" in given:
        return _from_url(given, text)
    if bare_is_ollama:
        return _ollama(given, text)
    raise _wrong(text)


def with_quant(source: Source, quant: str | None) -> Source:
    """The source with a quantisation that was given beside the name.

    Raises:
        InvalidRequest: the name says another one, or is of a kind that has none.
    """
    if quant is None:
        return source
    if not isinstance(source, HubSource):
        raise InvalidRequest(
            f"quant can be given for Hugging Face's repositories only, and {source.text[:200]} is none",
            param="quant",
        )
    if source.wanted is not None and source.wanted.casefold() != quant.casefold():
        raise InvalidRequest(f"The name says {source.wanted} and quant {quant[:100]!r}", param="quant")
    return HubSource(source.repo, _wanted(quant, quant, "quant"), source.revision)


def _hub(rest: str, text: str) -> HubSource:
    repo, separator, wanted = rest.partition(":")
    repo, at, revision = repo.partition("@")
    repo = repo.rstrip("/")
    if not _REPOSITORY.fullmatch(repo) or ".." in repo or "--" in repo:
        raise InvalidRequest(
            f"{text[:200]!r} names no repository: it must be hf.co/ORG/REPO, perhaps with :QUANT or :FILE",
            param="source",
        )
    if at and not _REVISION.fullmatch(revision):
        raise InvalidRequest(f"{revision[:100]!r} can be no branch, tag or commit", param="source")
    name = None if not separator or wanted.lower() == "latest" else _wanted(wanted, text, "source")
    return HubSource(repo, name, revision or "main")


def _wanted(wanted: str, text: str, param: str) -> str:
    if not _WANTED.fullmatch(wanted) or any(part in ("", ".", "..") for part in wanted.split("/")):
        raise InvalidRequest(
            f"{text[:200]!r}: {wanted[:100]!r} can be neither a quantisation, such as Q4_K_M, nor a file of a repository",
            param=param,
        )
    return wanted


def _ollama(rest: str, text: str) -> OllamaSource:
    found = _OLLAMA.fullmatch(rest)
    if found is None or ".." in rest:
        raise InvalidRequest(
            f"{text[:200]!r} names no model of Ollama's registry: it must be NAME or NAME:TAG, perhaps with NAMESPACE/ before",
            param="source",
        )
    return OllamaSource(found["namespace"] or "library", found["name"], found["tag"] or "latest")


def _from_url(given: str, text: str) -> Source:
    """A file's URL; that of a repository or of a file in it is as good as its name."""
    url = parse_url(given)
    path = [unquote(part) for part in url.path.split("/") if part]
    if url.host in _HUB_HOSTS and url.scheme == "https":
        match path:
            case [org, repo]:
                return _hub(f"{org}/{repo}", text)
            case [org, repo, "resolve" | "blob" | "raw", revision, *file] if file:
                return _hub(f"{org}/{repo}@{revision}:{'/'.join(file)}", text)
    file_name = path[-1] if path else ""
    if not file_name.lower().endswith(".gguf") or not _WANTED.fullmatch(file_name) or "/" in file_name:
        raise InvalidRequest(
            f"{url.without_query[:200]!r} names no model: a URL must end in the name of a .gguf file",
            param="source",
        )
    return FileSource(url, file_name)


def _wrong(text: str) -> InvalidRequest:
    return InvalidRequest(f"{text[:200]!r} names nothing to fetch: it must be {_FORMS}", param="source")
