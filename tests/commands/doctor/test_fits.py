"""What `kolosal doctor` says of the configured models."""

from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.commands.doctor.fits import ModelFit, model_fit
from kolosal.config.models import ModelEntry
from kolosal.engines.memory.machine import Gpu, MachineMemory
from kolosal.engines.parameters import LoadingParameters
from tests.gguf_files import gguf

GIB = 1024**3


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "a.gguf").write_bytes(gguf())
    return str(tmp_path / "a.gguf")


def fit_of(path: str, *gpus_gib: float, **parameters: object) -> ModelFit:
    gpus = tuple(Gpu(index, "GPU", 99 * GIB, int(gib * GIB)) for index, gib in enumerate(gpus_gib))
    entry = ModelEntry(id="a", path=path, parameters=LoadingParameters(**parameters))  # type: ignore[arg-type]
    return model_fit(entry, MachineMemory(16 * GIB, 8 * GIB, gpus))


def test_a_model_that_fits_is_told_with_what_is_chosen(path: str) -> None:
    told = fit_of(path, 4)
    assert told.fits
    assert "on GPU 0; n_gpu_layers: all 3 layers fit" in told.found
    assert "n_gpu_layers: none of 3 layers fit" in fit_of(path, 0.1).found


def test_a_model_that_does_not_fit_is_told_with_what_there_is(path: str) -> None:
    told = fit_of(path, 0.1, n_gpu_layers=-1)
    assert not told.fits
    assert told.found.endswith("and free are 7.8 GiB of host memory and 102 MiB on GPU 0")


def test_a_model_that_is_not_there_is_told(path: str) -> None:
    assert fit_of(path + "x") == ModelFit("a", fit_of(path + "x").found, fits=False)
    assert "does not exist" in fit_of(path + "x").found
