"""The section `openai:`: what the OpenAI dialect does unless a request says otherwise."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kolosal.config.section import SettingsSection


class OpenAISettings(SettingsSection):
    """Defaults of the OpenAI dialect."""

    variable_prefix: ClassVar[str] = "OPENAI_"

    default_max_tokens: int | None = Field(default=128, ge=-1, le=1_000_000)
    """`max_tokens` of chat completions that give none; empty and -1: to the end of the context window."""
