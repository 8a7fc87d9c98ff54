"""Row D3 of the fault suite: one file, whole or not at all."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kolosal.downloads import part
from kolosal.downloads.fetch import TRIES, FetchReport, fetch
from kolosal.downloads.net import Reach
from kolosal.downloads.part import part_of
from kolosal.downloads.plan import PlannedFile
from kolosal.errors import DownloadFailed, Forbidden, NotFound, StorageFull
from tests.file_server import FileServer, ServedFile

pytestmark = pytest.mark.fault("D4")

DATA = random.Random(1).randbytes(3_000_000)  # noqa: S311 - no secret
HERE = Reach(private=True)


@pytest.fixture(scope="module")
def web() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def served(web: FileServer) -> ServedFile:
    """The file at `/m`, as it should be."""
    web.files["/m"] = ServedFile(DATA, etag='"one"')
    web.seen.clear()
    web.sent.clear()
    return web.files["/m"]


@pytest.fixture
def planned(web: FileServer, served: ServedFile, tmp_path: Path) -> PlannedFile:
    return PlannedFile(f"{web.url}/m", str(tmp_path / "models" / "m.gguf"), len(DATA), served.sha256)


def get(file: PlannedFile, report: FetchReport | None = None) -> bytes:
    fetch(file, HERE, None, report, pause=lambda _: None)
    return Path(file.path).read_bytes()


def left(file: PlannedFile) -> list[str]:
    return sorted(path.name for path in Path(file.path).parent.iterdir())


def test_a_file_is_fetched_verified_and_named(planned: PlannedFile) -> None:
    seen: list[int] = []
    assert get(planned, FetchReport(lambda done, _: seen.append(done))) == DATA
    assert left(planned) == ["m.gguf"]
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)


def test_what_is_there_is_not_fetched_again(planned: PlannedFile, web: FileServer) -> None:
    get(planned)
    web.seen.clear()
    get(planned)
    assert not web.seen


def test_a_connection_that_is_cut_at_every_piece_goes_on(
    planned: PlannedFile, served: ServedFile, web: FileServer
) -> None:
    served.cut_after = 700_000
    assert get(planned) == DATA
    ranges = [each.headers.get("range") for each in web.requests("/m")]
    assert ranges[0] is None
    assert len(ranges) >= 5
    assert all(ranges[1:])


def test_a_part_is_gone_on_with_and_digested_as_well(planned: PlannedFile, web: FileServer) -> None:
    path = part_of(Path(planned.path))
    path.parent.mkdir()
    path.write_bytes(DATA[:1_999_999])
    assert get(planned) == DATA
    assert web.requests("/m")[0].headers["range"] == "bytes=1999999-"
    assert web.sent["/m"] == len(DATA) - 1_999_999


def test_a_server_without_ranges_sends_it_again(planned: PlannedFile, served: ServedFile) -> None:
    served.knows_ranges = False
    part_of(Path(planned.path)).parent.mkdir()
    part_of(Path(planned.path)).write_bytes(b"x" * 1000)
    assert get(planned) == DATA


def test_a_part_that_is_longer_than_the_file_is_dropped(planned: PlannedFile) -> None:
    part_of(Path(planned.path)).parent.mkdir()
    part_of(Path(planned.path)).write_bytes(DATA + b"more")
    assert get(planned) == DATA


def test_a_wrong_digest_leaves_nothing_that_looks_like_the_file(
    planned: PlannedFile, served: ServedFile
) -> None:
    served.sent = DATA[:-1] + b"?"
    with pytest.raises(
        DownloadFailed, match=r"m is not what it should be: its digest is sha256:\w+, and sha256:\w+ was"
    ):
        get(planned)
    assert not Path(planned.path).exists()
    served.sent = None
    assert get(planned) == DATA


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1])
def test_a_wrong_length_is_no_file(planned: PlannedFile, served: ServedFile, length: int) -> None:
    served.said_length = length
    with pytest.raises(DownloadFailed, match=f"with {length} bytes, and it should have {len(DATA)}"):
        get(planned)
    assert not Path(planned.path).exists()


def test_a_server_that_ends_early_every_time_is_given_up(
    planned: PlannedFile, served: ServedFile, web: FileServer
) -> None:
    served.sent, served.said_length = b"", len(DATA)
    with pytest.raises(DownloadFailed, match="ended the answer early"):
        get(planned)
    assert len(web.requests("/m")) == TRIES


def test_a_busy_server_is_asked_again(planned: PlannedFile, served: ServedFile) -> None:
    served.statuses = [429, 503, 500]
    assert get(planned) == DATA


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, NotFound, "has no m"),
        (401, Forbidden, "does not let us have m"),
        (418, DownloadFailed, "answered HTTP 418 for m"),
    ],
)
def test_a_refusal_is_a_sentence(
    planned: PlannedFile, served: ServedFile, status: int, error: type[Exception], words: str
) -> None:
    served.statuses = [status]
    with pytest.raises(error, match=words):
        get(planned)


def test_a_file_without_a_digest_goes_on_only_while_it_is_the_same(
    planned: PlannedFile, served: ServedFile
) -> None:
    plain = replace(planned, sha256=None, etag='"one"')
    served.cut_after = 1_000_000
    assert get(plain) == DATA
    Path(plain.path).unlink()
    served.cut_after = None
    part_of(Path(plain.path)).write_bytes(b"of another version")
    Path(f"{part_of(Path(plain.path))}.etag").write_text('{"etag":"\\"older\\""}')
    assert get(plain) == DATA


def test_no_room_is_said_before_anything_is_fetched(
    planned: PlannedFile, web: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=part.SPARE_BYTES + len(DATA) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageFull, match=r"no room for m\.gguf in .*: it needs 0\.00 GB more"):
        get(planned)
    assert left(planned) in ([], ["m.gguf.part", "m.gguf.part.lock"])


def test_a_disk_that_fills_up_at_any_write_leaves_a_part_that_goes_on(
    planned: PlannedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        if written > 1_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        with pytest.raises(StorageFull):
            get(planned)
    assert not Path(planned.path).exists()
    assert get(planned) == DATA


def test_two_fetchers_of_one_file_do_not_mix(planned: PlannedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "LOCK_WAIT_S", 0.0)
    other = part.PartFile(Path(planned.path), None)
    with pytest.raises(DownloadFailed, match=r"Another process is fetching m\.gguf just now"):
        get(planned)
    other.close()
    assert get(planned) == DATA


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_the_place_of_a_part_is_not_written_through(planned: PlannedFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part_of(Path(planned.path)).parent.mkdir()
    part_of(Path(planned.path)).symlink_to(victim)
    with pytest.raises(OSError, match="regular file"):
        get(planned)
    assert victim.read_bytes() == b"precious"
