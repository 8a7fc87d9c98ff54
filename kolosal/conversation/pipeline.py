"""Pipelines: how an answer is made, in one generation or as a draft and two reviews of it.

A pipeline is pure: whoever runs it takes a step, generates on its messages, pushes the pieces back and shows what it is
handed. So the same one serves a blocking client, a stream (`routes/conversation/`) and the Python API (`run_pipeline`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kolosal.conversation.prompts import ASSISTANT, REVISER, build_review_message, conversation
from kolosal.conversation.review import ReviewReader, Section
from kolosal.schema import Message

if TYPE_CHECKING:
    from kolosal.conversation.model import Model

STATUSES = (
    "🤔 Generating draft answer...",
    "🔄️ Running first improvement pass...",
    "🔄️ Running second improvement pass...\n\n",
)
"""What is shown before each generation of an improved answer, where its steps are not."""


@dataclass(frozen=True, slots=True)
class PipelineStep:
    """One generation of a pipeline."""

    messages: tuple[Message, ...]
    status: str
    """What to show before it."""


class Pipeline:
    """An answer on its way. Used by one driver, from its first step to its last.

    With improvement it is a draft, and two reviews that revise it: one without a revised answer leaves the one before it
    standing. Shown is then a status for each and the last revision, or the draft and both reviews as they come.
    """

    def __init__(
        self,
        system_prompts: Mapping[str, str],
        history: Sequence[Mapping[str, str]] | None,
        message: str,
        *,
        improvement: bool = False,
        show_steps: bool = False,
        role: str = ASSISTANT,
    ) -> None:
        """`show_steps` changes what is shown of an improved answer.

        Raises:
            KeyError: there is no system prompt for the role, or none for the reviser where one is needed.
        """
        if improvement:
            system_prompts[REVISER]  # known before the draft is generated, not after
        self._prompts = system_prompts
        self._history = history
        self._message = message
        self._n_steps = 3 if improvement else 1
        self._shows_all = show_steps or not improvement
        self._draft = conversation(system_prompts, role, history, message)
        self._begun = 0
        self._text: list[str] = []
        self._reader = ReviewReader()
        self._answer = ""
        self._made = {"user_question": message} if improvement else {}

    @property
    def result(self) -> dict[str, str]:
        """All that was made; complete after the last step. The answer itself is `reply`."""
        return {**self._made, "reply": self._answer}

    def next_step(self) -> PipelineStep | None:
        """What to generate now; None when all is done."""
        if self._begun == self._n_steps:
            return None
        messages = self._draft
        if self._begun:
            review = build_review_message(self._message, self._answer)
            messages = conversation(self._prompts, REVISER, self._history, review)
        between = "\n" if self._begun else ""
        status = between if self._shows_all else STATUSES[self._begun]
        self._begun += 1
        self._text, self._reader = [], ReviewReader()
        return PipelineStep(messages, status)

    def push(self, piece: str) -> str:
        """Take a piece of the step's text; what to show of it."""
        self._text.append(piece)
        revised = self._reader.push(piece) if self._begun > 1 else ""
        if self._shows_all:
            return piece
        return revised if self._begun == self._n_steps else ""

    def end_step(self) -> str:
        """The step's text is complete; what is left to show."""
        if self._begun == 1:
            self._answer = "".join(self._text)
            if self._n_steps > 1:
                self._made["draft_answer"] = self._answer
            return ""
        shown = self._reader.end()
        if self._reader.revision is None:
            shown = self._answer
        else:
            self._answer = self._reader.revision
        number = self._begun - 1
        self._made |= {
            f"suggestions{number}": self._reader.section(Section.IMPROVEMENTS),
            f"revision{number}": self._answer,
            f"comments{number}": self._reader.section(Section.COMMENTS),
        }
        return shown if self._begun == self._n_steps and not self._shows_all else ""


def run_pipeline(pipeline: Pipeline, model: Model) -> Generator[str, None, dict[str, str]]:
    """What a pipeline shows, piece by piece; returns its result."""
    while (step := pipeline.next_step()) is not None:
        if step.status:
            yield step.status
        with closing(model.stream_chat(step.messages)) as pieces:
            for piece in pieces:
                if shown := pipeline.push(piece):
                    yield shown
        if shown := pipeline.end_step():
            yield shown
    return pipeline.result
