"""The course of an answer: one generation, or a draft and two reviews of it. Pure.

Nothing is generated here. A driver takes a stage, generates on its messages, pushes the pieces back and shows what it is
handed; so the same course serves a blocking client, a stream and the Python API:

    while (stage := course.next_stage()) is not None:
        show(stage.status)
        for piece in generate(stage.messages):
            show(course.push(piece))
        show(course.end_stage())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kolosal.conversation.prompts import ASSISTANT, REVISER, build_review_message, conversation
from kolosal.conversation.review import ReviewReader, Section
from kolosal.schema import Message

DRAFT_STATUS = "🤔 Generating draft answer..."
FIRST_STATUS = "🔄️ Running first improvement pass..."
SECOND_STATUS = "🔄️ Running second improvement pass...\n\n"


@dataclass(frozen=True, slots=True)
class Stage:
    """One generation of a course."""

    messages: tuple[Message, ...]
    status: str = ""
    """What to show before it."""


class Pipeline(Protocol):
    """An answer on its way. Used by one driver, from its first stage to its last."""

    @property
    def result(self) -> dict[str, str]:
        """All that was made; complete after the last stage. The answer itself is `reply`."""

    def next_stage(self) -> Stage | None:
        """What to generate now; None when all is done."""

    def push(self, piece: str) -> str:
        """Take a piece of the stage's text; what to show of it."""

    def end_stage(self) -> str:
        """The stage's text is complete; what is left to show."""


class Reply:
    """A plain answer: one generation, shown as it comes."""

    def __init__(
        self,
        system_prompts: Mapping[str, str],
        history: Sequence[Mapping[str, str]] | None,
        message: str,
        role: str = ASSISTANT,
    ) -> None:
        self._stages = [Stage(conversation(system_prompts, role, history, message))]
        self._text: list[str] = []

    @property
    def result(self) -> dict[str, str]:
        return {"reply": "".join(self._text)}

    def next_stage(self) -> Stage | None:
        return self._stages.pop() if self._stages else None

    def push(self, piece: str) -> str:
        self._text.append(piece)
        return piece

    def end_stage(self) -> str:
        return ""


class Improvement:
    """A draft, and two reviews that revise it. A review without a revised answer leaves the one before it standing."""

    def __init__(
        self,
        system_prompts: Mapping[str, str],
        history: Sequence[Mapping[str, str]] | None,
        message: str,
        *,
        show_steps: bool,
        role: str = ASSISTANT,
    ) -> None:
        """`show_steps`: show the draft and both reviews as they come, in place of a status for each and the last revision.

        Raises:
            KeyError: there is no system prompt for the role or for the reviser.
        """
        system_prompts[REVISER]  # known before the draft is generated, not after
        self._prompts = system_prompts
        self._history = history
        self._message = message
        self._show_steps = show_steps
        self._draft_stage = Stage(conversation(system_prompts, role, history, message), DRAFT_STATUS)
        self._begun = 0
        self._text: list[str] = []
        self._reader = ReviewReader()
        self._answer = ""
        self._result = {"user_question": message}

    @property
    def result(self) -> dict[str, str]:
        return {**self._result, "reply": self._answer}

    def next_stage(self) -> Stage | None:
        self._begun += 1
        self._text, self._reader = [], ReviewReader()
        match self._begun:
            case 1:
                stage = self._draft_stage
            case 2 | 3:
                review = build_review_message(self._message, self._answer)
                messages = conversation(self._prompts, REVISER, self._history, review)
                stage = Stage(messages, FIRST_STATUS if self._begun == 2 else SECOND_STATUS)
            case _:
                return None
        between = "" if self._begun == 1 else "\n"
        return Stage(stage.messages, between) if self._show_steps else stage

    def push(self, piece: str) -> str:
        self._text.append(piece)
        revised = self._reader.push(piece) if self._begun > 1 else ""
        if self._show_steps:
            return piece
        return revised if self._begun == 3 else ""

    def end_stage(self) -> str:
        if self._begun == 1:
            self._answer = self._result["draft_answer"] = "".join(self._text)
            return ""
        shown = self._reader.end()
        before, number = self._answer, self._begun - 1
        if self._reader.revision is None:
            shown = before
        else:
            self._answer = self._reader.revision
        self._result |= {
            f"suggestions{number}": self._reader.section(Section.IMPROVEMENTS),
            f"revision{number}": self._answer,
            f"comments{number}": self._reader.section(Section.COMMENTS),
        }
        return shown if self._begun == 3 and not self._show_steps else ""


def course(
    system_prompts: Mapping[str, str],
    history: Sequence[Mapping[str, str]] | None,
    message: str,
    *,
    improvement: bool,
    show_steps: bool,
    role: str = ASSISTANT,
) -> Pipeline:
    """The course of an answer to a message.

    Raises:
        KeyError: a system prompt is missing.
    """
    if improvement:
        return Improvement(system_prompts, history, message, show_steps=show_steps, role=role)
    return Reply(system_prompts, history, message, role)
