"""What model files say before they are loaded: the same as their workers later, and read once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import PoolingType

from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.models.cards import FILE_TYPES, ModelCard, read_card
from kolosal.models.file_cache import ModelFileCache
from kolosal.routes.common.known_models import KnownModel
from kolosal.routes.ollama.show import ModelDescription, describe_model, quantization
from tests.engines.worker.helpers import engine_config
from tests.fakes import FakeEngine
from tests.gguf_files import ARRAY, FLOAT32, LLAMA, STRING, UINT32, gguf
from tests.tiny_gguf import Architecture, write_tiny_embedder, write_tiny_gguf

LONG_TEMPLATE = "{# " + "x" * 9000 + " #}{% for m in messages %}<think></think>{{ m.content }}{% endfor %}"


def before_and_after(path: Path, **parameters: object) -> tuple[ModelDescription, ModelDescription]:
    """What is told of a model by its file alone, and by its worker alone."""
    engine = FakeEngine()
    engine.config = engine_config(str(path), n_ctx=256, **parameters)
    before = describe_model(KnownModel(engine.config, engine, None), read_card(path))
    backend = LlamaCppBackend(engine.config, lambda _: None)
    engine.info = backend.info
    backend.close()
    return before, describe_model(KnownModel(engine.config, engine, None))


def check_alike(before: ModelDescription, after: ModelDescription) -> None:
    assert before.details == after.details
    assert before.capabilities == after.capabilities
    shown = {key: before.metadata.get(key) for key in after.metadata}
    assert shown == after.metadata


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba"])
def test_a_file_says_what_its_worker_will(architecture: Architecture, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", architecture)
    before, after = before_and_after(tmp_path / "m.gguf")
    check_alike(before, after)
    assert before.family == architecture
    assert before.n_params > 10_000
    assert before.quantization == "F32"


@pytest.mark.parametrize("template", [LONG_TEMPLATE, "{{ messages[0].content }}"])
def test_the_chat_template_tells_what_the_model_can_do(template: str, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", chat_template=template)
    before, after = before_and_after(tmp_path / "m.gguf")
    check_alike(before, after)
    assert before.template == template
    assert before.thinks == ("<think>" in template)


def test_a_configured_template_wins(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", chat_template=LONG_TEMPLATE)
    before, after = before_and_after(tmp_path / "m.gguf", chat_template="{{ messages[0].content }}")
    check_alike(before, after)
    assert (before.template, before.thinks) == ("{{ messages[0].content }}", False)


def test_models_for_vectors_say_so(tmp_path: Path) -> None:
    write_tiny_embedder(tmp_path / "bert.gguf", "bert", PoolingType.CLS)
    write_tiny_embedder(tmp_path / "qwen3.gguf", "qwen3", PoolingType.LAST)
    for name, capabilities in (("bert", ["embedding"]), ("qwen3", ["completion", "tools"])):
        before, after = before_and_after(tmp_path / f"{name}.gguf")
        check_alike(before, after)
        assert before.capabilities == capabilities


@pytest.mark.model
def test_a_real_model_says_what_its_worker_will(smollm2: Path) -> None:
    before, after = before_and_after(smollm2)
    check_alike(before, after)
    assert (before.details["parameter_size"], before.quantization) == ("134.52M", "Q4_1")
    assert before.template.startswith("{% for message in messages %}")


def test_the_kinds_of_files_are_llamacpps() -> None:
    import llama_cpp.llama_cpp as native  # noqa: PLC0415 - slow, and for this only

    theirs = {kind: quantization(native.llama_ftype_name(kind).decode()) for kind in range(64)}
    assert {kind: name for kind, name in theirs.items() if name != "unknown"} == FILE_TYPES


@pytest.mark.parametrize(
    ("said", "name"), [(None, "F32"), (15, "Q4_K_M"), (15 + 1024, "Q4_K_M"), (999, "unknown")]
)
def test_a_file_says_its_kind_or_its_tensors_do(said: int | None, name: str, tmp_path: Path) -> None:
    metadata = {} if said is None else {"general.file_type": (UINT32, said)}
    (tmp_path / "m.gguf").write_bytes(gguf({**LLAMA, **metadata}))
    card = read_card(tmp_path / "m.gguf")
    assert card is not None
    assert card.facts.quantization == name


def test_long_arrays_are_shown_where_they_are_asked_for(tmp_path: Path) -> None:
    metadata = {
        "general.name": (STRING, "m"),
        "some.scales": (ARRAY, (FLOAT32, [0.5] * 6)),
        "some.numbers": (ARRAY, (UINT32, [1, 2])),
        "general.languages": (ARRAY, (STRING, ["en", "no"])),
    }
    (tmp_path / "m.gguf").write_bytes(gguf({**LLAMA, **metadata}))
    card = read_card(tmp_path / "m.gguf")
    assert card is not None
    brief, whole = card.model_info(verbose=False), card.model_info(verbose=True)
    assert (brief["some.scales"], whole["some.scales"]) == ([], (0.5,) * 6)
    assert brief["some.numbers"] == whole["some.numbers"] == (1, 2)
    assert brief["general.languages"] == ("en", "no")
    assert "general.name" not in brief
    assert brief["general.architecture"] == "llama"


class TestRemembering:
    @staticmethod
    def cards() -> tuple[ModelFileCache[ModelCard | None], list[Path]]:
        read: list[Path] = []

        async def reader(path: Path) -> ModelCard | None:
            read.append(path)
            return read_card(path)

        return ModelFileCache(reader, 64), read

    async def test_a_file_is_read_once_until_it_changes(self, tmp_path: Path) -> None:
        cards, read = self.cards()
        path = tmp_path / "m.gguf"
        write_tiny_gguf(path)
        first = await cards.of(path)
        assert first is not None
        assert await cards.of(path) == first
        write_tiny_gguf(path, "mamba")
        os.utime(path, ns=(1, 1))  # another time, also where the clock of the file system is coarse
        second = await cards.of(path)
        assert (second and second[1] and second[1].facts.architecture, len(read)) == ("mamba", 2)
        path.unlink()
        assert await cards.of(path) is None
        assert len(read) == 2

    async def test_a_damaged_file_is_remembered_too(self, tmp_path: Path) -> None:
        cards, read = self.cards()
        (tmp_path / "m.gguf").write_bytes(b"GGUF and so on")
        for _ in range(3):
            assert (await cards.of(tmp_path / "m.gguf") or ("", ""))[1] is None
        assert len(read) == 1

    async def test_only_so_many_are_kept(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").write_bytes(gguf())
        card = read_card(tmp_path / "m.gguf")
        assert card is not None
        read: list[Path] = []

        async def reader(path: Path) -> ModelCard:
            read.append(path)
            return replace(card)

        cards = ModelFileCache(reader, 64)
        paths = [tmp_path / f"{number}.gguf" for number in range(70)]
        for path in paths:
            path.touch()
            await cards.of(path)
        await cards.of(paths[-1])
        assert len(read) == 70
        await cards.of(paths[0])
        assert len(read) == 71
