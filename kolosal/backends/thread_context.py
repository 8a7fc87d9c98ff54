"""ThreadContext: one conversation, as a backend wants to see it. Each backend has its own class of them, or this one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kolosal.schema import Message

if TYPE_CHECKING:
    from kolosal.backends.interface import BackendInterfaceBase


class ThreadContext:
    """The turns of one conversation. The worker keeps one for each thread that the daemon knows, so that what a backend notes in
    it is there at the next run; a request that belongs to no thread has one of its own."""

    def __init__(self, interface: BackendInterfaceBase, thread_id: str = "") -> None:
        self.interface = interface
        self.thread_id = thread_id
        """Empty for a request that belongs to no thread."""
        self.messages: tuple[Message, ...] = ()
        """All turns, in order: instructions as the system's, what was said before, and what is to be answered."""

    def get_local_messages(self) -> list[dict[str, Any]]:
        """What `inference` is given as its messages: as chat templates know them, unless a backend wants something else."""
        return [as_dict(message) for message in self.messages]


def as_dict(message: Message) -> dict[str, Any]:
    """A turn as chat templates know it."""
    role = "system" if message.role == "developer" else message.role
    turn: dict[str, Any] = {"role": role, "content": message.content}
    if message.name is not None:
        turn["name"] = message.name
    if message.thinking is not None:
        turn["reasoning_content"] = message.thinking
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return turn


def _arguments(text: str) -> dict[str, Any]:
    """The arguments of an earlier call; what is no object is as good as none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
