"""ModelHost: where a model runs, as the Python API sees it: in a worker process of ours, or in a daemon."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, TokensPrompt


class ModelHost(Protocol):
    """A loaded model. All calls block; each may be made by any thread.

    Every call raises a `KolosalError` where the model refuses or fails.
    """

    @property
    def name(self) -> str:
        """The engine's id."""

    def stream(
        self, prompt: ChatPrompt | TokensPrompt, sampling: SamplingParams
    ) -> Generator[str, None, None]:
        """The text of a generation, without thoughts; closing the generator stops the model."""

    def generate(self, prompt: TokensPrompt, sampling: SamplingParams) -> tuple[int, ...]:
        """The tokens of a generation."""

    def render(self, prompt: ChatPrompt) -> str:
        """A chat through the model's template."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        """The tokens of a text."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens written out."""

    def close(self) -> None:
        """Let the model go. Idempotent."""
