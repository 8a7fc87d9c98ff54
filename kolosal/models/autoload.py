"""Autoload: a model of the library becomes an engine when a request names it. What `EngineRegistry` is given as its `UnloadedModels`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kolosal.engines.memory.policy import DEFAULT_RULES, Rules
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.errors import ModelFileError, NotFound
from kolosal.models.entry import LibraryModel
from kolosal.models.library import Library
from kolosal.paths import Roots, checked_config


class Autoload:
    """The models of one library. Used on the event loop only."""

    def __init__(self, library: Library, allowed: Callable[[], bool], roots: Callable[[], Roots]) -> None:
        """`allowed` says whether requests may add engines, `roots` where models may lie; both may change."""
        self._library = library
        self._allowed = allowed
        self._roots = roots

    @property
    def names(self) -> Mapping[str, str]:
        """See `UnloadedModels`."""
        return self._library.names if self._allowed() else {}

    def find(self, name: str) -> str | None:
        """See `UnloadedModels`."""
        found = self._library.find(name)
        return None if found is None else found.name

    async def engine_for(self, name: str) -> tuple[EngineConfig, Rules] | None:
        """See `UnloadedModels`."""
        model = await self._library.look_up(name) if self._allowed() else None
        return None if model is None else (await self._config(model), DEFAULT_RULES)

    async def _config(self, model: LibraryModel) -> EngineConfig:
        try:
            if model.store_error is not None:
                raise ModelFileError(model.store_error, code="invalid_model_format")
            return await checked_config(model.name, str(model.path), LoadingParameters(), roots=self._roots())
        except ModelFileError as exc:
            if exc.code != "model_path_not_found":
                raise ModelFileError(
                    f"Model '{model.name}' cannot be loaded: {exc.message}", param="model", code=exc.code
                ) from None
            await self._library.refresh()
            raise NotFound(f"Model '{model.name}' not found: its file was removed", param="model") from None
