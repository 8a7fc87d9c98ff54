"""Pipelines: how an answer is made, in one generation or as a draft and two reviews of it.

A pipeline is pure: whoever runs it takes a step, generates on its messages, pushes the pieces back and shows what it is
handed. So the same one serves a blocking client, a stream (`routes/conversation/`) and the Python API (`run_pipeline`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from kolosal.conversation.prompts import ASSISTANT, REVISER, build_review_message, conversation
from kolosal.conversation.review import ReviewReader, Section
from kolosal.schema import Message

DRAFT_STATUS = "🤔 Generating draft answer..."
FIRST_STATUS = "🔄️ Running first improvement pass..."
SECOND_STATUS = "🔄️ Running second improvement pass...\n\n"


@dataclass(frozen=True, slots=True)
class PipelineStep:
    """One generation of a pipeline."""

    messages: tuple[Message, ...]
    status: str = ""
    """What to show before it."""


class ChatModel(Protocol):
    """What an answer needs of a model."""

    def stream_chat(self, messages: tuple[Message, ...]) -> Generator[str, None, None]:
        """The pieces of the next turn; closing the generator stops the model."""


class Pipeline(Protocol):
    """An answer on its way. Used by one driver, from its first step to its last."""

    @property
    def result(self) -> dict[str, str]:
        """All that was made; complete after the last step. The answer itself is `reply`."""

    def next_step(self) -> PipelineStep | None:
        """What to generate now; None when all is done."""

    def push(self, piece: str) -> str:
        """Take a piece of the step's text; what to show of it."""

    def end_step(self) -> str:
        """The step's text is complete; what is left to show."""


class ReplyPipeline:
    """A plain answer: one generation, shown as it comes."""

    def __init__(
        self,
        system_prompts: Mapping[str, str],
        history: Sequence[Mapping[str, str]] | None,
        message: str,
        role: str = ASSISTANT,
    ) -> None:
        self._steps = [PipelineStep(conversation(system_prompts, role, history, message))]
        self._text: list[str] = []

    @property
    def result(self) -> dict[str, str]:
        return {"reply": "".join(self._text)}

    def next_step(self) -> PipelineStep | None:
        return self._steps.pop() if self._steps else None

    def push(self, piece: str) -> str:
        self._text.append(piece)
        return piece

    def end_step(self) -> str:
        return ""


class ImprovementPipeline:
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
        self._draft_step = PipelineStep(conversation(system_prompts, role, history, message), DRAFT_STATUS)
        self._begun = 0
        self._text: list[str] = []
        self._reader = ReviewReader()
        self._answer = ""
        self._result = {"user_question": message}

    @property
    def result(self) -> dict[str, str]:
        return {**self._result, "reply": self._answer}

    def next_step(self) -> PipelineStep | None:
        self._begun += 1
        self._text, self._reader = [], ReviewReader()
        match self._begun:
            case 1:
                step = self._draft_step
            case 2 | 3:
                review = build_review_message(self._message, self._answer)
                messages = conversation(self._prompts, REVISER, self._history, review)
                step = PipelineStep(messages, FIRST_STATUS if self._begun == 2 else SECOND_STATUS)
            case _:
                return None
        between = "" if self._begun == 1 else "\n"
        return PipelineStep(step.messages, between) if self._show_steps else step

    def push(self, piece: str) -> str:
        self._text.append(piece)
        revised = self._reader.push(piece) if self._begun > 1 else ""
        if self._show_steps:
            return piece
        return revised if self._begun == 3 else ""

    def end_step(self) -> str:
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


def make_pipeline(
    system_prompts: Mapping[str, str],
    history: Sequence[Mapping[str, str]] | None,
    message: str,
    *,
    improvement: bool,
    show_steps: bool,
    role: str = ASSISTANT,
) -> Pipeline:
    """How an answer to a message is made.

    Raises:
        KeyError: a system prompt is missing.
    """
    if improvement:
        return ImprovementPipeline(system_prompts, history, message, show_steps=show_steps, role=role)
    return ReplyPipeline(system_prompts, history, message, role)


def run_pipeline(pipeline: Pipeline, model: ChatModel) -> Generator[str, None, dict[str, str]]:
    """What a pipeline shows, piece by piece; returns its result.

    Raises:
        KolosalError: the model could not answer.
    """
    while (step := pipeline.next_step()) is not None:
        yield from _something(step.status)
        with closing(model.stream_chat(step.messages)) as pieces:
            for piece in pieces:
                yield from _something(pipeline.push(piece))
        yield from _something(pipeline.end_step())
    return pipeline.result


def pipeline_result(pipeline: Pipeline, model: ChatModel) -> dict[str, str]:
    """The result of a pipeline of which nothing is shown.

    Raises:
        KolosalError: the model could not answer.
    """
    for _ in run_pipeline(pipeline, model):
        pass
    return pipeline.result


def _something(text: str) -> Iterator[str]:
    if text:
        yield text
