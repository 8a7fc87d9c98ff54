"""Names of models, for shells that complete them. Quick, and silent whatever happens."""

from __future__ import annotations

import asyncio

from kolosal.commands.address import configured_address, daemon_configuration
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import CommandError
from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration, process_environment
from kolosal.models.library import Library
from kolosal.models.places import stores_of

_LIMIT_S = 1.5
"""A shell waits for this."""


def model_names(incomplete: str) -> list[str]:
    """The names that begin so: the daemon's, or without one those on the disk."""
    try:
        return asyncio.run(_names(daemon_configuration(None), incomplete))
    except (CommandError, ConfigError, OSError, TimeoutError):
        return []


async def _names(configuration: Configuration, incomplete: str) -> list[str]:
    async with asyncio.timeout(_LIMIT_S):
        try:
            async with DaemonClient(configured_address(configuration)) as client:
                names = await client.models()
        except CommandError:
            names = await _on_disk(configuration)
    return sorted(name for name in names if name.startswith(incomplete))


async def _on_disk(configuration: Configuration) -> list[str]:
    library = Library(stores_of(configuration.settings, process_environment()))
    try:
        await library.refresh()
        return [model.name for model in library.models]
    finally:
        await library.close()
