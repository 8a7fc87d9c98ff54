"""The section `server:`: where the daemon listens, whom it answers, and how many requests it holds."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, FiniteFloat

from kolosal.config.section import COMMAS, FilePath, SettingsSection, Variable
from kolosal.engines.parameters import EngineId

_Host: TypeAlias = Annotated[str, Field(max_length=253, pattern=r"^(\*|\.?[A-Za-z0-9_.:-]+)$")]
_Origin: TypeAlias = Annotated[str, Field(max_length=300, pattern=r"^[a-z][a-z0-9+.-]*://[^/\s*,]+$")]
_Network: TypeAlias = Annotated[str, Field(max_length=64, pattern=r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$")]


class ServerSettings(SettingsSection):
    """The socket, its limits and its security; `docs/security.md` explains the latter."""

    host: str = Field(default="127.0.0.1", max_length=253, pattern=r"^[A-Za-z0-9_.:%-]+$")
    """Address to listen on. Any but a loopback address lets other machines in."""
    port: int = Field(default=8080, ge=0, le=65535)
    """TCP port to listen on; 0 lets the system choose a free one."""
    default_engine: EngineId | None = None
    """Engine for requests that name none; empty: most protocols then want a name, the others take the first engine."""
    max_request_size: Annotated[int, Variable("MAX_BODY_BYTES")] = Field(
        default=16 * 1024 * 1024, ge=1024, le=1024**3
    )
    """Bytes of one request body; a longer one is refused with 413."""
    shutdown_drain_s: FiniteFloat = Field(default=30.0, ge=0, le=3600)
    """Seconds that running requests get to finish when the daemon stops; then they fail."""
    state_dir: FilePath | None = None
    """Folder for what is remembered over restarts."""
    max_requests: int = Field(default=1024, ge=1, le=100_000)
    """Requests that may load, wait or generate at the same time; more are refused with 503."""
    max_requests_per_key: int = Field(default=512, ge=1, le=100_000)
    """The same for one API key, where keys are used; more are refused with 429."""
    queue_timeout_s: FiniteFloat = Field(default=600.0, ge=0.1, le=86_400)
    """Seconds that a request may wait for its first token; then it is refused with 503."""
    stream_headers_after_s: FiniteFloat = Field(default=5.0, ge=0, le=3600)
    """Seconds after which the headers of a stream go out though its request still waits, and pings with them; what fails later is an
    event of the stream and no status any more."""
    max_connections: int = Field(default=1000, ge=1, le=100_000)
    """Connections that are open at the same time at most; when there are more, an idle one is closed, or the new one is
    refused with 503."""
    allow_open_access: bool = False
    """Listen on an address that other machines reach although there is no key."""
    allowed_hosts: Annotated[tuple[_Host, ...], COMMAS] = Field(default=(), max_length=100)
    """Names, besides loopback ones and `server.host`, that requests may have in `Host`; `.example.com` stands for all names
    in it, `*` for any name at all."""
    allow_local_apps: bool = True
    """Let in what runs on this machine, as Ollama does: pages of loopback addresses on any port and of desktop applications
    (`app://`, `tauri://`, `vscode-webview://`, `file://`), and the hosts `host.docker.internal` and `*.local`."""
    cors_origins: Annotated[tuple[_Origin, ...], COMMAS] = Field(default=(), max_length=100)
    """Origins, besides those of `server.allow_local_apps`, whose web pages may use this daemon."""
    trusted_proxies: Annotated[tuple[_Network, ...], COMMAS] = Field(default=(), max_length=100)
    """Addresses or networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count."""
    tls_certificate: FilePath | None = None
    """PEM file with the certificate and its chain; with it the daemon speaks HTTPS."""
    tls_key: FilePath | None = None
    """PEM file with the private key of the certificate, without a pass phrase."""
    update_url: str | None = Field(default=None, max_length=2048, pattern=r"^https?://[^\s]+$")
    """Where to ask once a day which version is the newest: JSON with `version`, or `info.version` as PyPI has it; empty: nobody is
    asked."""

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the daemon."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return self.url_of(host, self.port)

    def url_of(self, host: str, port: int) -> str:
        """The URL of an address that this daemon listens on."""
        scheme = "http" if self.tls_certificate is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
