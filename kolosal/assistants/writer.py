"""RunWriter: one turn of a run, from the model's events to objects and to the events of a stream. Pure.

The order of the events is the API's, and its clients rely on it: a step and a message are created before anything is added to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, assert_never, cast

from kolosal.assistants.objects import (
    LastError,
    MessageObject,
    MessagePart,
    RunObject,
    RunStatus,
    RunStepObject,
    RunTokens,
    RunToolCall,
    added_tokens,
    new_answer,
    new_step,
    run_tokens,
)
from kolosal.assistants.runs import cancelled_by_client, closed_step, ended, moved, waiting_for
from kolosal.assistants.searches import FILE_SEARCH, SearchCall, new_call_id, query_of
from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.retrieval.citations import Citation, CitationReader, FoundText, unasked_markers
from kolosal.schema import FinishReason


class RunEvent(NamedTuple):
    """One event of a run's stream."""

    name: str
    data: Mapping[str, Any]


class WantedSearch(NamedTuple):
    """A search that a model asked for, or that is made for one."""

    call_id: str
    query: str
    """Empty: the call does not say."""


class RunWriter:
    """Makes objects and events of what a run says until it ends or waits for its client: a turn of the model, or several with searches
    between them. `run` is what the run is now; `messages` and `steps` are what was made.
    """

    def __init__(self, run: RunObject, clock: Callable[[], float]) -> None:
        """`clock` gives Unix time."""
        self.run = run
        self.messages: list[MessageObject] = []
        self.steps: list[RunStepObject] = []
        self.sources: Sequence[FoundText] = ()
        """What searches found, which messages may cite."""
        self.wanted: Sequence[WantedSearch] = ()
        """Searches that are to be carried out before the run goes on, see `searched`."""
        self._clock = clock
        self._text: list[str] = []
        self._reader = CitationReader(())
        self._annotations: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._arguments: list[list[str]] = []
        self._open = False
        """Whether the last step is under way."""

    @property
    def over(self) -> bool:
        """Whether the turn has ended."""
        return self.run["status"] not in ("queued", "in_progress", "cancelling")

    @property
    def made(self) -> list[MessageObject | RunStepObject]:
        """All that was made, in its order; a message before its step."""
        messages = {message["id"]: message for message in self.messages}
        objects: list[MessageObject | RunStepObject] = []
        for step in self.steps:
            if step["type"] == "message_creation":
                objects.append(messages[step["step_details"]["message_creation"]["message_id"]])
            objects.append(step)
        return objects

    def start(self) -> list[RunEvent]:
        """The model begins. Nothing for a run that is being cancelled."""
        if self.run["status"] != "queued":
            return []
        self.run = moved(self.run, "in_progress", self._now())
        return [self._run_event()]

    def cancel(self) -> list[RunEvent]:
        """A client wants the run cancelled.

        Raises:
            InvalidRequest: it has ended.
        """
        before = self.run["status"]
        self.run = cancelled_by_client(self.run, self._now())
        return [] if self.run["status"] == before else [self._run_event()]

    def push(self, event: ChatEvent) -> list[RunEvent]:
        """What an event of the model adds."""
        match event:
            case TextPiece():
                return self._push_text(event.text) if event.text else []
            case CallBegin():
                return self._begin_call(event)
            case CallPiece():
                return self._push_arguments(event)
            case Ended():
                return self._end_turn(event)
            case ThinkingPiece() | CallEnd():
                return []
            case _:
                assert_never(event)

    def end(
        self,
        status: RunStatus,
        usage: RunTokens | None = None,
        *,
        error: LastError | None = None,
        reason: str | None = None,
    ) -> list[RunEvent]:
        """The turn ends so, or cancelled where that was wanted."""
        if self.over:
            return []
        if self.run["status"] == "queued" and status not in ("failed", "expired"):
            self.run = moved(self.run, "in_progress", self._now())
        self.run = ended(self.run, status, self._now(), usage, error=error, reason=reason)
        why = {"cancelled": "run_cancelled", "failed": "run_failed", "expired": "run_expired"}
        whole = self.run["status"] == "completed"
        cut = None if whole else why.get(self.run["status"], "max_tokens")
        closed = self._close_step(self.run["status"], usage, cut, self.run["last_error"])
        return [*closed, self._run_event()]

    def search(self, query: str) -> list[RunEvent]:
        """Search before the model says anything."""
        call_id = new_call_id()
        self.wanted = [WantedSearch(call_id, query)]
        return [*self.start(), *self._begin_call(CallBegin(0, call_id, FILE_SEARCH))]

    def searched(self, made: Sequence[SearchCall]) -> list[RunEvent]:
        """The searches that were wanted, carried out. The model goes on, or the run waits for what functions give that it called as well."""
        by_id = {call["id"]: call for call in made}
        calls = [by_id.get(call["id"], call) for call in self._calls]
        functions = [cast("RunToolCall", call) for call in calls if call["type"] == "function"]
        self._keep_calls(calls, self.steps[-1]["usage"])
        self._calls, self._arguments, self.wanted = [], [], ()
        if functions:
            self.run = waiting_for(self.run, functions, self._now(), None)
            return [self._run_event()]
        return self._close_step("completed", self.steps[-1]["usage"], None)

    # --- text ---

    def _push_text(self, text: str) -> list[RunEvent]:
        events = [] if self._open and self.steps[-1]["type"] == "message_creation" else self._begin_message()
        return [*events, *(self._delta(piece) for piece in self._reader.push(text))]

    def _delta(self, piece: str | Citation) -> RunEvent:
        annotations: list[dict[str, Any]] = []
        text = piece
        if isinstance(piece, Citation):
            text, annotation = piece.text, _annotation(piece)
            annotations = [{"index": len(self._annotations), **annotation}]
            self._annotations.append(annotation)
        self._text.append(str(text))
        part = {"index": 0, "type": "text", "text": {"value": text, "annotations": annotations}}
        delta = {
            "id": self.messages[-1]["id"],
            "object": "thread.message.delta",
            "delta": {"content": [part]},
        }
        return RunEvent("thread.message.delta", delta)

    def _begin_message(self) -> list[RunEvent]:
        message = new_answer(self.run, self._now())
        events = self._begin_step(
            new_step(self.run, "message_creation", {"message_id": message["id"]}, self._now())
        )
        self.messages.append(message)
        self._text, self._annotations, self._reader = [], [], CitationReader(self.sources)
        return [
            *events,
            RunEvent("thread.message.created", message),
            RunEvent("thread.message.in_progress", message),
        ]

    def _close_message(self, cut: str | None) -> list[RunEvent]:
        held = self._reader.end()
        rest = [self._delta(held)] if held else []
        now = self._now()
        whole: dict[str, Any] = {"status": "completed", "completed_at": now}
        if cut is not None:
            whole = {"status": "incomplete", "incomplete_at": now, "incomplete_details": {"reason": cut}}
        content: list[MessagePart] = [
            {"type": "text", "text": {"value": "".join(self._text), "annotations": self._annotations}}
        ]
        message = cast("MessageObject", {**self.messages[-1], "content": content, **whole})
        self.messages[-1] = message
        return [*rest, RunEvent(f"thread.message.{message['status']}", message)]

    # --- calls ---

    def _begin_call(self, event: CallBegin) -> list[RunEvent]:
        events: list[RunEvent] = []
        if not self._calls:
            events = self._close_step("completed", None, None) if self._open else []
            step = new_step(self.run, "tool_calls", {}, self._now())
            details = {"type": "tool_calls", "tool_calls": []}
            events += self._begin_step(cast("RunStepObject", {**step, "step_details": details}))
        begun: dict[str, Any] = {"function": {"name": event.name, "arguments": "", "output": None}}
        if event.name == FILE_SEARCH:
            begun = {FILE_SEARCH: {}}
        (kind,) = begun
        self._calls.append({"id": event.id, "type": kind, **begun})
        self._arguments.append([])
        return [*events, self._call_delta(event.index, kind, begun, id=event.id)]

    def _push_arguments(self, event: CallPiece) -> list[RunEvent]:
        self._arguments[event.index].append(event.arguments)
        if self._calls[event.index]["type"] != "function":
            return []
        return [self._call_delta(event.index, "function", {"function": {"arguments": event.arguments}})]

    def _call_delta(self, index: int, kind: str, said: Mapping[str, Any], **more: str) -> RunEvent:
        call = {"index": index, **more, "type": kind, **said}
        details = {"type": "tool_calls", "tool_calls": [call]}
        delta = {
            "id": self.steps[-1]["id"],
            "object": "thread.run.step.delta",
            "delta": {"step_details": details},
        }
        return RunEvent("thread.run.step.delta", delta)

    def _end_calls(self, usage: RunTokens) -> list[RunEvent]:
        """The model has called: searches are carried out here, functions by the client."""
        joined = ["".join(pieces) for pieces in self._arguments]
        self.wanted = [
            WantedSearch(call["id"], query_of(arguments))
            for call, arguments in zip(self._calls, joined, strict=True)
            if call["type"] == FILE_SEARCH
        ]
        self._calls = [
            {**call, "function": {**call["function"], "arguments": arguments}} if "function" in call else call
            for call, arguments in zip(self._calls, joined, strict=True)
        ]
        self._keep_calls(self._calls, usage)
        if self.wanted and self.run["status"] != "cancelling":
            total = added_tokens(self.run["usage"], usage)
            self.run = cast("RunObject", {**self.run, "usage": total})
            return []
        self.run = waiting_for(self.run, cast("list[RunToolCall]", self._calls), self._now(), usage)
        if self.run["status"] == "cancelled":
            return [*self._close_step("cancelled", usage, None), self._run_event()]
        return [self._run_event()]

    def _keep_calls(self, calls: Sequence[Mapping[str, Any]], usage: RunTokens | None) -> None:
        details = {"type": "tool_calls", "tool_calls": calls}
        self.steps[-1] = cast("RunStepObject", {**self.steps[-1], "step_details": details, "usage": usage})

    # --- ends ---

    def _end_turn(self, event: Ended) -> list[RunEvent]:
        usage = run_tokens(event.usage)
        if event.finish_reason is FinishReason.TOOL_CALLS and self._calls:
            return self._end_calls(usage)
        if event.finish_reason is FinishReason.LENGTH:
            return self.end("incomplete", usage, reason="max_completion_tokens")
        begun = [] if self._open or self.run["status"] == "cancelling" else self._begin_message()
        return [*begun, *self._cite(), *self.end("completed", usage)]

    def _cite(self) -> list[RunEvent]:
        """Name the sources of an answer that names none itself."""
        markers = unasked_markers("".join(self._text), self.sources)
        return self._push_text(markers) if markers else []

    # --- steps ---

    def _begin_step(self, step: RunStepObject) -> list[RunEvent]:
        self.steps.append(step)
        self._open = True
        return [RunEvent("thread.run.step.created", step), RunEvent("thread.run.step.in_progress", step)]

    def _close_step(
        self, status: RunStatus, usage: RunTokens | None, cut: str | None, error: LastError | None = None
    ) -> list[RunEvent]:
        """The last step ends, with its message where it makes one; calls that nobody may carry out any more were cancelled."""
        if not self._open:
            return []
        self._open = False
        step = self.steps[-1]
        events = self._close_message(cut) if step["type"] == "message_creation" else []
        if step["type"] == "tool_calls" and status == "incomplete":
            status = "cancelled"
        self.steps[-1] = step = closed_step(step, status, self._now(), usage, error)
        return [*events, RunEvent(f"thread.run.step.{step['status']}", step)]

    def _run_event(self) -> RunEvent:
        return RunEvent(f"thread.run.{self.run['status']}", self.run)

    def _now(self) -> int:
        return int(self._clock())


def _annotation(citation: Citation) -> dict[str, Any]:
    return {
        "type": "file_citation",
        "text": citation.text,
        "start_index": citation.start,
        "end_index": citation.end,
        "file_citation": {"file_id": citation.file_id},
    }
