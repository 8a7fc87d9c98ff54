"""The settings of who may reach the daemon and do what: keys, hosts, origins, TLS, folders of models.

A part of `Settings`, in a file of its own because it is read as a whole. `docs/security.md` explains them.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from kolosal.config.key import Key


def _parts(value: object) -> object:
    """A list may also be written as one text with commas, as in an environment variable."""
    if isinstance(value, str):
        return tuple(part for text in value.split(",") if (part := text.strip()))
    return tuple(value) if isinstance(value, list) else value


_Host: TypeAlias = Annotated[str, Field(max_length=253, pattern=r"^(\*|\.?[A-Za-z0-9_.:-]+)$")]
_Origin: TypeAlias = Annotated[str, Field(max_length=300, pattern=r"^[a-z][a-z0-9+.-]*://[^/\s*,]+$")]
_Network: TypeAlias = Annotated[str, Field(max_length=64, pattern=r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$")]
_File: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096)]


class SecuritySettings(BaseModel):
    """The fields of `Settings` that this module owns."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    state_dir: Annotated[
        str | None,
        Key("server.state_dir"),
        Field(min_length=1, max_length=4096, description="Folder for what is remembered over restarts."),
    ] = None
    allow_open_access: Annotated[
        bool,
        Key("server.allow_open_access"),
        Field(description="Listen on an address that other machines reach although there is no key."),
    ] = False
    allowed_hosts: Annotated[
        tuple[_Host, ...],
        BeforeValidator(_parts),
        Key("server.allowed_hosts"),
        Field(
            max_length=100,
            description="Names, besides loopback ones and `server.host`, that requests may have in `Host`; "
            "`.example.com` stands for all names in it, `*` for any name at all.",
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[_Origin, ...],
        BeforeValidator(_parts),
        Key("server.cors_origins"),
        Field(max_length=100, description="Origins whose web pages may use this daemon; none: CORS is off."),
    ] = ()
    trusted_proxies: Annotated[
        tuple[_Network, ...],
        BeforeValidator(_parts),
        Key("server.trusted_proxies"),
        Field(
            max_length=100,
            description="Addresses or networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count.",
        ),
    ] = ()
    max_connections: Annotated[
        int,
        Key("server.max_connections"),
        Field(
            ge=1,
            le=100_000,
            description="Connections that are open at the same time at most; when there are more, an idle one is "
            "closed, or the new one is refused with 503.",
        ),
    ] = 1000
    tls_certificate: Annotated[
        _File | None,
        Key("server.tls_certificate"),
        Field(description="PEM file with the certificate and its chain; with it the daemon speaks HTTPS."),
    ] = None
    tls_key: Annotated[
        _File | None,
        Key("server.tls_key"),
        Field(description="PEM file with the private key of the certificate, without a pass phrase."),
    ] = None
    api_key: Annotated[
        Annotated[SecretStr, Field(min_length=16, max_length=512)] | None,
        Key("auth.api_key"),
        Field(
            description="An API key with both scopes; client commands send it too. At least 16 characters."
        ),
    ] = None
    api_key_file: Annotated[
        _File | None,
        Key("auth.api_key_file"),
        Field(description="File of API keys, one a line; a key may be followed by its scopes."),
    ] = None
    keys_file: Annotated[
        _File | None,
        Key("auth.keys_file"),
        Field(description="File that `kolosal keys` writes; empty: `keys.json` in `server.state_dir`."),
    ] = None
    lockout_failures: Annotated[
        int,
        Key("auth.lockout_failures"),
        Field(
            ge=0,
            le=1000,
            description="Wrong keys in a minute after which an address is refused with 429; 0 never refuses.",
        ),
    ] = 10
    share_prefix_across_keys: Annotated[
        bool,
        Key("auth.share_prefix_across_keys"),
        Field(description="Let requests of different keys share the KV cells of prompts that begin alike."),
    ] = False
    model_roots: Annotated[
        tuple[_File, ...],
        BeforeValidator(_parts),
        Key("engines.model_roots"),
        Field(
            max_length=100,
            description="Folders that models may be added from by request; empty: any, and with API keys "
            "the folders of the configured models.",
        ),
    ] = ()
