"""What differs between two configurations, and what of it a running daemon can take over. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kolosal.config.models import ModelEntry
from kolosal.config.settings import SETTING_NAMES, Settings

LIVE = frozenset({
    "activity.capture_bytes", "activity.requests", "auth.requests_per_day", "auth.requests_per_minute",
    "auth.share_prefix_across_keys", "auth.tokens_per_day", "auth.tokens_per_minute", "engines.model_roots", "library.autoload", "logging.level",
    "rpc.max_iterations", "server.default_engine", "server.max_requests", "server.max_requests_per_key", "server.queue_timeout_s",
    "server.shutdown_drain_s",
})  # fmt: skip
"""Settings that hold at once when they are read again. Keys of the file of `kolosal keys` do so anyway, and `models` too."""


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """What a configuration that was read again has that the one in force has not."""

    settings: Settings
    """What is in force from now on: the old settings with the new values of `LIVE` ones, and the new `models`."""
    live: Sequence[str]
    """Settings that have other values and hold at once."""
    needs_restart: Sequence[str]
    """Settings that have other values, which hold after the next start only."""
    added: Sequence[ModelEntry]
    removed: Sequence[str]
    """Ids of engines that the configuration no longer has."""
    changed: Sequence[ModelEntry]


def changes(old: Settings, new: Settings) -> ConfigChanges:
    """What is other in `new`."""
    differ = [name.key for name in SETTING_NAMES if old.value(name.key) != new.value(name.key)]
    sections: dict[str, dict[str, object]] = {}
    for key in filter(LIVE.__contains__, differ):
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = new.value(key)
    update: dict[str, object] = {
        section: getattr(old, section).model_copy(update=values) for section, values in sections.items()
    }
    before = {entry.id: entry for entry in old.models}
    after = {entry.id: entry for entry in new.models}
    return ConfigChanges(
        settings=old.model_copy(update={**update, "models": new.models}),
        live=[key for key in differ if key in LIVE],
        needs_restart=[key for key in differ if key not in LIVE],
        added=[entry for entry in new.models if entry.id not in before],
        removed=[engine_id for engine_id in before if engine_id not in after],
        changed=[entry for entry in new.models if entry.id in before and before[entry.id] != entry],
    )
