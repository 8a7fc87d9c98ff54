"""Conversations with a model: history, streaming, and answers that are reviewed and revised before they are given.

    from kolosal.conversation import ConversationEngine
    from kolosal.conversation.model_loading import initialize

    tok, model = initialize(device="auto", model_id="/models/llama.gguf")
    engine = ConversationEngine(tok, model, {"assistant": "You are brief.", "reviser": "You revise drafts."})
    for piece in engine.stream_reply("Hello"):
        print(piece, end="", flush=True)

The model runs in a worker process of its own, or in a daemon. Importing this loads no model and asks nobody.
"""

from __future__ import annotations

from kolosal.conversation.conversation_engine import ConversationEngine

__all__ = ["ConversationEngine"]
