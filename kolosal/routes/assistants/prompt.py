"""From a run to what its engine is asked: the thread's turns, as many as there is room for, the tools, and how tokens are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

from kolosal.assistants.history import in_order, last_of, shortened, surely_fits, to_messages
from kolosal.assistants.objects import RunObject
from kolosal.assistants.searches import FILE_SEARCH, MAX_SEARCHES, SEARCH_TOOL
from kolosal.chat.formats import ToolFormat
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Render, Rendered
from kolosal.engines.unary import unary_call
from kolosal.errors import ContextLengthExceeded, InvalidRequest, UnsupportedFeature
from kolosal.http.large import in_thread_if_large
from kolosal.routes.assistants.bodies import AnswerFormat, AssistantTools
from kolosal.routes.openai.template_kwargs import to_template_kwargs
from kolosal.routes.openai.tools import tool_use
from kolosal.sampling import MAX_TOKENS_LIMIT, SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, Grammar, ToolMode, ToolUse
from kolosal.store.collections import MESSAGES, STEPS
from kolosal.store.pages import StoredRow

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

T = TypeVar("T")

MAX_HISTORY_CHARS = 4 * 1024 * 1024
"""Characters of a thread that are read for one run, the last ones."""

CHARS_PER_TOKEN = 8
"""Text has some four; what surely does not fit is not counted."""

MAX_HISTORY_MESSAGES = 10_000
"""Messages of a thread that are read for one run, the last ones."""

_ROWS_AT_ONCE = 200
_ROW_BYTES = 256
"""What a message costs to work with, as so much JSON."""

_MAX_STEPS = 4096
"""Rounds of calls that are read for one run."""

_MAX_CUTS = 8
"""Times that a prompt is shortened and its tokens are counted again."""

_tools: TypeAdapter[AssistantTools] = TypeAdapter(AssistantTools)
_format: TypeAdapter[AnswerFormat] = TypeAdapter(AnswerFormat)


class PromptLimitReached(Exception):
    """Not even the last message fits into the `max_prompt_tokens` of a run."""


async def read_history(session: StoreSession, run: RunObject, n_ctx: int | None) -> list[StoredRow]:
    """The thread's last messages, as many as may fit into the window of the engine where that is known, and the calls that its runs
    made since the first of them."""
    max_chars = min(MAX_HISTORY_CHARS, MAX_HISTORY_CHARS if n_ctx is None else n_ctx * CHARS_PER_TOKEN)
    thread_id, strategy = run["thread_id"], run["truncation_strategy"]
    wanted = strategy["last_messages"] if strategy["type"] == "last_messages" else None
    most = min(MAX_HISTORY_MESSAGES, wanted or MAX_HISTORY_MESSAGES)
    messages: list[StoredRow] = []
    n_chars = 0
    while n_chars < max_chars and len(messages) < most:
        limit = min(_ROWS_AT_ONCE, most - len(messages))
        before = messages[-1].seq if messages else None
        rows = await session.newest(MESSAGES, limit, before=before, thread_id=thread_id)
        messages += rows
        n_chars += sum(len(part["text"]["value"]) for row in rows for part in row.data["content"])
        if len(rows) < limit:
            break
    first = messages[-1].seq if messages else 0
    steps = [*await session.since(STEPS, first, _MAX_STEPS, thread_id=thread_id, type="tool_calls")]
    if run["usage"] is not None:  # the run goes on
        steps += await session.since(STEPS, first, MAX_SEARCHES, run_id=run["id"], type=FILE_SEARCH)
    return await _of_rows(messages, partial(in_order, messages, steps, run["id"]))


def knows_tools(engine: Engine) -> bool:
    """Whether an engine's model was made to call tools, as far as its chat template says."""
    return engine.info is not None and engine.info.tool_format is not ToolFormat.GENERIC


def forces_search(run: RunObject) -> bool:
    """Whether the run's next turn must be a search: its first one is what a `tool_choice` is for."""
    if run["usage"] is not None:
        return False
    choice = run["tool_choice"]
    functions = any(tool["type"] == "function" for tool in run["tools"])
    return _named(choice) == FILE_SEARCH or (choice == "required" and not functions)


def _named(choice: Any) -> str | None:
    """The tool that a choice names."""
    if not isinstance(choice, dict):
        return None
    name: str = choice["function"]["name"] if choice["type"] == "function" else choice["type"]
    return name


@dataclass(frozen=True, slots=True)
class RunPrompt:
    """What a run asks, for whatever engine."""

    run: RunObject
    history: Sequence[StoredRow]
    may_search: bool = False
    """Whether there is something to search, and the run may search once more."""

    def check(self) -> None:
        """Refuse what cannot be done, whatever the engine.

        Raises:
            KolosalError: it asks for what this daemon does not have, or for nothing.
        """
        for tool in self.run["tools"]:
            if tool["type"] == "code_interpreter":
                raise UnsupportedFeature(
                    "The tool code_interpreter is not supported: this server runs no code"
                )
        if not self.history:
            raise InvalidRequest("The thread has no messages: there is nothing to answer")
        if _named(self.run["tool_choice"]) == FILE_SEARCH and not self.may_search:
            raise InvalidRequest(
                "tool_choice asks for file_search, but there is nothing to search: the run has no such tool, or neither its assistant"
                " nor its thread has a vector store in tool_resources.file_search.vector_store_ids",
                param="tool_choice",
            )
        self._tool_use(offers_search=self.may_search)
        self._grammar()

    async def to_request(self, engine: Engine, whole: Callable[[ChatPrompt], ChatPrompt]) -> GenerateRequest:
        """The request for this engine, shortened until it fits; `whole` adds what is said of the model.

        Raises:
            PromptLimitReached: it cannot be as short as the run wants it.
            ContextLengthExceeded: the last message is too long for the model.
        """
        budget = self._budget(engine)
        rows = await _of_rows(self.history, partial(last_of, self.history, budget * CHARS_PER_TOKEN))
        for _ in range(_MAX_CUTS):
            request, fits = await _of_rows(rows, partial(self._request_within, rows, engine, budget))
            if fits:
                return request
            assert isinstance(request.prompt, ChatPrompt)  # noqa: S101 - as it was made
            n_tokens = (await unary_call(engine, Render(whole(request.prompt)), Rendered)).n_tokens
            if n_tokens <= budget:
                return request
            if len(rows) <= 1:
                break
            rows = await _of_rows(rows, partial(shortened, rows, n_tokens, budget))
        if self.run["max_prompt_tokens"] is not None:
            raise PromptLimitReached
        raise ContextLengthExceeded.of(n_tokens, budget)

    def _request_within(
        self, rows: Sequence[StoredRow], engine: Engine, budget: int
    ) -> tuple[GenerateRequest, bool]:
        """The request with these turns, and whether its prompt surely has no more tokens than this."""
        request = self._request(rows, engine)
        assert isinstance(request.prompt, ChatPrompt)  # noqa: S101 - as it was made
        return request, surely_fits(request.prompt.messages, budget)

    def _request(self, rows: Sequence[StoredRow], engine: Engine) -> GenerateRequest:
        run, calls = self.run, knows_tools(engine)
        kwargs = to_template_kwargs(None, run["reasoning_effort"])  # type: ignore[arg-type] # as it was checked
        tool_use = self._tool_use(offers_search=self.may_search and (calls or forces_search(run)))
        messages = to_messages(run["instructions"], rows, shows_searches=calls)
        prompt = ChatPrompt(messages, tool_use, template_kwargs=kwargs)
        wanted = {
            "temperature": run["temperature"], "top_p": run["top_p"], "max_tokens": self._max_tokens(),
        }  # fmt: skip
        given: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        sampling = SamplingParams(**given, given=tuple(given))
        return GenerateRequest(prompt, sampling, self._grammar(), thread_id=run["thread_id"])

    def _budget(self, engine: Engine) -> int:
        """Tokens that the prompt may have: room for an answer is left."""
        n_ctx = MAX_TOKENS_LIMIT if engine.info is None else engine.info.n_ctx
        answer = min(self._max_tokens() or n_ctx // 4, n_ctx // 4)
        room = max(1, n_ctx - answer)
        limit = self.run["max_prompt_tokens"]
        if limit is None:
            return room
        used = 0 if self.run["usage"] is None else self.run["usage"]["prompt_tokens"]
        return min(room, max(1, limit - used))

    def _max_tokens(self) -> int | None:
        limit = self.run["max_completion_tokens"]
        if limit is None:
            return None
        used = 0 if self.run["usage"] is None else self.run["usage"]["completion_tokens"]
        return max(1, min(limit - used, MAX_TOKENS_LIMIT))

    def _tool_use(self, *, offers_search: bool) -> ToolUse:
        found = _tools.validate_python(self.run["tools"])
        tools = tuple(
            tool.function.to_tool(f"tools.{index}.function")
            for index, tool in enumerate(found)
            if tool.function is not None
        )
        if offers_search:
            tools = (*tools, SEARCH_TOOL)
        named, choice = _named(self.run["tool_choice"]), self.run["tool_choice"]
        mode = ToolMode.REQUIRED if named is not None else ToolMode(choice or "auto")
        if mode is ToolMode.REQUIRED and self.run["usage"] is not None:
            mode, named = (
                ToolMode.AUTO,
                None,
            )  # a forced call is forced once: after its output the model may answer
        only = () if named is None else (named,)
        parallel = self.run["parallel_tool_calls"] and named is None
        return tool_use(tools, mode, only, parallel=parallel)

    def _grammar(self) -> Grammar | None:
        form = _format.validate_python(self.run["response_format"])
        return None if isinstance(form, str) else form.to_grammar()


async def _of_rows(rows: Sequence[StoredRow], work: Callable[[], T]) -> T:
    """The result of `work`, which looks at all of these rows."""
    return await in_thread_if_large(len(rows) * _ROW_BYTES, work)
