"""Files that are right as far as their header goes, and wrong: they end with the load and not with the first request."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import LoadFailed
from tests.tiny_gguf import write_tiny_gguf

SMALL = LoadingParameters(n_ctx=64, n_parallel=1, n_threads=1)


async def refusal(command: WorkerCommand, file: Path, parameters: LoadingParameters = SMALL) -> LoadFailed:
    registry = EngineRegistry(command)
    try:
        with pytest.raises(LoadFailed) as error:
            await registry.add(EngineConfig("a", str(file), parameters), load=True)
    finally:
        await registry.close(drain_s=0)
    assert not error.value.lacked_memory
    return error.value


async def test_a_tokenizer_that_would_abort_aborts_at_the_load(
    real_worker: WorkerCommand, tmp_path: Path
) -> None:
    file = tmp_path / "a.gguf"
    write_tiny_gguf(file)
    file.write_bytes(file.read_bytes().replace(b"<0x", b"<1x"))  # no word for any byte
    error = await refusal(real_worker, file)
    assert error.message.startswith("The model was read, but cannot be used. The worker stopped: ")


async def test_weights_that_are_no_numbers_are_found_with_the_first_token(
    real_worker: WorkerCommand, tmp_path: Path
) -> None:
    file = tmp_path / "a.gguf"
    write_tiny_gguf(file)
    reader = gguf.GGUFReader(file, "r+")
    [norm] = [tensor for tensor in reader.tensors if tensor.name == "output_norm.weight"]
    norm.data[:] = np.nan
    reader.data.flush()
    assert "no numbers (NaN)" in (await refusal(real_worker, file)).message
