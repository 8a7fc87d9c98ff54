"""What a model is told: a conversation with its system prompt, and the request to review a draft. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kolosal.schema import Message

ASSISTANT = "assistant"
"""The system prompt that answers."""

REVISER = "reviser"
"""The system prompt that reviews drafts."""

_FORMAT = """\
### Improvements
### Revised Answer
### Comments"""


def conversation(
    system_prompts: Mapping[str, str],
    role: str,
    history: Sequence[Mapping[str, str]] | None,
    message: str,
) -> tuple[Message, ...]:
    """The turns of a prompt: the role's system prompt, what was said before, and the new message.

    Raises:
        KeyError: there is no system prompt of that role, or a turn lacks `role` or `content`.
    """
    turns = [Message(turn["role"], turn["content"]) for turn in history or ()]
    return (Message("system", system_prompts[role]), *turns, Message("user", message))


def build_review_message(user_message: str, draft_answer: str) -> str:
    """What the reviser is asked: to criticise a draft answer and to write it anew, under three fixed headings."""
    return f"""\
Review the draft answer below and write a better one.

The user's message:
{user_message}

The draft answer:
{draft_answer}

Rules:
1. List at least five numbered improvements, each of them specific.
2. Apply them all. The revised answer must not be shorter than the draft and keeps its structure and tone.
3. The revised answer stands alone: write it out in full, not as a list of changes, and leave nothing out with an ellipsis.
4. Keep code in fenced code blocks.

Your reply must have exactly these three headings, each on a line of its own and in this order:

{_FORMAT}

Under "### Improvements" stands the numbered list, under "### Revised Answer" the whole new answer and nothing else, under
"### Comments" what is still worth knowing about it.
"""
