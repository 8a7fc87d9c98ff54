"""A vocabulary of bytes and markers, for grammars without a model."""

from __future__ import annotations

from collections.abc import Sequence

from llguidance import LLTokenizer, TokenizerWrapper

from kolosal.engines.worker.constraint import Constraint

END = 256


class Vocabulary:
    """Tokens are bytes, an end, and one token for each marker."""

    def __init__(self, *markers: str) -> None:
        self.markers = {marker: END + 1 + index for index, marker in enumerate(markers)}
        self.eos_token_id = END
        self.bos_token_id = None
        self.tokens = [bytes([byte]) for byte in range(END)] + [
            b"<end>",
            *(marker.encode() for marker in markers),
        ]
        self.special_token_ids = [END, *self.markers.values()]

    def __call__(self, text: str | bytes) -> list[int]:
        """The tokens of a text; what llguidance calls, too."""
        rest = text.decode() if isinstance(text, bytes) else text
        tokens: list[int] = []
        while rest:
            marker = next((each for each in self.markers if rest.startswith(each)), None)
            tokens += rest[0].encode() if marker is None else [self.markers[marker]]
            rest = rest[1 if marker is None else len(marker) :]
        return tokens

    def tokenizer(self) -> LLTokenizer:
        """The vocabulary as llguidance wants it."""
        return LLTokenizer(TokenizerWrapper(self))


def allowed(constraint: Constraint, tokens: Sequence[int]) -> int:
    """How many of these tokens a new constraint allows one after the other."""
    for count, token in enumerate(tokens):
        if constraint.finished or not may_follow(constraint, token):
            return count
        constraint.accept(token)
    return len(tokens)


def may_follow(constraint: Constraint, token: int) -> bool:
    """Whether a token is allowed next."""
    return bool(constraint.mask()[token // 8] >> token % 8 & 1)


def options(constraint: Constraint) -> list[int]:
    """All tokens that are allowed next."""
    mask = constraint.mask()
    return [token for token in range(8 * len(mask)) if mask[token // 8] >> token % 8 & 1]


def may_end(constraint: Constraint) -> bool:
    """Whether the turn may end here."""
    return constraint.finished or may_follow(constraint, END)
