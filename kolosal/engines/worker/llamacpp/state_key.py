"""What a saved state depends on: the weights, the parameters that change cells, and llama.cpp's format."""

from __future__ import annotations

import glob
import hashlib
from importlib.metadata import version
from pathlib import Path

from kolosal.engines.memory.model_files import PART_NAME
from kolosal.engines.parameters import FittedConfig
from kolosal.engines.worker.llamacpp.load import LoadedModel, read_metadata
from kolosal.engines.worker.llamacpp.native import native
from kolosal.files.regular import open_regular

_SAMPLES, _SAMPLE_BYTES = 64, 64 * 1024
"""So many pieces of each file are hashed, evenly spread: the header and some of most tensors, in some milliseconds."""


def state_key(config: FittedConfig, loaded: LoadedModel) -> bytes:
    """Equal for engines that can use each other's states, and for no others.

    Raises:
        OSError: a model file cannot be read.
    """
    parameters, info = config.parameters, loaded.info
    trained = read_metadata(loaded.model)(f"{info.architecture}.rope.scaling.original_context_length")
    facts = (
        version("llama-cpp-python"),
        native.LLAMA_STATE_SEQ_VERSION,
        parameters.cache_type_k,
        parameters.cache_type_v,
        info.flash_attn,
        parameters.swa_full,
        # beyond what it was trained for a model may turn its keys by other factors
        bool(trained and trained.isdigit() and info.kv_pool_tokens > int(trained)),
    )
    digest = hashlib.sha256(repr(facts).encode())
    for path in _files(Path(config.model_path)):
        _sample(path, digest)
    return digest.digest()


def _files(path: Path) -> list[Path]:
    name = PART_NAME.search(path.name)
    if name is None:
        return [path]
    stem = glob.escape(path.name[: name.start()])
    return sorted(path.parent.glob(f"{stem}-?????-of-{name[2]}.gguf"))


def _sample(path: Path, digest: hashlib._Hash) -> None:
    with open_regular(path) as file:
        size = file.seek(0, 2)
        digest.update(size.to_bytes(8, "little"))
        for number in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
