"""Lists of the Assistants API, and queries of its URLs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kolosal.assistants.objects import AssistantObject, MessageObject, RunObject, RunStepObject
from kolosal.errors import InvalidRequest
from kolosal.routes.common.lists import ListQuery, ObjectList

FOUND_TEXTS = "step_details.tool_calls[*].file_search.results[*].content"
"""What `include` may name."""


class StepQuery(BaseModel):
    """The query of what shows steps."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    include: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=16)] = ()
    """Whether searches have the texts that they found."""

    @property
    def with_content(self) -> bool:
        """The same.

        Raises:
            InvalidRequest: `include` names something else.
        """
        for name in self.include:
            if name != FOUND_TEXTS:
                raise InvalidRequest(f"include may have {FOUND_TEXTS} only, not {name!r}", param="include")
        return bool(self.include)


class StepsQuery(ListQuery, StepQuery):
    """The query of a list of steps."""


class MessagesQuery(ListQuery):
    """The query of a list of messages."""

    run_id: Annotated[str, Field(max_length=64)] | None = None
    """Only those that this run made."""


class AssistantList(ObjectList):
    """A page of assistants."""

    data: list[AssistantObject]


class MessageList(ObjectList):
    """A page of messages."""

    data: list[MessageObject]


class RunList(ObjectList):
    """A page of runs."""

    data: list[RunObject]


class RunStepList(ObjectList):
    """A page of steps."""

    data: list[RunStepObject]
