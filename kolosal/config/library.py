"""The section `library:`: where models lie that have no engine yet, and whether a request may make one an engine."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kolosal.config.section import COMMAS, FilePath, SettingsSection


class LibrarySettings(SettingsSection):
    """Models on the disk. Those that the section `models:` names are engines without it."""

    variable_prefix: ClassVar[str] = "LIBRARY_"

    folders: Annotated[tuple[FilePath, ...], COMMAS] = Field(default=(), max_length=100)
    """Folders whose `.gguf` files are models; empty: the folder `models` among the daemon's data."""
    huggingface: bool = True
    """Take in models in the cache of Hugging Face, whose place `HF_HUB_CACHE` and `HF_HOME` say."""
    ollama: bool = True
    """Take in models in the store of Ollama, whose place `OLLAMA_MODELS` says."""
    lm_studio: bool = True
    """Take in models in the folder of LM Studio."""
    autoload: bool = True
    """Make a model of the library an engine when a request names it; it is unloaded like any other, and not remembered."""
    models_file: FilePath | None = None
    """What is said of each model: aliases, profiles, sampling, system prompt; unless given, `models.yaml` beside the configuration."""
