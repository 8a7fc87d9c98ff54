"""ConversationEngine: one conversation, its history and the way its answers are made."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from kolosal.conversation.pipeline import Pipeline, run_pipeline

if TYPE_CHECKING:
    from kolosal.conversation.model import Model
    from kolosal.conversation.tokenizer import Tokenizer


class ConversationEngine:
    """A conversation with a model. Used by one thread at a time."""

    def __init__(
        self,
        tok: Tokenizer,
        model: Model,
        system_prompt: Mapping[str, str],
        improvement: bool = False,
        intermediate_steps: bool = False,
    ) -> None:
        """`system_prompt` has a text for each role: `assistant`, and for improvement `reviser`."""
        self.tok = tok
        self.model = model
        self.system_prompt = system_prompt
        self.improvement = improvement
        """Whether answers are reviewed and revised, twice, before they are given: three generations in place of one."""
        self.intermediate_steps = intermediate_steps
        """Whether an improved answer is shown with its draft and reviews."""
        self.conversation_history: list[dict[str, str]] = []
        """What was said, as `{"role", "content"}`; may be assigned."""
        self.last_result: dict[str, str] = {}
        """What the last answer was made of; `reply` is the answer itself."""

    def set_improvement(self, improvement: bool) -> ConversationEngine:
        """Turn improvement on or off; returns the engine itself."""
        self.improvement = improvement
        return self

    def set_intermediate_steps(self, intermediate_steps: bool) -> ConversationEngine:
        """Turn the display of draft and reviews on or off; returns the engine itself."""
        self.intermediate_steps = intermediate_steps
        return self

    def stream_reply(self, user_message: str) -> Generator[str, None, None]:
        """The pieces of an answer as they come.

        History and `last_result` change when the answer is complete, and only then: not when it fails, and not when the
        iterator is closed early, which also stops the model.

        Raises:
            KeyError: a system prompt is missing.
            KolosalError: the model could not answer.
        """
        pipeline = Pipeline(
            self.system_prompt,
            self.conversation_history,
            user_message,
            improvement=self.improvement,
            show_steps=self.intermediate_steps,
        )
        result = yield from run_pipeline(pipeline, self.model)
        self.conversation_history = [
            *self.conversation_history,
            {"role": "user", "content": user_message},
            {"role": "assistant", "content": result["reply"]},
        ]
        self.last_result = result
