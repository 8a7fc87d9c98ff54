"""Headers of model files: right ones are read, wrong ones are one sentence, and none costs more than a moment."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kolosal.engines.memory.gguf import read_header
from kolosal.engines.memory.model_files import read_shape
from kolosal.engines.parameters import LoadingParameters
from kolosal.errors import ModelFileError
from kolosal.paths import engine_config
from tests.gguf_files import (
    ARRAY,
    BOOL,
    LLAMA,
    STRING,
    TENSORS,
    UINT16,
    UINT32,
    Tensor,
    Typed,
    corrupt,
    gguf,
    text,
    weight_bytes,
)

CORRUPT = dict(corrupt())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def refusal(file: Path) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        read_shape(file)
    assert caught.value.param == "model_path"
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message
    return caught.value


def test_a_header_is_read(file: Path) -> None:
    file.write_bytes(gguf())
    header = read_header(file)

    assert header.metadata["llama.block_count"] == 2
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["tokenizer.ggml.scores"] == (0.0,) * 50
    assert "tokenizer.ggml.tokens" not in header.metadata
    assert header.lengths["tokenizer.ggml.tokens"] == 50
    assert [(t.name, t.n_values, t.n_bytes, t.offset) for t in header.tensors] == [
        ("token_embd.weight", 3200, 12_800, 0),
        ("blk.0.attn_q.weight", 4096, 16_384, 12_800),
        ("blk.1.attn_q.weight", 4096, 8192, 29_184),
        ("output.weight", 3200, 12_800, 37_376),
    ]


def test_version_2_and_another_alignment_are_read(file: Path) -> None:
    metadata: dict[str, Typed] = {**LLAMA, "general.alignment": (UINT32, 64)}
    file.write_bytes(gguf(metadata, version=2, alignment=64))
    assert len(read_header(file).tensors) == 4


def test_long_values_are_skipped(file: Path) -> None:
    metadata: dict[str, Typed] = {
        "tokenizer.chat_template": (STRING, "x" * 1_000_000),
        "tokenizer.ggml.token_type": (ARRAY, (UINT32, [1] * 200_000)),
        "tokenizer.ggml.merges": (ARRAY, (STRING, ["a", "b" * 600_000, "c"])),
        **LLAMA,
    }
    file.write_bytes(gguf(metadata))
    header = read_header(file)
    assert header.metadata["llama.block_count"] == 2
    assert {"tokenizer.chat_template", "tokenizer.ggml.token_type"}.isdisjoint(header.metadata)
    assert header.lengths["tokenizer.ggml.merges"] == 3


@pytest.mark.fault("G2")
def test_a_corrupt_file_is_refused_in_one_sentence(file: Path) -> None:
    assert len(CORRUPT) >= 200
    for what, data in CORRUPT.items():
        file.write_bytes(data)
        try:
            refusal(file)
        except BaseException as exc:
            exc.add_note(f"the file: {what}")
            raise


def test_a_big_endian_file_is_named_as_such(file: Path) -> None:
    file.write_bytes(CORRUPT["big-endian"])
    assert "big-endian" in refusal(file).message


@pytest.mark.fault("G1")
def test_a_file_that_was_cut_off_says_where(file: Path) -> None:
    data = gguf()
    file.write_bytes(data[:-1])
    assert f"is {len(data) - 1} bytes long" in refusal(file).message


def test_a_file_that_is_gone_is_a_model_file_error(file: Path) -> None:
    assert "cannot be read" in refusal(file).message


@pytest.mark.fault("G2")
@pytest.mark.parametrize("what", ["keys", "tensors", "strings", "one long string", "names"])
def test_the_largest_header_costs_little(file: Path, what: str) -> None:
    architecture = text("general.architecture") + struct.pack("<I", STRING) + text("llama")
    match what:
        case "keys":
            keys = b"".join(text(f"k{n}") + struct.pack("<IB", BOOL, 1) for n in range(65_535))
            data = b"GGUF" + struct.pack("<IQQ", 3, 0, 65_536) + architecture + keys
        case "tensors":
            rows = (text(f"t{n}") + struct.pack("<IQIQ", 1, 8, 0, 32 * n) for n in range(65_536))
            data = b"GGUF" + struct.pack("<IQQ", 3, 65_536, 1) + architecture + b"".join(rows)
            data += b"\0" * (-len(data) % 32 + 32 * 65_536)
        case "strings":
            strings = struct.pack("<IQ", STRING, 1_000_000) + text("abc") * 1_000_000
            data = (
                b"GGUF"
                + struct.pack("<IQQ", 3, 0, 2)
                + architecture
                + text("a")
                + struct.pack("<I", ARRAY)
                + strings
            )
        case "one long string":
            data = (
                b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + architecture + text("a") + struct.pack("<I", STRING)
            )
            data += text(b"x" * 50_000_000)
        case _:
            keys = b"".join(text(f"{n:060000}") + struct.pack("<IB", BOOL, 1) for n in range(1000))
            data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1001) + architecture + keys
    file.write_bytes(data)
    del data
    tracemalloc.start()
    try:
        try:
            read_header(file)
        except ModelFileError:
            assert what == "names"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


@pytest.mark.fault("G2")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_raise_nothing_else(file: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(gguf())
    for position, byte in changes:
        data[position] = byte
    file.write_bytes(data)
    try:
        read_shape(file)
    except ModelFileError as exc:
        message = exc.message
    else:
        message = ""
    assert len(message) < 400


@pytest.mark.fault("G2")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_raise_nothing_else(file: Path, data: bytes) -> None:
    file.write_bytes(b"GGUF\x03\0\0\0" + data)
    with pytest.raises(ModelFileError):
        read_shape(file)


# --- models in parts ---


def write_parts(folder: Path, changes: dict[str, object] | None = None) -> Path:
    """A model in three parts, each with one tensor."""
    count, changes = 3, changes or {}
    for number in range(count):
        metadata: dict[str, Typed] = {**LLAMA} if number == 0 else {"general.architecture": (STRING, "llama")}
        metadata["split.no"] = (UINT16, changes.get("no", number))
        metadata["split.count"] = (UINT16, count)
        metadata["split.tensors.count"] = (UINT32, changes.get("total", count))
        tensors = [Tensor(str(changes.get("name", f"blk.{number}.x")), (64, 64))]
        (folder / f"m-{number + 1:05}-of-{count:05}.gguf").write_bytes(gguf(metadata, tensors))
    return folder / f"m-00001-of-{count:05}.gguf"


def test_all_parts_of_a_model_count(tmp_path: Path) -> None:
    shape = read_shape(write_parts(tmp_path))
    assert weight_bytes(shape) == 3 * 64 * 64 * 4


@pytest.mark.fault("A1")
@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_a_part_that_leads_out_is_refused_in_the_words_of_all_that_do(tmp_path: Path) -> None:
    inside, outside = tmp_path / "models", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    first = write_parts(inside)
    second = inside / "m-00002-of-00003.gguf"
    second.rename(outside / second.name)
    refused = []
    for target in (outside / second.name, outside / "no-such.gguf"):
        second.symlink_to(target)
        with pytest.raises(ModelFileError) as caught:
            engine_config("a", str(first), LoadingParameters(), roots=(inside,))
        refused.append((caught.value.code, caught.value.message))
        second.unlink()
    assert refused[0] == refused[1]
    assert refused[0][0] == "model_path_access_denied"
    second.symlink_to(outside / second.name)
    engine_config("a", str(first), LoadingParameters(), roots=(inside, outside))
    assert weight_bytes(read_shape(first)) == 3 * 64 * 64 * 4


@pytest.mark.fault("G1")
def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    error = refusal(first)
    assert error.code == "model_file_not_found"
    assert "Part 2 of 3 is missing: there is no file 'm-00002-of-00003.gguf'" in error.message


@pytest.mark.fault("G1")
def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    part = tmp_path / "m-00003-of-00003.gguf"
    part.write_bytes(part.read_bytes()[:-100])
    assert "'m-00003-of-00003.gguf' is " in refusal(first).message


@pytest.mark.parametrize("changes", [{"no": 0}, {"total": 4}, {"name": "blk.0.x"}])
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    refusal(write_parts(tmp_path, changes))


def test_a_first_part_of_another_name_is_refused(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    renamed = first.rename(tmp_path / "model.gguf")
    assert "-00001-of-00003.gguf" in refusal(renamed).message


def test_a_model_in_one_part_may_say_so(file: Path) -> None:
    file.write_bytes(gguf({**LLAMA, "split.count": (UINT16, 1), "split.no": (UINT16, 0)}, TENSORS))
    assert read_shape(file).n_vocab == 50
