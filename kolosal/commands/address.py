"""Which daemon a command is for: the one that was named, or the one of this machine's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration, load_settings, process_environment
from kolosal.config.settings import Settings
from kolosal.conversation.startup import client_key, daemon_source


@dataclass(frozen=True, slots=True)
class Address:
    """A daemon as a client reaches it."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    certificate: str | None = None
    """A PEM file that is trusted besides those of the system: the daemon's own, which may be signed by nobody else."""

    @classmethod
    def of(cls, settings: Settings, file_key: str | None = None) -> Address:
        """The daemon that these settings are for; `file_key` is its key where they have none."""
        key = settings.auth.api_key
        return cls(
            settings.server.url,
            file_key if key is None else key.get_secret_value(),
            settings.server.tls_certificate,
        )


def daemon_configuration(
    config: Path | None, flags: Mapping[str, object] | None = None, *, models: Sequence[str] = ()
) -> Configuration:
    """The daemon's settings as `load_settings` gives them, with what the conversation engine's files say below all others."""
    return load_settings(flags, models=models, config_path=config, base=daemon_source(process_environment()))


def named_address(url: str) -> Address:
    """A daemon that was named. The configured key is for the configured daemon; a variable is meant for this command."""
    return Address(url, process_environment().get("KOLOSAL_API_KEY") or None)


def address_to_measure(url: str | None, api_key: str | None, config: Path | None) -> Address:
    """The server that was named, else this machine's daemon, whose key goes to nobody else."""
    api_key = api_key or process_environment().get("KOLOSAL_API_KEY") or None
    if url is not None:
        return Address(url, api_key)
    own = Address.of(load_settings(config_path=config).settings)
    return own if api_key is None else replace(own, api_key=api_key)


def configured_address(configuration: Configuration) -> Address:
    """The daemon of this configuration."""
    if configuration.settings.server.port == 0:
        raise ConfigError("--url: needed, because the configured port is 0, which can be any")
    return Address.of(configuration.settings, client_key(process_environment()))
