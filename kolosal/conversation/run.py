"""Driving a course of answers over a model, synchronously."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Protocol

from kolosal.conversation.pipeline import Pipeline
from kolosal.schema import Message


class ChatModel(Protocol):
    """What an answer needs of a model."""

    def stream_chat(self, messages: tuple[Message, ...]) -> Generator[str, None, None]:
        """The pieces of the next turn; closing the generator stops the model."""


def run_course(course: Pipeline, model: ChatModel) -> Generator[str, None, dict[str, str]]:
    """What a course shows, piece by piece; returns its result.

    Raises:
        KolosalError: the model could not answer.
    """
    while (stage := course.next_stage()) is not None:
        yield from _something(stage.status)
        with closing(model.stream_chat(stage.messages)) as pieces:
            for piece in pieces:
                yield from _something(course.push(piece))
        yield from _something(course.end_stage())
    return course.result


def whole_result(course: Pipeline, model: ChatModel) -> dict[str, str]:
    """The result of a course of which nothing is shown.

    Raises:
        KolosalError: the model could not answer.
    """
    shown = run_course(course, model)
    while True:
        try:
            next(shown)
        except StopIteration as end:
            result: dict[str, str] = end.value
            return result


def _something(text: str) -> Iterator[str]:
    if text:
        yield text
