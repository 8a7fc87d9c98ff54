"""Fill in the middle: the order of a prompt's parts, for models that were trained for it.

Pure. Fill in the middle is from https://arxiv.org/abs/2207.14255; the layout is that of Qwen 2.5 Coder's report
(https://arxiv.org/abs/2409.12186), as llama.cpp's server has it: other files first, then the text before the gap, the text after
it, and the beginning of what is to stand between them.
"""

from __future__ import annotations

from collections.abc import Callable

from kolosal.engines.worker.backend import FimTokens
from kolosal.errors import UnsupportedFeature
from kolosal.schema import InfillPrompt

_PROJECT = "project\n"
"""The name that the repository gets: models expect one."""

_THIS_FILE = "current\n"
"""The name of the file with the gap."""

_SNIPPET = "\n\n--- snippet ---\n\n"
"""Stands before each other file where the model has no token for that: what llama.cpp's server writes there."""


def infill_tokens(
    prompt: InfillPrompt, fim: FimTokens, begin: list[int], tokenize: Callable[[str], list[int]], room: int
) -> list[int]:
    """The tokens of a prompt. `begin` is what the model wants before any text, `room` how many tokens there may be.

    Other files are context that can be done without: of them as much as there is room for is kept, the end.

    Raises:
        UnsupportedFeature: the model was not made for this.
    """
    if fim.prefix is None or fim.suffix is None or fim.middle is None:
        raise UnsupportedFeature(
            "This model cannot fill in the middle: it has no tokens for the prefix, the suffix and the middle",
            param=prompt.param,
        )
    gap = [fim.prefix, *tokenize(prompt.prefix), fim.suffix, *tokenize(prompt.suffix), fim.middle]
    gap += tokenize(prompt.prompt)
    others = _other_files(prompt, fim, tokenize)
    kept = max(0, min(len(others), room - len(begin) - len(gap)))
    return begin + others[len(others) - kept :] + gap


def _other_files(prompt: InfillPrompt, fim: FimTokens, tokenize: Callable[[str], list[int]]) -> list[int]:
    if not prompt.extra:
        return []
    tokens = [] if fim.repository is None else [fim.repository, *tokenize(_PROJECT)]
    for name, text in prompt.extra:
        tokens += tokenize(_SNIPPET) if fim.file is None else [fim.file, *tokenize(f"{name}\n")]
        tokens += tokenize(text)
    if fim.file is not None:
        tokens += [fim.file, *tokenize(_THIS_FILE)]
    return tokens
