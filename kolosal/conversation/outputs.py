"""Answers, whole or piece by piece, plain or improved: the functions below `ConversationEngine`.

All take `tok`, which only those that work on tokens need, so that they are called alike. All raise `KeyError` where a system
prompt is missing and `KolosalError` where the model cannot answer.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from kolosal.conversation.pipeline import Pipeline, run_pipeline
from kolosal.conversation.prompts import ASSISTANT, REVISER, build_review_message
from kolosal.conversation.review import MISSING, parse_review_sections

if TYPE_CHECKING:
    from kolosal.conversation.model import Model, TokenArray
    from kolosal.conversation.tokenizer import Tokenizer

__all__ = [
    "generate_reply",
    "get_and_improve_reply",
    "get_reply",
    "get_revised_reply",
    "parse_review_sections",
    "stream_and_improve_reply",
    "stream_and_improve_reply_display_intermediate",
    "stream_generate",
    "stream_reply",
]

Prompts: TypeAlias = Mapping[str, str]
History: TypeAlias = Sequence[Mapping[str, str]] | None
Pieces: TypeAlias = Generator[str, None, dict[str, str]]


def generate_reply(inputs: Mapping[str, TokenArray], tok: Tokenizer, model: Model) -> str:
    """The text that follows prepared inputs."""
    del tok
    return "".join(model.stream_tokens(inputs["input_ids"]))


def stream_generate(
    inputs: Mapping[str, TokenArray], tok: Tokenizer, model: Model, max_new_tokens: int = 4096
) -> Generator[str | None, None, str]:
    """The pieces of the text that follows prepared inputs, then None; returns the whole text."""
    del tok
    pieces = []
    for piece in model.stream_tokens(inputs["input_ids"], max_new_tokens=max_new_tokens):
        pieces.append(piece)
        yield piece
    yield None
    return "".join(pieces)


def get_reply(
    tok: Tokenizer,
    model: Model,
    system_prompt_dict: Prompts,
    message: str,
    role: str = ASSISTANT,
    conversation_history: History = None,
) -> str:
    """The answer to a message."""
    return "".join(stream_reply(tok, model, system_prompt_dict, message, role, conversation_history))


def stream_reply(
    tok: Tokenizer,
    model: Model,
    system_prompt_dict: Prompts,
    user_message: str,
    role: str = ASSISTANT,
    conversation_history: History = None,
) -> Pieces:
    """The pieces of the answer to a message; returns `{"reply": …}`."""
    del tok
    reply = Pipeline(system_prompt_dict, conversation_history, user_message, role=role)
    return (yield from run_pipeline(reply, model))


def get_revised_reply(
    user_message: str,
    draft_answer: str,
    tok: Tokenizer,
    model: Model,
    system_prompt_dict: Prompts,
    role: str = REVISER,
    conversation_history: History = None,
) -> tuple[str, str, str]:
    """Suggestions for a draft, the draft revised, and comments.

    Where the review has no revised answer that is the draft; other sections that are missing are the text `"None"`.
    """
    message = build_review_message(user_message, draft_answer)
    review = get_reply(tok, model, system_prompt_dict, message, role, conversation_history)
    suggestions, revision, comments = parse_review_sections(review)
    return suggestions, draft_answer if revision == MISSING else revision, comments


def get_and_improve_reply(
    tok: Tokenizer,
    model: Model,
    system_prompt_dict: Prompts,
    user_message: str,
    conversation_history: History = None,
) -> dict[str, str]:
    """A draft and two reviews of it: `user_question`, `draft_answer`, of each pass suggestions, revision and comments, and `reply`."""
    del tok
    improvement = Pipeline(system_prompt_dict, conversation_history, user_message, improvement=True)
    for _ in run_pipeline(improvement, model):
        pass
    return improvement.result


def stream_and_improve_reply(
    tok: Tokenizer,
    model: Model,
    system_prompt_dict: Prompts,
    user_message: str,
    conversation_history: History = None,
) -> Pieces:
    """A status for each of three generations, then the pieces of the last revision; returns as `get_and_improve_reply`."""
    del tok
    improvement = Pipeline(system_prompt_dict, conversation_history, user_message, improvement=True)
    return (yield from run_pipeline(improvement, model))


def stream_and_improve_reply_display_intermediate(
    tok: Tokenizer,
    model: Model,
    system_prompt_dict: Prompts,
    user_message: str,
    conversation_history: History = None,
) -> Pieces:
    """The pieces of the draft and of both reviews; returns as `get_and_improve_reply`."""
    del tok
    improvement = Pipeline(
        system_prompt_dict, conversation_history, user_message, improvement=True, show_steps=True
    )
    return (yield from run_pipeline(improvement, model))
