"""The one error of a configuration that cannot be used."""

from __future__ import annotations


class ConfigError(Exception):
    """The configuration cannot be used. The message is one line and names the source and the key at fault."""
