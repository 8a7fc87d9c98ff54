"""The Assistants API (v2): https://platform.openai.com/docs/api-reference/assistants."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.assistants import assistants, runs, threads
from kolosal.routes.common.operation import with_v1

__all__ = ["routes"]

_THREAD = "/threads/{thread_id}"
_MESSAGE = _THREAD + "/messages/{message_id}"
_RUN = _THREAD + "/runs/{run_id}"


def routes() -> list[Route]:
    """The paths of this API. What is written out comes before what could be an id."""
    return with_v1(
        Route("/assistants", assistants.create_assistant, methods=["POST"]),
        Route("/assistants", assistants.list_assistants),
        Route("/assistants/{assistant_id}", assistants.show_assistant),
        Route("/assistants/{assistant_id}", assistants.change_assistant, methods=["POST"]),
        Route("/assistants/{assistant_id}", assistants.delete_assistant, methods=["DELETE"]),
        Route("/threads", threads.create_thread, methods=["POST"]),
        Route("/threads/runs", runs.create_thread_and_run, methods=["POST"]),
        Route(_THREAD, threads.show_thread),
        Route(_THREAD, threads.change_thread, methods=["POST"]),
        Route(_THREAD, threads.delete_thread, methods=["DELETE"]),
        Route(_THREAD + "/messages", threads.create_thread_message, methods=["POST"]),
        Route(_THREAD + "/messages", threads.list_thread_messages),
        Route(_MESSAGE, threads.show_thread_message),
        Route(_MESSAGE, threads.change_thread_message, methods=["POST"]),
        Route(_MESSAGE, threads.delete_thread_message, methods=["DELETE"]),
        Route(_THREAD + "/runs", runs.create_run, methods=["POST"]),
        Route(_THREAD + "/runs", runs.list_runs),
        Route(_RUN, runs.show_run),
        Route(_RUN, runs.change_run, methods=["POST"]),
        Route(_RUN + "/cancel", runs.cancel_run, methods=["POST"]),
        Route(_RUN + "/submit_tool_outputs", runs.submit_tool_outputs, methods=["POST"]),
        Route(_RUN + "/steps", runs.list_steps),
        Route(_RUN + "/steps/{step_id}", runs.show_step),
    )
