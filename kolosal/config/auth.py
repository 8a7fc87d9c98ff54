"""The section `auth:`: API keys, and what somebody without a right one may try. `docs/security.md` explains them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from kolosal.config.section import FilePath, SettingsSection


class AuthSettings(SettingsSection):
    """Where keys stand, and what they keep apart."""

    api_key: Annotated[SecretStr, Field(min_length=16, max_length=512)] | None = None
    """An API key with both scopes; client commands send it too. At least 16 characters."""
    api_key_file: FilePath | None = None
    """File of API keys, one a line; a key may be followed by its scopes."""
    keys_file: FilePath | None = None
    """File that `kolosal keys` writes; empty: `keys.json` in `server.state_dir`."""
    lockout_failures: int = Field(default=10, ge=0, le=1000)
    """Wrong keys in a minute after which an address is refused with 429; 0 never refuses."""
    share_prefix_across_keys: bool = False
    """Let requests of different keys share the KV cells of prompts that begin alike."""
    requests_per_minute: int = Field(default=0, ge=0, le=10**12)
    """Requests for inference that one API key may make within a minute; 0: as many as it likes."""
    requests_per_day: int = Field(default=0, ge=0, le=10**12)
    """The same for a day, which ends at midnight UTC."""
    tokens_per_minute: int = Field(default=0, ge=0, le=10**12)
    """Tokens of prompts and answers that one API key may use within a minute; 0: as many as it likes."""
    tokens_per_day: int = Field(default=0, ge=0, le=10**12)
    """The same for a day, which ends at midnight UTC."""
