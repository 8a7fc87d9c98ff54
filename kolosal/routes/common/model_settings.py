"""What is said of models, taken over by a running daemon: names, groups and defaults at once, parameters by loading again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from kolosal.config.errors import ConfigError
from kolosal.engines.names import plain
from kolosal.errors import InvalidRequest, KolosalError
from kolosal.models.models_file import ModelsFile
from kolosal.models.settings import ModelsSettings
from kolosal.models.settings_file import FILE_NAME, Change, drop_alias, remove_name
from kolosal.routes.common.services import Services

log = logging.getLogger(__name__)


async def read_models(services: Services) -> ModelsFile:
    """`models.yaml` as it is now. What holds goes on to hold where it cannot be used.

    Raises:
        InvalidRequest: it cannot be used.
    """
    try:
        return await services.model_settings.read(_acceptable(services))
    except ConfigError as exc:
        log.warning("models.not_reloaded", extra={"reason": str(exc)})
        raise _refused(exc) from exc


async def change_models(services: Services, change: Change) -> list[str]:
    """Write a change into `models.yaml`, and have it hold; what became of engines.

    Raises:
        InvalidRequest: the file as it would be cannot be used, or not be written; nothing has changed.
    """
    try:
        said = await services.model_settings.change(change, _acceptable(services))
    except ConfigError as exc:
        raise _refused(exc) from exc
    applied, failed = await take_models(services, said)
    return applied + failed


async def forget_name(services: Services, name: str) -> bool:
    """Take out an alias, or a model that is made of another one; whether the name was one of these. Raises as `change_models`."""
    said = services.model_settings.said
    key = plain(name)
    aliases = {plain(alias) for model in said.settings.models.values() for alias in model.alias}
    entry = next((each for each in said.settings.models if plain(each) == key), None)
    if key in aliases:
        await change_models(services, drop_alias(name))
    elif entry is not None and said.settings.models[entry].base is not None:
        await change_models(services, remove_name(entry))
    else:
        return False
    return True


async def take_models(services: Services, said: ModelsFile) -> tuple[list[str], list[str]]:
    """Have what is said hold: what became of engines, and which could not be loaded again, with the reason."""
    registry = services.registry
    before, registry.known = registry.known, said
    old = before.settings if isinstance(before, ModelsFile) else ModelsSettings()
    done, failed = [f"{FILE_NAME}: {name}" for name in _other(old, said.settings)], list[str]()
    if not done:
        return [], []
    for engine in registry.outdated:
        try:
            await registry.renew(engine)
            done.append(f"{engine.engine_id} replaced")
        except KolosalError as exc:
            failed.append(f"{engine.engine_id}: {exc.message}")
    log.info("models.taken", extra={"applied": done, "failed": failed})
    return done, failed


def _other(old: ModelsSettings, new: ModelsSettings) -> Iterator[str]:
    """Names of models and groups of which something else is said."""
    for before, after in ((old.models, new.models), (old.groups, new.groups)):
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                yield name


def _acceptable(services: Services) -> Callable[[ModelsFile], None]:
    ids = [engine.engine_id for engine in services.registry.list() if engine.root is None]
    return lambda said: said.refuse_taken(ids)


def _refused(error: ConfigError) -> InvalidRequest:
    return InvalidRequest(str(error), code="invalid_configuration")
