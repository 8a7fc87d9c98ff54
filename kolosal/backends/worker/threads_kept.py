"""KeptContexts: the conversations that a backend's worker remembers, one for each thread."""

from __future__ import annotations

from collections import OrderedDict

from kolosal.backends.interface import BackendInterfaceBase
from kolosal.backends.thread_context import ThreadContext
from kolosal.schema import Message

MAX_CONTEXTS = 256
"""Threads that are remembered; of more the one that was least recently used is forgotten."""


class KeptContexts:
    """Owns them. Used on the event loop only."""

    def __init__(self, interface: BackendInterfaceBase) -> None:
        self._interface = interface
        self._kept: OrderedDict[str, ThreadContext] = OrderedDict()

    def of(self, thread_id: str, messages: tuple[Message, ...]) -> ThreadContext:
        """The context of a thread, with the turns that it has now; a new one for what belongs to no thread."""
        context = self._kept.pop(thread_id, None) or self._interface.thread_context(
            self._interface, thread_id
        )
        context.messages = messages
        if thread_id:
            self._kept[thread_id] = context
            if len(self._kept) > MAX_CONTEXTS:
                self._kept.popitem(last=False)
        return context
