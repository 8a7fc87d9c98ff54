"""Downloads: begun, paused, cancelled, kept over restarts. Real fetchers, against a registry and a hub on loopback."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from kolosal.config.downloads import DownloadSettings
from kolosal.downloads.download import Download, DownloadStatus, EngineWish
from kolosal.downloads.download_file import DownloadFile
from kolosal.downloads.jobs import Downloads
from kolosal.downloads.process import FetcherCommand, fetcher_environment
from kolosal.errors import Conflict, DownloadFailed, Forbidden, InvalidRequest, LoadFailed, NotFound
from tests.fake_hub import FakeHub
from tests.fake_registry import FakeRegistry
from tests.file_server import ServedFile

MODEL = b"GGUF" + random.Random(2).randbytes(2_000_000)  # noqa: S311 - no secret


@pytest.fixture(scope="module")
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        server.add("org/m-GGUF", **{"m-Q4_K_M": MODEL, "m-Q8_0": MODEL + b"8", "mmproj-m-F16": b"GGUFeyes"})
        yield server


@pytest.fixture
async def start(
    tmp_path: Path, registry: FakeRegistry, hub: FakeHub
) -> AsyncIterator[Callable[..., Downloads]]:
    """Makes downloads in the same folders, as often as a daemon starts; they are closed in the end."""
    made: list[Downloads] = []

    def downloads(**settings: object) -> Downloads:
        known = {"ollama_registry": registry.url, **settings}
        environment = fetcher_environment(os.environ) | {
            "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "HF_TOKEN": "",
        }  # fmt: skip
        made.append(
            Downloads(
                DownloadSettings.model_validate(known),
                tmp_path / "models",
                FetcherCommand(environment),
                kept_in=DownloadFile(tmp_path / "state"),
            )
        )
        return made[-1]

    yield downloads
    for each in made:
        await each.close()
    for server in (registry, hub):
        await asyncio.to_thread(server.cdn.settle)


async def until(download: Download, *statuses: DownloadStatus) -> Download:
    while download.status not in statuses:
        await download.changed.wait()
    return download


async def completed(downloads: Downloads, source: str, engine: EngineWish | None = None) -> Download:
    download = downloads.begin(await downloads.plan(source), engine)
    return await until(download, DownloadStatus.COMPLETED, DownloadStatus.FAILED)


async def begun(downloads: Downloads, source: str) -> Download:
    """A download of which something is there."""
    download = downloads.begin(await downloads.plan(source))
    while not any(each and each.completed for each in download.progress):
        await download.changed.wait()
    return download


def slow(registry: FakeRegistry, name: str) -> ServedFile:
    """A model of that name whose server takes its time."""
    return registry.add(name, "latest", ServedFile(MODEL, bytes_per_s=400_000))


def content(download: Download) -> bytes | None:
    """What is loaded, where it is there."""
    path = Path(download.plan.model_path)
    return path.read_bytes() if path.exists() else None


def names_beside(download: Download) -> list[str]:
    """The files of the folder that its model is in."""
    return sorted(path.name for path in Path(download.plan.model_path).parent.iterdir())


def part_size(download: Download) -> int:
    """Of the first file."""
    path = Path(download.plan.files[0].path + ".part")
    return path.stat().st_size if path.exists() else 0


def files_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def test_a_model_of_the_hub_is_in_its_cache(start: Callable[..., Downloads], tmp_path: Path) -> None:
    downloads = start()
    download = await completed(downloads, "hf.co/org/m-GGUF:q4_k_m")
    assert (download.status, download.id, download.completed_bytes) == (
        "completed",
        "org/m-GGUF:Q4_K_M",
        len(MODEL) + 8,
    )
    snapshot = Path(download.plan.model_path).parent
    assert snapshot.is_relative_to(tmp_path / "hf" / "hub" / "models--org--m-GGUF" / "snapshots")
    assert names_beside(download) == ["m-Q4_K_M.gguf", "mmproj-m-F16.gguf"]
    assert content(download) == MODEL


async def test_the_hub_is_searched_and_all_that_a_repository_has_is_offered(
    start: Callable[..., Downloads],
) -> None:
    downloads = start()
    found = await downloads.search("m-gguf", 5)
    assert [each.name for each in found] == ["hf.co/org/m-GGUF"]
    planned = await downloads.plan(found[0].name)
    assert [(each.source, each.quant, each.size) for each in planned.offers] == [
        ("hf.co/org/m-GGUF:Q4_K_M", "Q4_K_M", len(MODEL)),
        ("hf.co/org/m-GGUF:Q8_0", "Q8_0", len(MODEL) + 1),
    ]
    assert all(each.comfortable and each.loadable for each in planned.offers)
    with pytest.raises(Forbidden):
        await start(offline=True).search("m-gguf", 5)


async def test_a_model_of_ollamas_registry_is_laid_out_as_in_its_store(
    start: Callable[..., Downloads], registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.add("me/tiny", "3b", MODEL, system="You are tiny.")
    download = await completed(start(), "ollama:me/tiny:3b")
    assert (download.status, download.id) == ("completed", "me/tiny:3b")
    store = tmp_path / "models" / "ollama"
    assert "3b" in files_below(store / "manifests/registry.ollama.ai/me/tiny")
    assert content(download) == MODEL
    assert Path(download.plan.model_path).is_relative_to(store / "blobs")


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("hf.co/org/m-GGUF:Q5_K_M", NotFound, "hf.co/org/m-GGUF has no Q5_K_M; it has Q4_K_M, Q8_0"),
        ("hf.co/org/none", NotFound, "There is no repository org/none at"),
        ("ollama:none", NotFound, "has no model none:latest"),
        ("https://127.0.0.1/m.gguf", InvalidRequest, "is in a private network"),
        ("nothing", InvalidRequest, "names nothing to fetch"),
    ],
)
async def test_what_cannot_be_fetched_is_refused_in_a_sentence(
    start: Callable[..., Downloads], source: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await start().plan(source)


async def test_a_gated_repository_says_where_to_ask(start: Callable[..., Downloads], hub: FakeHub) -> None:
    hub.add("org/gated", **{"m-Q4_0": MODEL}).gated = True
    with pytest.raises(
        Forbidden,
        match=rf"org/gated is gated: ask for access at {hub.url}/org/gated, with a token in HF_TOKEN",
    ):
        await start().plan("hf.co/org/gated")


async def test_a_hub_that_is_away_is_a_sentence(start: Callable[..., Downloads], hub: FakeHub) -> None:
    hub.status = 503
    try:
        with pytest.raises(DownloadFailed, match="answered HTTP 503"):
            await start().plan("hf.co/org/m-GGUF")
    finally:
        hub.status = None


async def test_offline_refuses_all(start: Callable[..., Downloads]) -> None:
    with pytest.raises(Forbidden, match=r"downloads\.offline"):
        await start(offline=True).plan("hf.co/org/m-GGUF")


async def test_paused_it_keeps_its_part_and_resumed_it_goes_on(
    start: Callable[..., Downloads], registry: FakeRegistry, tmp_path: Path
) -> None:
    served = slow(registry, "paused")
    downloads = start()
    download = await begun(downloads, "ollama:paused")
    assert (await downloads.pause("paused:latest")).status is DownloadStatus.PAUSED
    there = part_size(download)
    assert there > 0
    with pytest.raises(Conflict, match="cannot be paused: it is paused"):
        await downloads.pause("paused:latest")
    served.bytes_per_s = None
    downloads.resume("paused:latest")
    await until(download, DownloadStatus.COMPLETED)
    blob = f"/blobs/{served.sha256}"
    assert registry.cdn.requests(blob)[-1].headers["range"] == f"bytes={there}-"
    assert not part_size(download)


async def test_cancelled_it_leaves_nothing(
    start: Callable[..., Downloads], registry: FakeRegistry, tmp_path: Path
) -> None:
    slow(registry, "cancelled")
    downloads = start()
    download = await begun(downloads, "ollama:cancelled")
    await downloads.cancel(download.id)
    assert download.status is DownloadStatus.CANCELLED
    assert not [name for name in files_below(tmp_path / "models") if ".part" in name]
    assert content(download) is None
    await downloads.remove(download.id)
    with pytest.raises(NotFound, match="No download found for model ID: cancelled:latest"):
        downloads.get(download.id)


async def test_the_same_again_is_the_same_download(
    start: Callable[..., Downloads], registry: FakeRegistry
) -> None:
    slow(registry, "twice")
    downloads = start()
    download = await begun(downloads, "ollama:twice")
    assert downloads.begin(await downloads.plan("ollama:twice:latest")) is download
    await downloads.cancel_all()


async def test_a_stopped_daemon_goes_on_after_its_next_start(
    start: Callable[..., Downloads], registry: FakeRegistry
) -> None:
    served = slow(registry, "kept")
    first = start()
    await first.restore()
    download = await begun(first, "ollama:kept")
    await first.close()
    served.bytes_per_s = None
    second = start()
    await second.restore()
    again = second.get(download.id)
    await until(again, DownloadStatus.COMPLETED)
    assert content(again) == MODEL
    assert again.started_ms == download.started_ms


async def test_more_than_are_allowed_wait_for_their_turn(
    start: Callable[..., Downloads], registry: FakeRegistry
) -> None:
    served = slow(registry, "first")
    registry.add("second", "latest", b"GGUF" + b"2" * 1000)
    downloads = start(parallel=1)
    first = await begun(downloads, "ollama:first")
    second = downloads.begin(await downloads.plan("ollama:second"))
    await asyncio.sleep(0)
    assert (second.status, second.queued) == ("downloading", True)
    served.bytes_per_s = None
    await downloads.cancel(first.id)
    await until(second, DownloadStatus.COMPLETED)


async def test_what_arrives_is_handed_on_and_a_failure_there_is_its_own(
    start: Callable[..., Downloads], registry: FakeRegistry
) -> None:
    registry.add("engine", "latest", MODEL)
    downloads, seen = start(), []

    async def arrived(download: Download) -> None:
        seen.append((download.status, download.engine))
        raise LoadFailed("it cannot be loaded")

    downloads.on_arrival = arrived
    wish = EngineWish("mine")
    download = await completed(downloads, "ollama:engine", wish)
    assert seen == [(DownloadStatus.CREATING_ENGINE, wish)]
    assert (download.id, download.status, download.error) == ("mine", "failed", "it cannot be loaded")


async def test_a_model_larger_than_the_machine_is_refused_unless_forced(
    start: Callable[..., Downloads], registry: FakeRegistry
) -> None:
    huge = ServedFile(b"GGUF")
    registry.add("huge", "latest", huge)
    name = "/v2/library/huge/manifests/latest"
    registry.manifests[name] = registry.manifests[name].replace(b'"size": 4}', b'"size": 40000000000000}')
    downloads = start()
    planned = await downloads.plan("ollama:huge")
    with pytest.raises(
        InvalidRequest, match=r"ollama:huge:latest has 40000\.0 GB, more than this machine has memory for"
    ):
        downloads.begin(planned)
    assert not downloads.list()
