"""Backends: what generates text for an engine. llama.cpp is one; others are Python classes, written by anybody.

`docs/backends.md` says how. This is the public side: a backend imports it and nothing else of Kolosal.
"""

from __future__ import annotations

from kolosal.backends.interface import BackendFacts, BackendInterfaceBase, Finish, Messages, Piece
from kolosal.backends.registry import register_backend
from kolosal.backends.thread_context import ThreadContext
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.errors import ContextLengthExceeded, GenerationFailed, InvalidRequest, UnsupportedFeature
from kolosal.schema import Message, Usage

__all__ = [
    "BackendFacts",
    "BackendInterfaceBase",
    "ContextLengthExceeded",
    "EngineConfig",
    "Finish",
    "GenerationFailed",
    "InvalidRequest",
    "LoadingParameters",
    "Message",
    "Messages",
    "Piece",
    "ThreadContext",
    "UnsupportedFeature",
    "Usage",
    "register_backend",
]
