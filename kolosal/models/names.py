"""What models on the disk are called. Pure."""

from __future__ import annotations

import re

from kolosal.engines.memory.model_files import PART_NAME
from kolosal.engines.parameters import MAX_ENGINE_ID_CHARS

_QUANTIZATION = re.compile(
    r"[-._]((?:UD-)?(?:I?Q[1-8]_\w+|TQ[12]_0|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4))$", re.IGNORECASE
)
"""How the name of a file ends that says its quantisation: `-Q4_K_M`, `.q8_0`, `-UD-IQ2_XXS`."""

_PREFERRED = (
    "Q4_K_M", "Q4_K_S", "Q4_K_XL", "Q5_K_M", "Q4_0", "Q4_1", "MXFP4", "Q6_K", "Q8_0", "Q5_K_S", "IQ4_XS", "IQ4_NL",
)  # fmt: skip
"""Which quantisation a name without one means, the first that is there."""

_PREFIXES = ("https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/", "hf:", "ollama:")
"""What names of places begin with where a model may be fetched."""

_UNITS = (("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0))
"""Letters for large numbers, with their decimals."""

_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f\\?#\ud800-\udfff]")


def stem_of(file_name: str) -> str:
    """The name of a model's file without its suffix, and without the number of its part."""
    return (
        PART_NAME.sub("", file_name) if PART_NAME.search(file_name) else re.sub(r"(?i)\.gguf$", "", file_name)
    )


def split_quantization(stem: str) -> tuple[str, str | None]:
    """A file's name and the quantisation it ends with: `("Qwen3-8B", "Q4_K_M")`."""
    found = _QUANTIZATION.search(stem)
    return (stem, None) if found is None else (stem[: found.start()], found[1].upper())


def usable(name: str) -> str:
    """A name that an engine can have: what no name may hold becomes `_`."""
    parts = [part for part in _NOT_IN_NAMES.sub("_", name).split("/") if part.strip(".")]
    return "/".join(parts)[:MAX_ENGINE_ID_CHARS].rstrip("/") or "model"


def without_place(name: str) -> str:
    """A name without the place that it would be fetched from."""
    lowered = name.casefold()
    return next((name[len(prefix) :] for prefix in _PREFIXES if lowered.startswith(prefix)), name)


def preference(tag: str) -> int:
    """How far behind others a quantisation stands where none was named."""
    name = tag.upper().removeprefix("UD-")
    return _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)


def parameter_size(count: int) -> str:
    """A number of parameters as people write it: `134.52M`, `7.6B`."""
    for unit, size, decimals in _UNITS:
        if count >= size:
            number = count / size
            return f"{number:.0f}{unit}" if number.is_integer() else f"{number:.{decimals}f}{unit}"
    return str(count)
