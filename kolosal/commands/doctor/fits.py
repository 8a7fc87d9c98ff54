"""What of the configured models would fit on this machine now, and how. Reads the headers of their files; loads nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kolosal.config.models import ModelEntry
from kolosal.engines.memory.fit import Fit
from kolosal.engines.memory.limits import HOST_RESERVE_BYTES
from kolosal.engines.memory.machine import MachineMemory, read_memory
from kolosal.engines.memory.model_files import read_shape
from kolosal.engines.memory.policy import Bytes, size_text
from kolosal.errors import LoadFailed, ModelFileError
from kolosal.paths import Anywhere, engine_config


@dataclass(frozen=True, slots=True)
class ModelFit:
    """One configured model on this machine."""

    engine_id: str
    found: str
    """What was found, as a sentence."""
    fits: bool


def machine_memory() -> MachineMemory:
    """What this machine has now. Blocks."""
    return read_memory(os.environ.get("CUDA_VISIBLE_DEVICES"))


def model_fit(entry: ModelEntry, memory: MachineMemory) -> ModelFit:
    """How a model would be loaded if it were alone. Blocks on the disk."""
    try:
        config = engine_config(entry.id, entry.path, entry.parameters, roots=Anywhere.AT_ALL)
        draft_path = config.parameters.draft_model_path
        draft = None if draft_path is None else read_shape(Path(draft_path))
        fit = Fit(read_shape(Path(config.model_path)), config.parameters, draft)
    except (ModelFileError, LoadFailed) as exc:
        return ModelFit(entry.id, exc.message, fits=False)
    free = memory.free - Bytes(HOST_RESERVE_BYTES)
    plans = fit.plans(free)
    fitting = next((plan for plan in plans if plan.need.fits(free)), None)
    if fitting is None:
        return ModelFit(entry.id, f"needs {_sizes(plans[-1].need)}, and free are {_sizes(free)}", fits=False)
    plan = fit.grown(fitting, free)
    reasons = "".join(f"; {choice.field}: {choice.reason}" for choice in plan.choices)
    return ModelFit(entry.id, f"would take {_sizes(plan.need)}{reasons}", fits=True)


def _sizes(amount: Bytes) -> str:
    gpus = [f"{size_text(max(0, n_bytes))} on GPU {index}" for index, n_bytes in amount.gpus.items()]
    return " and ".join([f"{size_text(max(0, amount.host))} of host memory", *gpus])
