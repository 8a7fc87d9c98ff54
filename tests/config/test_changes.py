"""What of a configuration that was read again holds at once."""

from __future__ import annotations

from kolosal.config.changes import LIVE, changes
from kolosal.config.models import ModelEntry
from kolosal.config.settings import SETTING_NAMES
from kolosal.engines.parameters import LoadingParameters
from tests.settings import settings_of


def entry(name: str, n_ctx: int = 4096) -> ModelEntry:
    return ModelEntry(id=name, path=f"/models/{name}.gguf", parameters=LoadingParameters(n_ctx=n_ctx))


def test_live_settings_are_settings() -> None:
    assert {name.key for name in SETTING_NAMES} >= LIVE


def test_what_cannot_hold_at_once_keeps_its_old_value() -> None:
    old = settings_of(port=1, log_level="info", max_requests=5)
    found = changes(old, settings_of(port=2, log_level="debug", max_requests=6))
    assert (found.live, found.needs_restart) == (["server.max_requests", "logging.level"], ["server.port"])
    now = found.settings
    assert (now.server.port, now.server.max_requests, now.logging.level) == (1, 6, "debug")


def test_engines_are_told_apart_by_their_id() -> None:
    old = settings_of(models=(entry("a"), entry("b"), entry("c")))
    found = changes(old, settings_of(models=(entry("b", n_ctx=512), entry("c"), entry("d"))))
    assert ([each.id for each in found.added], found.removed) == (["d"], ["a"])
    assert [each.id for each in found.changed] == ["b"]
    assert found.settings.models == (entry("b", n_ctx=512), entry("c"), entry("d"))
