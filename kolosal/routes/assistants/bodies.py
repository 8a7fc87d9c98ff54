"""The bodies of the Assistants API: https://platform.openai.com/docs/api-reference/assistants."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from kolosal.assistants.objects import MessageObject, MessagePart, ObjectTool, new_message, text_part
from kolosal.assistants.searches import FILE_SEARCH
from kolosal.documents.search import MAX_RESULTS
from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import OpenBody, required
from kolosal.routes.common.fields import ARRAY, OBJECT, STRING, Metadata, ModelName, by_kind
from kolosal.routes.common.sampling_fields import MaxTokens
from kolosal.routes.openai.grammar import ResponseFormat
from kolosal.routes.openai.template_kwargs import ReasoningEffort
from kolosal.routes.openai.tools import FunctionDefinition, NamedFunction

MAX_TOOLS_OF_ASSISTANT = 128
MAX_CONTENT_CHARS = 256_000
"""Characters of instructions, of one part of a message, and of an output."""

MAX_MESSAGES_AT_ONCE = 100
"""Messages of one request."""

MAX_FILES = 20
"""Files of one object; each has an id of so many characters."""

Instructions: TypeAlias = Annotated[str, Field(max_length=MAX_CONTENT_CHARS)]

ObjectId: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]

FileIds: TypeAlias = Annotated[tuple[ObjectId, ...], Field(max_length=MAX_FILES)]

AnswerFormat: TypeAlias = Annotated[
    Annotated[Literal["auto"], STRING] | Annotated[ResponseFormat, OBJECT], by_kind('"auto" or an object')
]


class SearchRanking(RequestBody):
    """How results of a search are ranked."""

    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The least score of a result."""
    ranker: Literal["auto", "default_2024_08_21"] = "auto"
    """Both mean the same."""


class SearchFields(RequestBody):
    """How a tool `file_search` searches."""

    max_num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] | None = None
    """Of one search; 5 unless given."""
    ranking_options: SearchRanking | None = None


class AssistantTool(RequestBody):
    """One of `tools`."""

    type: Literal["function", "file_search", "code_interpreter"]
    """`code_interpreter` is kept, but a run that has it fails: no code is run here."""
    function: FunctionDefinition | None = None
    """Required for the type `function`: the client carries it out."""
    file_search: SearchFields | None = None

    def to_object(self, path: str) -> ObjectTool:
        """The tool as it is kept; `path` is where it stands."""
        if self.type == FILE_SEARCH and self.file_search is not None:
            return {"type": self.type, FILE_SEARCH: self.file_search.model_dump(exclude_unset=True)}
        if self.type != "function":
            return {"type": self.type}
        function = required(self.function, f"{path}.function")
        function.to_tool(f"{path}.function")  # what is wrong with its schema is said now
        return {"type": "function", "function": function.model_dump(exclude_none=True)}


AssistantTools: TypeAlias = Annotated[tuple[AssistantTool, ...], Field(max_length=MAX_TOOLS_OF_ASSISTANT)]


class InterpreterFiles(RequestBody):
    """`tool_resources.code_interpreter`."""

    file_ids: FileIds = ()


class SearchedStores(OpenBody):
    """`tool_resources.file_search`."""

    vector_store_ids: Annotated[tuple[ObjectId, ...], Field(max_length=1)] = ()


class ToolResources(RequestBody):
    """What tools work with."""

    code_interpreter: InterpreterFiles | None = None
    file_search: SearchedStores | None = None


class AssistantFields(OpenBody):
    """What can be changed of an assistant."""

    name: Annotated[str, Field(max_length=256)] | None = None
    description: Annotated[str, Field(max_length=512)] | None = None
    instructions: Instructions | None = None
    """The system message of its runs."""
    tools: AssistantTools | None = None
    """What its runs may call."""
    tool_resources: ToolResources | None = None
    metadata: Metadata | None = None
    """Labels that come back with the object."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    response_format: AnswerFormat | None = None
    """What answers must conform to, token by token; `auto`: nothing."""
    reasoning_effort: ReasoningEffort | None = None
    """Goes to the model's chat template; `none` turns thinking off."""

    def given(self) -> dict[str, Any]:
        """The fields that the request has, as they are kept."""
        self.refuse_unsupported()
        values: dict[str, Any] = {}
        for name in self.model_fields_set & AssistantFields.model_fields.keys():
            value = getattr(self, name)
            match name:
                case "tools":
                    value = tool_objects(value)
                case "response_format":
                    value = format_object(value)
                case "tool_resources":
                    value = resources_object(value)
                case "metadata":
                    value = value or {}
            values[name] = value
        return values


class AssistantBody(AssistantFields):
    """A new assistant."""

    model: ModelName
    """The `engine_id` of its runs."""


class AssistantChanges(AssistantFields):
    """Changes of an assistant: what is left out stays."""

    model: ModelName | None = None
    """The `engine_id` of its runs."""


class MessagePartInput(RequestBody):
    """A part of a message."""

    type: Annotated[str, Field(max_length=64)]
    """`text`: this server reads no images."""
    text: Annotated[str, Field(max_length=MAX_CONTENT_CHARS)] | None = None


class AttachmentTool(RequestBody):
    """A tool that an attached file is for."""

    type: Literal["file_search", "code_interpreter"]


class Attachment(RequestBody):
    """A file of a message."""

    file_id: ObjectId
    tools: Annotated[tuple[AttachmentTool, ...], Field(max_length=8)] = ()


class ThreadMessageBody(RequestBody):
    """A message for a thread."""

    role: Literal["user", "assistant"]
    content: Annotated[
        Annotated[str, Field(min_length=1, max_length=MAX_CONTENT_CHARS), STRING]
        | Annotated[tuple[MessagePartInput, ...], Field(min_length=1, max_length=100), ARRAY],
        by_kind("a string or an array of text parts"),
    ]
    attachments: Annotated[tuple[Attachment, ...], Field(max_length=MAX_FILES)] | None = None
    """Files whose text the model reads."""
    metadata: Metadata | None = None
    """Labels that come back with the object."""

    def to_object(self, thread_id: str, now: int, path: str = "") -> MessageObject:
        """The message as it is kept; `path` is where it stands, with a dot at its end."""
        attachments = [each.model_dump() for each in self.attachments or ()]
        return new_message(
            thread_id,
            self.role,
            self._parts(path),
            now,
            metadata=self.metadata,
            attachments=attachments,
        )

    def _parts(self, path: str) -> list[MessagePart]:
        if isinstance(self.content, str):
            return [text_part(self.content)]
        found = []
        for index, part in enumerate(self.content):
            where = f"{path}content.{index}"
            if part.type != "text":
                raise UnsupportedFeature(
                    f"{where}.type is {part.type!r}, but this server reads text only", param=f"{where}.type"
                )
            found.append(text_part(required(part.text, f"{where}.text")))
        return found


ThreadMessages: TypeAlias = Annotated[tuple[ThreadMessageBody, ...], Field(max_length=MAX_MESSAGES_AT_ONCE)]


class MetadataBody(RequestBody):
    """New labels in place of the old ones."""

    metadata: Metadata | None = None
    """Labels that come back with the object."""


class ThreadChanges(MetadataBody):
    """Changes of a thread: what is left out stays."""

    tool_resources: ToolResources | None = None


class ThreadBody(ThreadChanges):
    """A new thread. The body may be empty."""

    messages: ThreadMessages | None = None
    """Its first messages."""


class TruncationStrategy(RequestBody):
    """Which messages the model reads."""

    type: Literal["auto", "last_messages"]
    """`auto`: as many of the last ones as there is room for."""
    last_messages: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many of the last ones; required for the type of that name."""


class RunToolChoice(RequestBody):
    """A tool that must be called."""

    type: Literal["function", "file_search", "code_interpreter"]
    function: NamedFunction | None = None


class RunFields(OpenBody):
    """What a run may have besides what its thread and its assistant say."""

    assistant_id: ObjectId
    model: ModelName | None = None
    """In place of the assistant's."""
    instructions: Instructions | None = None
    """In place of the assistant's."""
    tools: AssistantTools | None = None
    """In place of the assistant's."""
    metadata: Metadata | None = None
    """Labels that come back with the object."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_prompt_tokens: MaxTokens | None = None
    """Tokens of the prompts of all its turns: the oldest messages are left out until they fit."""
    max_completion_tokens: MaxTokens | None = None
    """Tokens to generate in all its turns; a run that would have more ends `incomplete`."""
    truncation_strategy: TruncationStrategy | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], STRING] | Annotated[RunToolChoice, OBJECT],
            by_kind('"none", "auto", "required" or an object'),
        ]
        | None
    ) = None
    """Whether and which tools are called in its first turn; `auto` unless given."""
    parallel_tool_calls: bool | None = None
    """Whether one turn may make several calls; true unless given."""
    response_format: AnswerFormat | None = None
    """In place of the assistant's."""
    reasoning_effort: ReasoningEffort | None = None
    """In place of the assistant's."""
    stream: bool | None = None
    """Whether the answer is the events of the run, as server-sent events; the run goes on where the client leaves."""


class RunBody(RunFields):
    """A new run in a thread."""

    additional_instructions: Instructions | None = None
    """Added to the instructions."""
    additional_messages: ThreadMessages | None = None
    """Added to the thread before the run begins."""


class ThreadRunBody(RunFields):
    """A new thread with a run in it."""

    thread: ThreadBody | None = None
    tool_resources: ToolResources | None = None
    """Of the thread, where that has none of its own."""


class ToolOutput(RequestBody):
    """What a call gave."""

    tool_call_id: Annotated[str, Field(max_length=256)]
    output: Annotated[str, Field(max_length=MAX_CONTENT_CHARS)] = ""


class ToolOutputsBody(RequestBody):
    """What all the calls that a run waits for gave."""

    tool_outputs: Annotated[tuple[ToolOutput, ...], Field(max_length=512)]
    stream: bool | None = None
    """As of the run."""


def tool_objects(tools: AssistantTools | None) -> list[ObjectTool]:
    """Tools as they are kept."""
    found = [tool.to_object(f"tools.{index}") for index, tool in enumerate(tools or ())]
    names = [tool["function"]["name"] if tool["type"] == "function" else tool["type"] for tool in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidRequest(f"tools has two tools of the name {name!r}", param="tools")
    return found


def format_object(form: AnswerFormat | None) -> Any:
    """A format as it is kept. What is wrong with its schema is said now."""
    if form is None or isinstance(form, str):
        return "auto"
    form.to_grammar()
    return form.model_dump(by_alias=True, exclude_none=True)


def resources_object(resources: ToolResources | None) -> dict[str, Any] | None:
    """Resources as they are kept."""
    return None if resources is None else resources.model_dump(exclude_none=True)
