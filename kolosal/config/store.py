"""The section `store:`: the database of what clients have the daemon keep."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from kolosal.config.section import SettingsSection

_URL = r"^(sqlite:///.+|postgres(ql)?://.+)$"


def _known(url: SecretStr) -> SecretStr:
    if not re.match(_URL, url.get_secret_value()):
        raise ValueError("neither")
    return url


class StoreSettings(SettingsSection):
    """Where the database is, and how much of it one API key may use."""

    variable_prefix: ClassVar[str] = "STORE_"

    url: (
        Annotated[
            SecretStr, Field(max_length=4096, json_schema_extra={"pattern": _URL}), AfterValidator(_known)
        ]
        | None
    ) = None
    """`sqlite:///PATH`, or `postgresql://USER:PASSWORD@HOST/DATABASE` with the extra `postgresql`; empty: `kolosal.db` in
    `server.state_dir`. One daemon at a time can have it."""
    max_bytes_per_key: int = Field(default=1024**3, ge=1024, le=1024**5)
    """Bytes that one API key may have kept; where no keys are used, all clients together."""
