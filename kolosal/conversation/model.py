"""Model: a loaded model in the shape that the conversation functions and their users know."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from kolosal.conversation.host import ModelHost
from kolosal.conversation.parameters import GenerationParameters
from kolosal.schema import ChatPrompt, Message, TokensPrompt


class TokenArray(list[list[int]]):
    """Token ids as rows, as models take and give them: a list of lists with a shape."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and tokens of each."""
        return len(self), len(self[0]) if self else 0

    def to(self, _device: object) -> TokenArray:
        """Itself: token ids live in no device's memory."""
        return self

    def tolist(self) -> list[list[int]]:
        """Plain lists."""
        return [[*row] for row in self]


class Model:
    """A loaded model. Ends with `close`, as a context manager, or with the interpreter.

    A generation raises a KolosalError where the model cannot go on.
    """

    def __init__(
        self, host: ModelHost, *, device: str = "auto", parameters: GenerationParameters | None = None
    ) -> None:
        self.host = host
        self.device = device
        self.parameters = parameters or GenerationParameters()
        """How its answers are sampled, unless a call says otherwise."""

    def stream_chat(self, messages: tuple[Message, ...]) -> Generator[str, None, None]:
        """The pieces of the next turn of a chat; closing the generator stops the model."""
        return self.host.stream(ChatPrompt(messages), self.parameters.sampling())

    def stream_tokens(
        self, input_ids: Sequence[Sequence[int]], **options: object
    ) -> Generator[str, None, None]:
        """The pieces of what follows tokens; `options` are generation parameters, as for `generate`.

        Raises:
            ValueError: there is not exactly one row, or an option is unknown or out of range.
        """
        return self.host.stream(_prompt(input_ids), self.parameters.changed(options).sampling())

    def generate(
        self, input_ids: Sequence[Sequence[int]], attention_mask: object = None, **options: object
    ) -> TokenArray:
        """Continue tokens; the result is one row that begins with them.

        `attention_mask` is accepted and not looked at: one row needs no padding. `options` are generation parameters, e.g.
        `max_new_tokens`.

        Raises:
            ValueError: there is not exactly one row, or an option is unknown or out of range.
        """
        del attention_mask
        prompt = _prompt(input_ids)
        made = self.host.generate(prompt, self.parameters.changed(options).sampling())
        return TokenArray([[*prompt.tokens, *made]])

    def eval(self) -> Model:
        """Itself: a model of this kind is never trained."""
        return self

    def to(self, _device: object) -> Model:
        """Itself: where a model lives is said when it is loaded."""
        return self

    def close(self) -> None:
        """Let the model go. Idempotent."""
        self.host.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _prompt(input_ids: Sequence[Sequence[int]]) -> TokensPrompt:
    if len(input_ids) != 1 or not input_ids[0]:
        raise ValueError(f"input_ids must be one row of tokens, not {len(input_ids)}")
    return TokensPrompt(tuple(map(int, input_ids[0])))
