"""The section `downloads:`: where models are fetched from, and where they go."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field

from kolosal.config.section import COMMAS, SettingsSection

_Authority: TypeAlias = Annotated[str, Field(max_length=260, pattern=r"^[A-Za-z0-9_.\[\]:-]+$")]


class DownloadSettings(SettingsSection):
    """Where Hugging Face's hub and its cache are is said by its own variables: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`."""

    variable_prefix: ClassVar[str] = "DOWNLOADS_"

    offline: bool = False
    """Fetch nothing, whoever asks for it."""
    parallel: int = Field(default=2, ge=1, le=16)
    """Models that are fetched at the same time; more wait for their turn."""
    ollama_registry: str = Field(
        default="https://registry.ollama.ai", max_length=300, pattern=r"^https?://[A-Za-z0-9_.\[\]:-]+/?$"
    )
    """Where `ollama:NAME` and the names that Ollama's clients pull come from."""
    trusted_hosts: Annotated[tuple[_Authority, ...], COMMAS] = Field(default=(), max_length=100)
    """Hosts, as `nas.lan` or `10.0.0.5:8000`, that models may be fetched from although they are in a private network, and without TLS."""
