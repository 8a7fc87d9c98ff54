"""Reading the configuration again while the daemon runs: what can hold at once does, and what cannot is said.

A configuration that is wrong changes nothing. Engines of the configuration are added, replaced and removed as over HTTP: without a
gap, and running answers finish.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kolosal.config.changes import ConfigChanges, changes
from kolosal.config.errors import ConfigError
from kolosal.config.models import ModelEntry
from kolosal.config.settings import Settings
from kolosal.engines.state import EngineState
from kolosal.errors import InvalidRequest, KolosalError
from kolosal.files.in_thread import in_thread
from kolosal.paths import ModelRoots, config_of_entry
from kolosal.routes.common.model_settings import read_models, take_models
from kolosal.routes.common.services import Reloaded, Services
from kolosal.security.quotas import limits_of

log = logging.getLogger(__name__)


class Reloader:
    """Of one daemon. Used on the event loop only; one at a time."""

    def __init__(
        self, services: Services, reread: Callable[[], Settings], trusted: set[str] | None = None
    ) -> None:
        """`reread` gives the settings as they are now, and blocks. Paths of the configuration's models become `trusted`."""
        self._services = services
        self._reread = reread
        self._trusted = set[str]() if trusted is None else trusted
        self._lock = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """Take over what is other, and say so.

        Raises:
            InvalidRequest: the configuration, or `models.yaml`, cannot be used; nothing has changed.
        """
        async with self._lock:
            try:
                new = await in_thread(self._reread)
            except (ConfigError, OSError) as exc:
                log.warning("config.not_reloaded", extra={"reason": str(exc)})
                raise InvalidRequest(str(exc), code="invalid_configuration") from exc
            found = changes(self._services.settings, new)
            said = await read_models(self._services)
            self._apply(found)
            models, failed = await self._take_models(found)
            renewed, not_renewed = await take_models(self._services, said)
            applied, failed = [*found.live, *models, *renewed], [*failed, *not_renewed]
            log.info(
                "config.reloaded",
                extra={"applied": applied, "needs_restart": found.needs_restart, "failed": failed},
            )
            return {"applied": applied, "needs_restart": [*found.needs_restart], "failed": failed}

    def _apply(self, found: ConfigChanges) -> None:
        services, settings = self._services, found.settings
        services.settings = settings
        services.admission.limit(settings.server)
        services.quotas.defaults = limits_of(settings.auth)
        services.model_roots = ModelRoots.of(
            settings.engines.model_roots, settings.models, services.library.folders
        )
        registry = services.registry
        registry.default_engine = settings.server.default_engine
        activity = settings.activity
        registry.observer.activity.set_limits(
            requests=activity.requests, capture_bytes=activity.capture_bytes
        )
        if "logging.level" in found.live:
            logging.getLogger().setLevel(settings.logging.level.upper())

    async def _take_models(self, found: ConfigChanges) -> tuple[list[str], list[str]]:
        """Which engines were changed, and which could not be, with the reason."""
        done, failed = [], []
        known = {engine.engine_id for engine in self._services.registry.list()}
        for engine_id in found.removed:
            if engine_id in known:
                self._services.registry.remove(engine_id)
            done.append(f"models[{engine_id}] removed")
        for entry in (*found.added, *found.changed):
            try:
                done.append(f"models[{entry.id}] {await self._put(entry, known)}")
            except KolosalError as exc:
                failed.append(f"models[{entry.id}]: {exc.message}")
        return done, failed

    async def _put(self, entry: ModelEntry, known: set[str]) -> str:
        registry = self._services.registry
        config = await config_of_entry(entry)
        self._trusted |= {config.model_path, config.parameters.draft_model_path or ""}
        if entry.id not in known:
            await registry.add(config, load=entry.load_immediately, rules=entry.rules)
            return "added"
        loaded = registry.get(entry.id).state is not EngineState.UNLOADED
        await registry.replace(config, load=loaded, rules=entry.rules)
        return "replaced"
