"""Prompts as tokens: what a model is given, for those who want to call it themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kolosal.conversation.prompts import ASSISTANT, build_review_message, conversation

if TYPE_CHECKING:
    from kolosal.conversation.model import Model
    from kolosal.conversation.tokenizer import PreparedInputs, Tokenizer

__all__ = ["build_review_message", "prepare_inputs"]


def prepare_inputs(
    tok: Tokenizer,
    model: Model,
    system_prompt_dict: Mapping[str, str],
    message: str,
    role: str = ASSISTANT,
    conversation_history: Sequence[Mapping[str, str]] | None = None,
) -> PreparedInputs:
    """The tokens of a conversation: the role's system prompt, the history and the new message.

    The text is read as tokens after the template was applied, so control tokens that are written in a message act as such;
    `ConversationEngine` and `get_reply` escape them.

    Raises:
        KeyError: there is no system prompt of that role.
        KolosalError: the model's host failed.
    """
    turns = conversation(system_prompt_dict, role, conversation_history, message)
    written = [{"role": turn.role, "content": turn.content} for turn in turns]
    text = tok.apply_chat_template(written, tokenize=False, add_generation_prompt=True)
    return tok(text).to(model.device)
