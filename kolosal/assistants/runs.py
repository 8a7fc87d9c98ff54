"""The states of a run, and what may follow what. Pure: the time is given, and what follows is returned.

queued → in_progress → completed | failed | incomplete | requires_action | expired
requires_action → queued (its outputs came) | cancelled | expired
queued, in_progress → cancelling → cancelled
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast

from kolosal.assistants.objects import (
    IncompleteReason,
    LastError,
    RunObject,
    RunStatus,
    RunStepObject,
    RunTokens,
    RunToolCall,
    StepStatus,
    added_tokens,
)
from kolosal.errors import InvalidRequest

RUN_TTL_S: Final = 600
"""Seconds after which a run that has not ended expires."""

ALLOWED: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    "queued": frozenset({"in_progress", "cancelling", "failed", "expired"}),
    "in_progress": frozenset({
        "completed", "failed", "incomplete", "requires_action", "cancelling", "expired",
    }),
    "requires_action": frozenset({"queued", "cancelled", "expired"}),
    "cancelling": frozenset({"cancelled"}),
    "cancelled": frozenset(),
    "failed": frozenset(),
    "completed": frozenset(),
    "incomplete": frozenset(),
    "expired": frozenset(),
}  # fmt: skip

ACTIVE: Final = frozenset(status for status, following in ALLOWED.items() if following)
"""While a run has one of these, nothing else happens in its thread."""

WAITING: Final = ("queued", "requires_action")
"""What an active run is kept as: the rest of its states is known to the daemon that carries it out alone."""

_TIMES: Final[Mapping[RunStatus, str]] = {
    "in_progress": "started_at", "cancelled": "cancelled_at", "failed": "failed_at", "completed": "completed_at",
}  # fmt: skip

LOST: Final[LastError] = {
    "code": "server_error",
    "message": "The daemon was stopped while the run was active",
}


def moved(run: RunObject, status: RunStatus, now: int, **changes: object) -> RunObject:
    """The run in another state, with other values of these keys besides.

    Raises:
        ValueError: that state cannot follow.
    """
    if status not in ALLOWED[run["status"]]:
        raise ValueError(f"a run that is {run['status']} cannot become {status}")
    times: dict[str, object] = {_TIMES[status]: now} if status in _TIMES else {}
    if status == "in_progress" and run["started_at"] is not None:
        times = {}
    ends: dict[str, object] = {} if status in ACTIVE else {"expires_at": None}
    return cast("RunObject", {**run, "status": status, "required_action": None, **times, **ends, **changes})


def ended(
    run: RunObject,
    status: RunStatus,
    now: int,
    usage: RunTokens | None,
    *,
    error: LastError | None = None,
    reason: str | None = None,
) -> RunObject:
    """The run after a turn that ended so. One that is being cancelled was cancelled, however its turn ended."""
    if run["status"] == "cancelling":
        status, error, reason = "cancelled", None, None
    details: IncompleteReason | None = None if reason is None else {"reason": reason}
    total = added_tokens(run["usage"], usage)
    return moved(run, status, now, usage=total, last_error=error, incomplete_details=details)


def waiting_for(run: RunObject, calls: Sequence[RunToolCall], now: int, usage: RunTokens | None) -> RunObject:
    """The run after a turn that called tools."""
    if run["status"] == "cancelling":
        return ended(run, "cancelled", now, usage)
    shown = [{**call, "function": {k: call["function"][k] for k in ("name", "arguments")}} for call in calls]
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": shown}}
    total = added_tokens(run["usage"], usage)
    return moved(run, "requires_action", now, required_action=action, usage=total)


def cancelled_by_client(run: RunObject, now: int) -> RunObject:
    """The run once a client wants it cancelled: at once where nothing is under way.

    Raises:
        InvalidRequest: it has ended.
    """
    if run["status"] == "cancelling":
        return run
    if run["status"] not in ACTIVE:
        raise InvalidRequest(f"Cannot cancel run with status '{run['status']}'.")
    return moved(run, "cancelled" if run["status"] == "requires_action" else "cancelling", now)


def as_it_is(run: RunObject, now: int, *, is_live: bool) -> RunObject:
    """A run that was kept, as it is now: what waited too long has expired, and what a daemon carried out that is gone has failed."""
    if is_live or run["status"] not in ACTIVE:
        return run
    if run["status"] != "requires_action":
        at = run["started_at"] or run["created_at"]
        return cast(
            "RunObject",
            {**run, "status": "failed", "failed_at": at, "expires_at": None, "last_error": LOST},
        )
    return moved(run, "expired", now) if now > (run["expires_at"] or now) else run


def step_as_it_is(step: RunStepObject, run: RunObject) -> RunStepObject:
    """A step that was kept, where its run ended without anybody carrying on with it."""
    if step["status"] != "in_progress" or run["status"] in ACTIVE:
        return step
    return closed_step(step, run["status"], run["failed_at"] or run["cancelled_at"] or run["created_at"])


def closed_step(
    step: RunStepObject,
    run_status: RunStatus,
    now: int,
    usage: RunTokens | None = None,
    error: LastError | None = None,
) -> RunStepObject:
    """A step as it ends with its run. One that is cut off by a limit of tokens is as whole as it will be."""
    status: StepStatus = "completed"
    if run_status in ("cancelled", "failed", "expired"):
        status = cast("StepStatus", run_status)
    changes = {"status": status, f"{status}_at": now, "usage": usage, "last_error": error}
    return cast("RunStepObject", {**step, **changes})


def refuse_while_active(run: RunObject, *, adding_to: str | None = None) -> None:
    """Refuse what cannot be done in a thread while this run of it is active; `adding_to`: the thread that a message is for.

    Raises:
        InvalidRequest: it is active.
    """
    if run["status"] not in ACTIVE:
        return
    if adding_to is not None:
        raise InvalidRequest(f"Can't add messages to {adding_to} while a run {run['id']} is active.")
    raise InvalidRequest(f"Thread {run['thread_id']} already has an active run {run['id']}.")


def wanted_calls(run: RunObject, given: Collection[str]) -> list[RunToolCall]:
    """The calls whose outputs a run waits for; `given` are the ids of those that came.

    Raises:
        InvalidRequest: it waits for none, or for others.
    """
    action = run["required_action"]
    if run["status"] != "requires_action" or action is None:
        raise InvalidRequest(f'Runs in status "{run["status"]}" do not accept tool outputs.')
    calls = action["submit_tool_outputs"]["tool_calls"]
    wanted = [call["id"] for call in calls]
    if sorted(given) != sorted(wanted):
        shown = [each[:64] for each in given]
        raise InvalidRequest(f"Expected tool outputs for call_ids {wanted}, got {shown}")
    return calls


def with_outputs(step: RunStepObject, outputs: Mapping[str, str], now: int) -> RunStepObject:
    """The step whose calls have been carried out."""
    calls: list[dict[str, Any]] = [
        {**call, "function": {**call["function"], "output": outputs[call["id"]]}}
        if "function" in call
        else call
        for call in step["step_details"]["tool_calls"]
    ]
    details = {**step["step_details"], "tool_calls": calls}
    return cast(
        "RunStepObject",
        {**step, "step_details": details, "status": "completed", "completed_at": now},
    )
