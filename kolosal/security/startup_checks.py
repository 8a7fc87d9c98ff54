"""The security check at the start: whether the daemon may listen where it is told to, and behind what keys and certificate.

Made once, before anything starts: whoever gets something wrong here is told so, instead of being open to the world.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kolosal.config.errors import ConfigError
from kolosal.config.load import state_folder
from kolosal.config.settings import Settings
from kolosal.files.deadline import LIMIT_S, within
from kolosal.files.regular import read_regular
from kolosal.security.auth import LOOK_EVERY_S, Authenticator, Keyring, Lockout
from kolosal.security.hosts import is_loopback
from kolosal.security.keys import ApiKey, KeyFile, plain_key, read_plain_keys

_MAX_TLS_BYTES = 1024 * 1024
"""Bytes of a file of certificates, or of a key."""

KEYS_FILE = "keys.json"
"""The file of `kolosal keys` in the state folder."""


@dataclass(frozen=True, slots=True)
class DaemonSecurity:
    """What the check found: who is let in, and with which certificate the daemon speaks TLS, if it does."""

    authenticator: Authenticator
    tls: ssl.SSLContext | None


def check_security(
    settings: Settings, environ: Mapping[str, str], file_key: str | None = None
) -> DaemonSecurity:
    """What the settings ask for, where they are safe; `file_key` as for `authenticator_of`.

    Raises:
        ConfigError: a file of keys or certificates cannot be used, or other machines could use the daemon without a key.
    """
    authenticator = authenticator_of(settings, key_file(settings, environ), file_key)
    tls = tls_context(settings.server.tls_certificate, settings.server.tls_key)
    server = settings.server
    if not (is_loopback(server.host.lower()) or authenticator.needed or server.allow_open_access):
        raise ConfigError(
            f"server.host: {server.host} lets other machines in, and there is no API key: make one with"
            " `kolosal keys create NAME`, or set server.allow_open_access to true where everybody may do everything"
        )
    return DaemonSecurity(authenticator, tls)


def key_file(settings: Settings, environ: Mapping[str, str]) -> KeyFile | None:
    """The file of `kolosal keys`; None where there is no place for one."""
    if settings.auth.keys_file is not None:
        return KeyFile(Path(settings.auth.keys_file).expanduser().absolute())
    folder = state_folder(settings, environ)
    return None if folder is None else KeyFile(folder / KEYS_FILE)


def authenticator_of(
    settings: Settings, file: KeyFile | None = None, file_key: str | None = None
) -> Authenticator:
    """Knows the keys of the settings, those of the file, and the one of the conversation engine's files or their vault.

    Raises ConfigError where a file cannot be read.
    """
    lockout = Lockout(settings.auth.lockout_failures, time.monotonic)
    keyring = Keyring(_configured_keys(settings, file_key), file, look_every_s=LOOK_EVERY_S)
    return Authenticator(keyring, lockout)


def _configured_keys(settings: Settings, file_key: str | None) -> tuple[ApiKey, ...]:
    keys: list[ApiKey] = []
    if file_key is not None:
        keys.append(plain_key(file_key, "server.api_key"))
    if settings.auth.api_key is not None:
        keys.append(plain_key(settings.auth.api_key.get_secret_value(), "auth.api_key"))
    if settings.auth.api_key_file is not None:
        try:
            keys += read_plain_keys(Path(settings.auth.api_key_file).expanduser().absolute())
        except ConfigError as exc:
            raise ConfigError(f"auth.api_key_file: {exc}") from exc
    return tuple(keys)


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS 1.2 or later with these files; None without.

    Raises:
        ConfigError: one is missing, cannot be read, or they do not belong together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, missing = (
            ("tls_key", "tls_certificate") if certificate is None else ("tls_certificate", "tls_key")
        )
        raise ConfigError(f"server.{missing}: is missing, and server.{given} is of no use without it")
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            read_regular(Path(path).expanduser(), _MAX_TLS_BYTES)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise ConfigError(f"server.{name}: {path}: cannot be read: {reason}") from exc
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # an empty pass phrase, because OpenSSL would ask for one on the terminal
        files = Path(certificate).expanduser(), Path(key).expanduser()
        within(LIMIT_S, context.load_cert_chain, *files, password="")
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        why = getattr(exc, "reason", None) or exc
        raise ConfigError(
            f"server.tls_certificate: {certificate} and {key} are no certificate in PEM form with its key, without a"
            f" pass phrase ({why})"
        ) from exc
    return context
