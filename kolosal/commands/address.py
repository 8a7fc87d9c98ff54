"""Where a daemon is, and what it asks of its clients."""

from __future__ import annotations

from dataclasses import dataclass, field

from kolosal.config.settings import Settings


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
        key = file_key if settings.auth.api_key is None else settings.auth.api_key.get_secret_value()
        return cls(settings.server.url, key, settings.server.tls_certificate)
