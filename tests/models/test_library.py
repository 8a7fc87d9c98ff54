"""The models of folders: which files are one, what they are called, and what a damaged one says."""

from __future__ import annotations

from pathlib import Path

from kolosal.models.folders import PlainFolder
from kolosal.models.library import Library
from tests.gguf_files import LLAMA, UINT16, UINT32, Tensor, gguf

SPLIT = {**LLAMA, "split.count": (UINT16, 2)}


def write(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf({**LLAMA, "general.file_type": (UINT32, 15)}) if content is None else content)
    return path


async def scanned(*folders: Path) -> Library:
    library = Library([PlainFolder(folder) for folder in folders])
    await library.refresh()
    return library


def test_bytes_of_the_test_files_are_models(tmp_path: Path) -> None:
    assert write(tmp_path / "m.gguf").read_bytes().startswith(b"GGUF")


async def test_a_file_is_a_model_with_what_its_header_says(tmp_path: Path) -> None:
    file = write(tmp_path / "org" / "Tiny-Q4_K_M.gguf")
    [model] = (await scanned(tmp_path)).models
    assert (model.name, model.source, model.path, model.error) == ("org/Tiny-Q4_K_M", "folder", file, None)
    assert model.size == file.stat().st_size
    assert model.facts is not None
    assert (model.facts.architecture, model.facts.quantization) == ("llama", "Q4_K_M")
    assert model.facts.capabilities == ("completion", "tools")


async def test_parts_are_one_model_and_a_projector_belongs_to_it(tmp_path: Path) -> None:
    for number in (1, 2):
        said = {**SPLIT, "split.no": (UINT16, number - 1), "split.tensors.count": (UINT32, 2)}
        content = gguf(said, [Tensor(f"blk.{number}.ffn_up.weight")])
        write(tmp_path / f"big-0000{number}-of-00002.gguf", content)
    write(tmp_path / "mmproj-big.gguf")
    [model] = (await scanned(tmp_path)).models
    assert (model.name, model.error) == ("big", None)
    assert [file.path.name for file in model.files] == ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]
    assert model.projector is not None
    assert model.projector.path.name == "mmproj-big.gguf"


async def test_a_damaged_file_is_a_model_with_its_error(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.gguf").read_bytes()
    write(tmp_path / "cut.gguf", whole[: len(whole) // 2])
    write(tmp_path / "text.gguf", b"not a model")
    write(tmp_path / "part-00001-of-00002.gguf", gguf({**SPLIT, "split.no": (UINT16, 0)}))
    models = {model.name: model for model in (await scanned(tmp_path)).models}
    assert set(models) == {"whole", "cut", "text", "part"}
    assert models["whole"].error is None
    assert "does not begin with 'GGUF'" in (models["text"].error or "")
    assert "ends" in (models["cut"].error or "")
    assert "Part 2 of 2 is missing" in (models["part"].error or "")
    assert models["cut"].facts is None


async def test_what_changes_on_the_disk_is_seen(tmp_path: Path) -> None:
    library = await scanned(tmp_path)
    assert await library.look_up("late") is None
    file = write(tmp_path / "late.gguf", b"GGUF")
    await library.refresh()
    late = library.find("late")
    assert late is not None
    assert late.error
    write(file)
    await library.refresh()
    late = library.find("late")
    assert late is not None
    assert late.error is None
    file.unlink()
    await library.refresh()
    assert library.find("late") is None


async def test_a_folder_that_is_missing_holds_nothing_and_one_that_is_a_file_says_so(tmp_path: Path) -> None:
    write(tmp_path / "here" / "m.gguf")
    odd = write(tmp_path / "file")
    library = await scanned(tmp_path / "gone", odd, tmp_path / "here")
    assert [model.name for model in library.models] == ["m"]
    assert list(library.problems) == [str(odd)]


async def test_a_loop_of_folders_ends(tmp_path: Path) -> None:
    write(tmp_path / "a" / "m.gguf")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert [model.name for model in (await scanned(tmp_path)).models] == ["a/m"]


async def test_two_models_of_one_name_are_both_there(tmp_path: Path) -> None:
    write(tmp_path / "one" / "m.gguf")
    write(tmp_path / "two" / "M.gguf")
    library = await scanned(tmp_path / "one", tmp_path / "two")
    assert [model.name for model in library.models] == ["m", "M@folder"]
    assert (found := library.find("m:latest")) is not None
    assert found.path.parent.name == "one"
