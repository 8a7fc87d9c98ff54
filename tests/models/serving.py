"""The application over a folder of models, with engines that are ready at once: for tests of what routes do with a library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from kolosal.app import create_app
from kolosal.engines.engine import Engine
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import EngineConfig
from kolosal.models.folders import PlainFolder
from kolosal.models.library import Library
from kolosal.models.stores import Store
from tests.fakes import FakeEngine, FakeRegistry, http_client, says
from tests.gguf_files import LLAMA, UINT32, gguf
from tests.settings import settings_of

TINY = "org/Tiny-Q4_K_M"


class AddingRegistry(FakeRegistry):
    """Engines that are added are ready, and say something."""

    def _new_engine(self, config: EngineConfig, rules: Rules) -> Engine:
        engine = FakeEngine(config.engine_id, says("Hi."))
        engine.config, engine.rules, engine.observer = config, rules, self.observer
        return engine


def write_models(folder: Path) -> None:
    """A model and a damaged one."""
    (folder / "org").mkdir(parents=True)
    (folder / "org" / "Tiny-Q4_K_M.gguf").write_bytes(gguf({**LLAMA, "general.file_type": (UINT32, 15)}))
    (folder / "broken.gguf").write_bytes(b"GGUF")


def client_of(registry: FakeRegistry, *stores: Store | Path, **settings: Any) -> httpx.AsyncClient:
    """Talks to an application over these engines and stores, or folders."""
    library = Library([PlainFolder(store) if isinstance(store, Path) else store for store in stores])
    return http_client(create_app(settings_of(**settings), registry, library=library))
