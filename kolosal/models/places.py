"""Which folders the settings and the environment make stores of the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from kolosal.config.load import data_folder
from kolosal.config.settings import Settings
from kolosal.models.folders import HuggingFaceCache, LmStudioFolder, PlainFolder
from kolosal.models.ollama_store import FETCHED_FOLDER, OllamaStore
from kolosal.models.stores import Store

_OLLAMA_SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama's installer for Linux has its service keep models."""


def stores_of(settings: Settings, environ: Mapping[str, str], platform: str = sys.platform) -> list[Store]:
    """The folders that models are looked for in, those that the operator named first."""
    chosen, home = settings.library, _home(environ)
    folders = model_folders(settings, environ)
    stores: list[Store] = [PlainFolder(folder) for folder in folders]
    stores += (OllamaStore(folder / FETCHED_FOLDER) for folder in folders[:1])
    if chosen.huggingface:
        stores += map(HuggingFaceCache, _hub_cache(environ, home))
    if chosen.ollama:
        stores += map(OllamaStore, _ollama(environ, home, platform))
    if chosen.lm_studio and home is not None:
        stores += (
            LmStudioFolder(home / ".lmstudio/models"),
            LmStudioFolder(home / ".cache/lm-studio/models"),
        )
    return stores


def model_folders(settings: Settings, environ: Mapping[str, str]) -> list[Path]:
    """Folders of `.gguf` files; what is fetched is put into the first."""
    given = [Path(folder).expanduser().absolute() for folder in settings.library.folders]
    own = data_folder(settings, environ)
    return given or ([] if own is None else [own / "models"])


def _home(environ: Mapping[str, str]) -> Path | None:
    home = environ.get("HOME") or environ.get("USERPROFILE")
    return Path(home) if home else None


def _hub_cache(environ: Mapping[str, str], home: Path | None) -> Iterator[Path]:
    """Where `huggingface_hub` has its cache, by its own variables."""
    if cache := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        yield Path(cache).expanduser().absolute()
    elif own := environ.get("HF_HOME"):
        yield Path(own).expanduser().absolute() / "hub"
    elif caches := environ.get("XDG_CACHE_HOME"):
        yield Path(caches).expanduser().absolute() / "huggingface/hub"
    elif home is not None:
        yield home / ".cache/huggingface/hub"


def _ollama(environ: Mapping[str, str], home: Path | None, platform: str) -> Iterator[Path]:
    if given := environ.get("OLLAMA_MODELS"):
        yield Path(given).expanduser().absolute()
        return
    if home is not None:
        yield home / ".ollama/models"
    if platform.startswith("linux"):
        yield _OLLAMA_SERVICE
