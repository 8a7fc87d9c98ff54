"""Folders of Hugging Face models and their options, as the daemon looks at them: without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kolosal.backends.transformers.folder import check_folder, folder_estimate
from kolosal.backends.transformers.options import TransformersOptions, options_of
from kolosal.engines.memory.machine import Gpu, MachineMemory
from kolosal.engines.parameters import FittedParameters
from kolosal.errors import InvalidRequest, ModelFileError

HOST = MachineMemory(1 << 40, 1 << 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of 1000 weights of 2 bytes, whose token takes 2 * 2 * 2 * 8 * 2 = 128 bytes of cache."""
    config = {
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "dtype": "bfloat16",
        "max_position_embeddings": 100,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    header = {
        "a": {"dtype": "BF16", "shape": [10, 100], "data_offsets": [0, 2000]},
        "__metadata__": {"format": "pt"},
    }
    write_weights(tmp_path, json.dumps(header).encode())
    return tmp_path


def write_weights(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def refusal(folder: Path) -> str | None:
    """The code of the error, if any."""
    with pytest.raises(ModelFileError) as caught:
        check_folder(folder, lambda _file: None)
    return caught.value.code


def test_a_folder_must_hold_a_model_that_runs_no_code(folder: Path) -> None:
    seen: list[str] = []
    check_folder(folder, lambda file: seen.append(file.name))
    assert seen == ["config.json", "model.safetensors"]

    assert refusal(folder / "config.json") == "invalid_model_path_type"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(folder) == "model_file_not_found"
    (folder / "config.json").unlink()
    assert refusal(folder) == "model_file_not_found"


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ({"weight_map": {"a": "model.safetensors"}}, None),
        ({"weight_map": {"a": "model.safetensors", "b": "../elsewhere.safetensors"}}, "model_file_not_found"),
        ({"weight_map": ["a"]}, "invalid_model_format"),
        ([], "invalid_model_format"),
    ],
)
def test_parts_are_in_the_folder(folder: Path, index: object, code: str | None) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if code is None:
        check_folder(folder, lambda _file: None)
    else:
        assert refusal(folder) == code


@pytest.mark.parametrize(
    ("options", "weights", "cache"),
    [
        (TransformersOptions(), 2000, 128),
        (TransformersOptions(dtype="float32"), 4000, 256),
        (TransformersOptions(quantization="4bit"), 600, 128),
    ],
)
def test_memory_is_that_of_weights_and_cache(
    folder: Path, options: TransformersOptions, weights: int, cache: int
) -> None:
    parameters = FittedParameters(n_ctx=10, n_parallel=3)
    on_host = folder_estimate(folder, parameters, options, HOST)
    assert (on_host.host.weights, on_host.host.kv_cache, on_host.gpus) == (weights, 30 * cache, {})

    two = MachineMemory(1 << 40, 1 << 40, (Gpu(0, "a", 1, 1), Gpu(1, "b", 1, 1)))
    on_gpu = folder_estimate(folder, parameters, options, two)
    assert (on_gpu.host.weights, on_gpu.gpus[0].weights) == (0, weights)


def test_a_context_of_0_is_the_models_own(folder: Path) -> None:
    assert folder_estimate(folder, FittedParameters(n_ctx=0), TransformersOptions(), HOST).cells == 400


@pytest.mark.parametrize("header", [b"", b"[]", b'{"a": 1}', b"{" * 50])
def test_weights_that_make_no_sense_are_refused(folder: Path, header: bytes) -> None:
    write_weights(folder, header)
    with pytest.raises(ModelFileError, match=r"model.safetensors.*no safetensors file"):
        folder_estimate(folder, FittedParameters(), TransformersOptions(), HOST)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"devise": "cpu"},
            "backend_options.devise is none of the backend 'transformers', which has device, dtype,",
        ),
        ({"device": "tpu"}, "backend_options.device is not valid"),
        ({"dtype": "int3"}, "backend_options.dtype is not valid"),
        ({"trust_remote_code": 1}, "backend_options.trust_remote_code is not valid"),
    ],
)
def test_options_are_refused_by_name(given: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        options_of(given)  # type: ignore[arg-type]
