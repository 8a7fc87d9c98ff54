"""What the conversation routes of the daemon are set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kolosal.conversation.parameters import GenerationParameters
from kolosal.conversation.yaml_loading import load_system_prompt


@dataclass(frozen=True, slots=True)
class ConversationSettings:
    """System prompts, sampling and key; the package's own files where nothing else is said."""

    system_prompts: Mapping[str, str] = field(default_factory=lambda: load_system_prompt({}))
    """A text for each role; `assistant` and `reviser` are always there."""
    parameters: GenerationParameters = field(default_factory=GenerationParameters)
    api_key: str | None = field(default=None, repr=False)
    """One more key of the daemon, with both scopes; None: there is none of these files."""
