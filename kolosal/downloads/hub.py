"""Hugging Face's hub, through huggingface_hub: what a repository holds, its cache's layout, tokens, and its errors in our words.

The bytes are `fetch`'s: huggingface_hub writes each download to a file of its own name and drops it when it is cut off, so nothing
it began could go on. When the content is in its cache, `hf_hub_download` fetches nothing and gives it its name there.
huggingface_hub is imported with this module, in the fetcher or in `kolosal search` only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import (
    HfApi,
    ModelInfo,
    close_session,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import are_symlinks_supported, repo_folder_name
from huggingface_hub.utils._headers import build_hf_headers

from kolosal.downloads.address import Url, parse_url
from kolosal.downloads.choice import RepositoryFile, Room, Variant, choose, projector, variants
from kolosal.downloads.messages import FoundRepository, Offer
from kolosal.downloads.net import Reach, Secret
from kolosal.downloads.plan import DownloadPlan, HubLink, PlannedFile
from kolosal.downloads.source import HubSource
from kolosal.errors import DownloadFailed, Forbidden, InvalidRequest, NotFound
from kolosal.files.atomic import write_file
from kolosal.paths import path_below

ANSWER_S = 8.0
"""Until the hub has answered a question."""

MAX_OFFERS = 100
"""Models of one repository that are told of."""

_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def endpoint() -> Url:
    """The hub's address: `HF_ENDPOINT`, or its own."""
    return parse_url(constants.ENDPOINT)


def reach() -> Reach:
    """What may be asked for files of the hub: the operator chose it, and with it where it leads."""
    return Reach.of(endpoint(), configured=True)


def secret() -> Secret | None:
    """The token, for the hub alone."""
    value = build_hf_headers().get("authorization")
    return None if value is None else Secret(endpoint().origin, "Authorization", value)


def plan_hub(source: HubSource, room: Room) -> tuple[DownloadPlan, tuple[Offer, ...]]:
    """What is to be fetched of a repository, and all that it has.

    Raises:
        NotFound: there is no such repository, revision, file or quantisation.
        Forbidden: it is gated.
        DownloadFailed: the hub does not answer, or says what cannot be.
    """
    with _hub_errors(source):
        api = HfApi()
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True, timeout=ANSWER_S)
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit):
        raise DownloadFailed(f"{endpoint().authority} does not answer as Hugging Face's hub does")
    files = [
        RepositoryFile(
            each.rfilename,
            each.size or 0,
            each.lfs.sha256 if each.lfs else None,
            (each.lfs.sha256 if each.lfs else each.blob_id) or "",
        )
        for each in info.siblings or ()
    ]
    found = variants(files)
    chosen = choose(f"hf.co/{source.repo}", found, source.wanted, room)
    sight = projector(files)
    wanted = (*chosen.files, *(() if sight is None else (sight,)))
    if not all(_ETAG.fullmatch(file.etag) for file in wanted):
        raise DownloadFailed(f"{endpoint().authority} does not say what the content of {source.repo} is")
    first = hf_hub_url(source.repo, wanted[0].name, revision=commit)
    with _hub_errors(source):
        get_hf_file_metadata(first, timeout=ANSWER_S)  # tells whether we may have it
    return _planned(source, commit, chosen.quant, wanted), _offers(source, found, room)


def _offers(source: HubSource, found: Sequence[Variant], room: Room) -> tuple[Offer, ...]:
    quants = Counter(each.quant for each in found)
    offers = []
    for each in found[:MAX_OFFERS]:
        # a quantisation that several have names none of them
        word = each.quant if quants[each.quant] == 1 and each.quant else each.files[0].name
        name = HubSource(source.repo, word, source.revision).text
        offers.append(Offer(name, word, each.size, room.is_comfortable(each.size), room.holds(each.size)))
    return tuple(offers)


def _planned(source: HubSource, commit: str, quant: str, wanted: tuple[RepositoryFile, ...]) -> DownloadPlan:
    cache = Path(constants.HF_HUB_CACHE).absolute()
    folder = cache / repo_folder_name(repo_id=source.repo, repo_type="model")
    links = are_symlinks_supported(cache)
    snapshot = folder / "snapshots" / commit
    model, *_ = wanted
    planned = tuple(
        PlannedFile(
            hf_hub_url(source.repo, file.name, revision=commit),
            str(folder / "blobs" / file.etag if links else path_below(snapshot, file.name)),
            file.size,
            file.sha256,
        )
        for file in wanted
    )
    named = source.wanted if source.wanted and source.wanted.lower().endswith(".gguf") else quant
    tag = named or model.name
    return DownloadPlan(
        source=HubSource(source.repo, tag, source.revision).text,
        kind="hub",
        name=f"{source.repo}:{tag}",
        quant=quant,
        files=planned,
        model_path=str(path_below(snapshot, model.name)),
        hub=HubLink(source.repo, source.revision, commit, str(cache), tuple(file.name for file in wanted)),
    )


def name_files(link: HubLink) -> None:
    """Give fetched content its names in the cache.

    Raises:
        DownloadFailed: the hub does not answer.
    """
    with _hub_errors(HubSource(link.repo)):
        for name in link.names:
            hf_hub_download(
                link.repo, name, revision=link.commit, cache_dir=link.cache, etag_timeout=ANSWER_S
            )
    if link.revision != link.commit:
        folder = Path(link.cache) / repo_folder_name(repo_id=link.repo, repo_type="model")
        write_file(path_below(folder / "refs", link.revision), link.commit.encode())


def search_hub(words: str, limit: int) -> tuple[FoundRepository, ...]:
    """Repositories with GGUF models, those that are fetched most first.

    Raises:
        DownloadFailed: the hub does not answer.
    """
    try:
        with _hub_errors(None):
            found = HfApi().list_models(search=words, filter="gguf", sort="downloads", limit=limit)
            return tuple(map(_found, found))
    finally:
        close_session()


def _found(repository: ModelInfo) -> FoundRepository:
    modified = repository.last_modified
    return FoundRepository(
        f"hf.co/{repository.id}",
        repository.downloads or 0,
        repository.likes or 0,
        bool(repository.gated),
        None if modified is None else modified.isoformat(),
    )


@contextmanager
def _hub_errors(source: HubSource | None) -> Iterator[None]:
    """Its errors as ours; the only place that knows them."""
    repo = "" if source is None else source.repo
    where = endpoint().authority
    token = "" if build_hf_headers().get("authorization") else ", with a token in HF_TOKEN"
    try:
        yield
    except GatedRepoError as exc:
        raise Forbidden(
            f"{repo} is gated: ask for access at {endpoint().text.rstrip('/')}/{repo}{token}", code="gated"
        ) from exc
    except RevisionNotFoundError as exc:
        raise NotFound(
            f"hf.co/{repo} has no revision {source.revision if source else ''!r}", param="source"
        ) from exc
    except RepositoryNotFoundError as exc:
        raise NotFound(
            f"There is no repository {repo} at {where}, or it is private{token and ' and needs a token in HF_TOKEN'}",
            param="source",
            code="repository_not_found",
        ) from exc
    except RemoteEntryNotFoundError as exc:
        raise NotFound(f"A file of hf.co/{repo} is gone from {where}", param="source") from exc
    except HFValidationError as exc:
        raise InvalidRequest(f"{repo!r} can be no repository", param="source") from exc
    except HfHubHTTPError as exc:
        status = exc.response.status_code
        busy = " (too many requests: try again later, or with a token in HF_TOKEN)" if status == 429 else ""
        raise DownloadFailed(f"{where} answered HTTP {status}{busy}") from exc
    except httpx2.TimeoutException as exc:
        raise DownloadFailed(f"{where} did not answer within {ANSWER_S:g} seconds") from exc
    except httpx2.HTTPError as exc:
        raise DownloadFailed(f"{where} cannot be reached: {exc}") from exc
