"""Models without weights: one that knows its lines, and a worker that answers what the prompt says."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from kolosal.conversation.model import Model
from kolosal.conversation.tokenizer import Tokenizer
from kolosal.errors import EngineDied, KolosalError
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, TokensPrompt

PROMPTS = {"assistant": "Answer.", "reviser": "Revise."}
DRAFT = "The sky is blue."
REVIEW1 = (
    "### Improvements\n1. Say more.\n\n### Revised Answer\nThe sky is blue by day.\n\n### Comments\nBetter."
)
REVIEW2 = (
    "### Improvements\n1. Say why.\n\n### Revised Answer\nThe sky scatters blue light.\n\n### Comments\nGood."
)


class ScriptedHost:
    """A host whose tokens are bytes and whose answers are given; each prompt is kept."""

    name = "scripted"

    def __init__(self, *answers: str | KolosalError) -> None:
        self.answers = [*answers]
        self.prompts: list[ChatPrompt | TokensPrompt] = []
        self.samplings: list[SamplingParams] = []
        self.running = 0
        self.closed = False

    def stream(
        self, prompt: ChatPrompt | TokensPrompt, sampling: SamplingParams
    ) -> Generator[str, None, None]:
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        answer = self.answers.pop(0)
        self.running += 1
        try:
            if isinstance(answer, KolosalError):
                yield "Half an "
                raise answer
            for start in range(0, len(answer), 5):
                yield answer[start : start + 5]
        finally:
            self.running -= 1

    def generate(self, prompt: TokensPrompt, sampling: SamplingParams) -> tuple[int, ...]:
        return tuple("".join(self.stream(prompt, sampling)).encode())

    def render(self, prompt: ChatPrompt) -> str:
        return "".join(f"<{turn.role}>{turn.content}" for turn in prompt.messages) + "<assistant>"

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        return tuple(text.encode())

    def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode()

    def close(self) -> None:
        self.closed = True


def scripted(*answers: str | KolosalError) -> tuple[ScriptedHost, Tokenizer, Model]:
    """A model that gives these answers in turn."""
    host = ScriptedHost(*answers)
    return host, Tokenizer(host), Model(host)


DIED = EngineDied("It died")
