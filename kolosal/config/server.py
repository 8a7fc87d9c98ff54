"""The section `server:`: where the daemon listens, whom it answers, and how many requests it holds."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from kolosal.config.section import COMMAS, FilePath, SettingsSection, Variable
from kolosal.engines.parameters import EngineId

_Host: TypeAlias = Annotated[str, Field(max_length=253, pattern=r"^(\*|\.?[A-Za-z0-9_.:-]+)$")]
_Origin: TypeAlias = Annotated[str, Field(max_length=300, pattern=r"^[a-z][a-z0-9+.-]*://[^/\s*,]+$")]
_Network: TypeAlias = Annotated[str, Field(max_length=64, pattern=r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$")]


class ServerSettings(SettingsSection):
    """The socket, its limits and its security; `docs/security.md` explains the latter."""

    host: Annotated[
        str,
        Field(
            max_length=253,
            pattern=r"^[A-Za-z0-9_.:%-]+$",
            description="Address to listen on. Any but a loopback address lets other machines in.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(ge=0, le=65535, description="TCP port to listen on; 0 lets the system choose a free one."),
    ] = 8080
    default_engine: Annotated[
        EngineId | None,
        Field(
            description="Engine for requests that name none; empty: most protocols then want a name, the others take "
            "the first engine."
        ),
    ] = None
    max_request_size: Annotated[
        int,
        Variable("MAX_BODY_BYTES"),
        Field(
            ge=1024, le=1024**3, description="Bytes of one request body; a longer one is refused with 413."
        ),
    ] = 16 * 1024 * 1024
    shutdown_drain_s: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            allow_inf_nan=False,
            description="Seconds that running requests get to finish when the daemon stops; then they fail.",
        ),
    ] = 30.0
    state_dir: Annotated[
        FilePath | None, Field(description="Folder for what is remembered over restarts.")
    ] = None
    max_requests: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Requests that may load, wait or generate at the same time; more are refused with 503.",
        ),
    ] = 1024
    max_requests_per_key: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="The same for one API key, where keys are used; more are refused with 429.",
        ),
    ] = 512
    queue_timeout_s: Annotated[
        float,
        Field(
            ge=0.1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds that a request may wait for its first token; then it is refused with 503.",
        ),
    ] = 600.0
    max_connections: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Connections that are open at the same time at most; when there are more, an idle one is "
            "closed, or the new one is refused with 503.",
        ),
    ] = 1000
    allow_open_access: Annotated[
        bool, Field(description="Listen on an address that other machines reach although there is no key.")
    ] = False
    allowed_hosts: Annotated[
        tuple[_Host, ...],
        COMMAS,
        Field(
            max_length=100,
            description="Names, besides loopback ones and `server.host`, that requests may have in `Host`; "
            "`.example.com` stands for all names in it, `*` for any name at all.",
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[_Origin, ...],
        COMMAS,
        Field(max_length=100, description="Origins whose web pages may use this daemon; none: CORS is off."),
    ] = ()
    trusted_proxies: Annotated[
        tuple[_Network, ...],
        COMMAS,
        Field(
            max_length=100,
            description="Addresses or networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count.",
        ),
    ] = ()
    tls_certificate: Annotated[
        FilePath | None,
        Field(description="PEM file with the certificate and its chain; with it the daemon speaks HTTPS."),
    ] = None
    tls_key: Annotated[
        FilePath | None,
        Field(description="PEM file with the private key of the certificate, without a pass phrase."),
    ] = None

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the daemon."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return self.url_of(host, self.port)

    def url_of(self, host: str, port: int) -> str:
        """The URL of an address that this daemon listens on."""
        scheme = "http" if self.tls_certificate is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
