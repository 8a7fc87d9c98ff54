"""`kolosal bench`: which server is measured, and with which API key."""

from __future__ import annotations

from pathlib import Path

from kolosal.config.load import load_settings, process_environment


def server_to_measure(url: str | None, api_key: str | None, config: Path | None) -> tuple[str, str | None]:
    """The URL and the key: of the server that was named, else of this machine's daemon, whose key goes to nobody else."""
    api_key = api_key or process_environment().get("KOLOSAL_API_KEY") or None
    if url is not None:
        return url, api_key
    settings = load_settings(config_path=config).settings
    if api_key is None and settings.auth.api_key is not None:
        api_key = settings.auth.api_key.get_secret_value()
    return settings.server.url, api_key
