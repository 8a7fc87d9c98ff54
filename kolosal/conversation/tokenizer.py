"""Tokenizer: a model's own vocabulary and chat template, in the shape that their users know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, overload

from kolosal.conversation.host import ModelHost
from kolosal.conversation.model import TokenArray
from kolosal.schema import ChatPrompt, Message

_MARK = "Done"
"""Stands for an answer while the template is asked what follows one."""


class PreparedInputs(dict[str, TokenArray]):
    """`input_ids` and `attention_mask`, ready for `generate(**inputs)`."""

    def to(self, _device: object) -> PreparedInputs:
        """Itself: token ids live in no device's memory."""
        return self


class Tokenizer:
    """Asks the model's host. Every call raises a `KolosalError` where that fails."""

    def __init__(self, host: ModelHost) -> None:
        self.host = host

    def __call__(self, text: str, *, add_special_tokens: bool = True, **_options: object) -> PreparedInputs:
        """A text as one row of tokens. Further options, such as `return_tensors`, change nothing."""
        tokens = self.encode(text, add_special_tokens=add_special_tokens)
        return PreparedInputs(input_ids=TokenArray([tokens]), attention_mask=TokenArray([[1] * len(tokens)]))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a text; control tokens written in it are read as such."""
        return [*self.host.tokenize(text, add_special=add_special_tokens, parse_special=True)]

    def decode(
        self, tokens: Sequence[int] | Sequence[Sequence[int]], *, skip_special_tokens: bool = False
    ) -> str:
        """The text of tokens, or of the only row of them; control tokens are written out or left out."""
        flat = _flat(tokens)
        if skip_special_tokens:
            controls = {token for token in {*flat} if self._is_control(token)}
            flat = [token for token in flat if token not in controls]
        return self.host.detokenize(flat)

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokenize: Literal[False],
        add_generation_prompt: bool = ...,
    ) -> str: ...
    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokenize: Literal[True] = ...,
        add_generation_prompt: bool = ...,
    ) -> list[int]: ...
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = True,
    ) -> str | list[int]:
        """A chat through the model's template, with the beginning of the answer, as text or as tokens.

        Raises:
            ValueError: `add_generation_prompt` is false; templates here always begin the answer.
        """
        if not add_generation_prompt:
            raise ValueError(
                "add_generation_prompt must be true: the beginning of the answer is always added"
            )
        turns = tuple(Message(message["role"], message["content"]) for message in messages)
        text = self.host.render(ChatPrompt(turns))
        return self.encode(text) if tokenize else text

    @cached_property
    def eos_token_id(self) -> int | None:
        """The token that ends an answer; None where the chat template writes none."""
        question, answer = Message("user", "Hello"), Message("assistant", _MARK)
        text = self.host.render(ChatPrompt((question, answer, question)))
        tokens = self.encode(text.rpartition(_MARK)[2], add_special_tokens=False)
        return tokens[0] if tokens and self._is_control(tokens[0]) else None

    def _is_control(self, token: int) -> bool:
        """A control token is one token as it is written, and several where it is read as plain text."""
        written = self.host.detokenize([token])
        if not written.startswith(("<", "[")):
            return False
        plain = self.host.tokenize(written, add_special=False, parse_special=False)
        return plain != (token,) and self.encode(written, add_special_tokens=False) == [token]


def _flat(tokens: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    flat: list[int] = []
    for item in tokens:
        flat += [item] if isinstance(item, int) else item
    return flat
