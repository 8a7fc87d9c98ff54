"""Settings: all sections put together, and the names under which operators know each setting.

Knows neither where values come from (`sources`) nor what they do. One field, one line of meaning: the documentation,
`kolosal config show` and the error messages are made of what stands in the sections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, Field

from kolosal.config.activity import ActivitySettings
from kolosal.config.auth import AuthSettings
from kolosal.config.cluster import ClusterSettings
from kolosal.config.documents import DocumentSettings
from kolosal.config.downloads import DownloadSettings
from kolosal.config.engines import EngineSettings
from kolosal.config.library import LibrarySettings
from kolosal.config.logging import LoggingSettings
from kolosal.config.models import MAX_MODELS, ModelEntry
from kolosal.config.openai import OpenAISettings
from kolosal.config.responses import ResponseSettings
from kolosal.config.rpc import RpcSettings
from kolosal.config.section import STRICT, SettingsSection, Variable
from kolosal.config.server import ServerSettings
from kolosal.config.sessions import SessionSettings
from kolosal.config.store import StoreSettings

ENV_PREFIX = "KOLOSAL_"


class Settings(BaseModel):
    """All settings, valid and unchangeable. Made by `load_settings`, or directly in tests."""

    model_config = STRICT

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    engines: EngineSettings = EngineSettings()
    cluster: ClusterSettings = ClusterSettings()
    library: LibrarySettings = LibrarySettings()
    downloads: DownloadSettings = DownloadSettings()
    openai: OpenAISettings = OpenAISettings()
    responses: ResponseSettings = ResponseSettings()
    rpc: RpcSettings = RpcSettings()
    sessions: SessionSettings = SessionSettings()
    store: StoreSettings = StoreSettings()
    documents: DocumentSettings = DocumentSettings()
    logging: LoggingSettings = LoggingSettings()
    activity: ActivitySettings = ActivitySettings()
    models: tuple[ModelEntry, ...] = Field(default=(), max_length=MAX_MODELS)
    """Engines to add when the daemon starts."""

    def value(self, key: str) -> object:
        """The value of a `section.key`."""
        section, _, name = key.partition(".")
        return getattr(getattr(self, section), name)


@dataclass(frozen=True, slots=True)
class SettingName:
    """What one setting, other than `models`, is called."""

    key: str
    """`section.key`, as in the file."""
    variable: str
    """Its environment variable."""
    meaning: str

    @property
    def flag(self) -> str:
        """Its name among the flags of `kolosal serve`, where it has one there: `log_level` for `--log-level`."""
        return self.variable.removeprefix(ENV_PREFIX).lower()


def _names() -> Iterator[SettingName]:
    for title, section in Settings.model_fields.items():
        if not (isinstance(section.annotation, type) and issubclass(section.annotation, SettingsSection)):
            continue
        prefix = section.annotation.variable_prefix
        for name, field in section.annotation.model_fields.items():
            regular = Variable(prefix + name.upper())
            variable = next((item for item in field.metadata if isinstance(item, Variable)), regular)
            yield SettingName(
                f"{title}.{name}", ENV_PREFIX + variable.name, " ".join((field.description or "").split())
            )


SETTING_NAMES = tuple(_names())
"""All settings but `models`, in the order of the documentation."""
