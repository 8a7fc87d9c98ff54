"""The API key out of an Azure Key Vault, asked for once, at start.

The Azure SDK is the optional extra `azure` and is imported only here, and only when a vault is configured. The secret is
returned and never logged.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


class KeyVaultError(RuntimeError):
    """The key could not be had. The daemon does not start without it: it would be open to everybody."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Failed to load API key from Key Vault: {reason}")


def load_api_key(
    vault_url: str, secret_name: str, credential: TokenCredential | None = None, **client_options: Any
) -> str:
    """The value of a secret. Blocks on the network.

    `credential` is `DefaultAzureCredential` unless given; `client_options` go to the SDK's `SecretClient`.

    Raises:
        KeyVaultError: the SDK is not installed, the vault says no or cannot be reached, or the secret is empty.
    """
    try:
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - an optional extra
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - as above
        from azure.keyvault.secrets import SecretClient  # noqa: PLC0415 - as above
    except ImportError as exc:
        raise KeyVaultError("the Azure SDK is not installed: pip install 'kolosal[azure]'") from exc
    try:
        own = DefaultAzureCredential() if credential is None else contextlib.nullcontext(credential)
        with own as used, SecretClient(vault_url, used, **client_options) as client:
            value = client.get_secret(secret_name).value
    except (AzureError, ValueError, OSError) as exc:  # ValueError: no URL of a vault
        raise KeyVaultError(" ".join(str(exc).split())) from exc
    if not value:
        raise KeyVaultError(f"the secret {secret_name!r} is empty")
    return value
