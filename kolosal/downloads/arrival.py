"""What is done with a model that has been fetched: the library sees it, what is said of it holds, and the engine that was wished for is
added."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from kolosal.downloads.download import Download
from kolosal.downloads.ollama_layers import layer_settings
from kolosal.engines.registry import EngineRegistry
from kolosal.files.in_thread import in_thread
from kolosal.models.library import Library
from kolosal.models.settings import ModelSettings
from kolosal.paths import Roots, checked_config


class Arrival:
    """Called by `Downloads` with each download whose files are all there."""

    def __init__(
        self,
        registry: EngineRegistry,
        library: Library,
        roots: Callable[[], Roots],
        remember: Callable[[str, ModelSettings], Awaitable[object]],
    ) -> None:
        """`roots` says where models of engines may lie; that may change. `remember` takes in what a model brings of settings."""
        self._registry = registry
        self._library = library
        self._roots = roots
        self._remember = remember

    async def __call__(self, download: Download) -> None:
        """Raises:
        KolosalError: the engine cannot be added. The model is there all the same.
        """
        await self._library.refresh()
        path = Path(download.plan.model_path)
        model = next((each for each in self._library.models if each.path == path), None)
        if model is not None:
            download.model = model.name
            said = await in_thread(layer_settings, model.name, model.layers) if model.layers else None
            if said is not None:
                await self._remember(model.name, said)
        wish = download.engine
        if wish is None:
            return
        config = await checked_config(wish.engine_id, str(path), wish.parameters, roots=self._roots())
        config = replace(config, given=wish.given)
        await self._registry.add(config, load=wish.load, rules=wish.rules, keep=True)
