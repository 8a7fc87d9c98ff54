"""The only maker of connections to other machines for a file: a GET, its redirects, and who may be asked at all.

A name is resolved once, all its addresses are checked, and one of these is connected to: a name that means another address a
moment later (DNS rebinding) changes nothing. Each redirect is checked in the same way. What is secret is said to the one
origin that it is for. Blocking, as all of the fetcher is; `http.client` because it reads into a buffer of ours, which is what
makes this as fast as curl.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from kolosal import __version__
from kolosal.downloads.address import Url, is_link_local, is_public, parse_url
from kolosal.errors import DownloadFailed, InvalidRequest, KolosalError

CONNECT_S = 10.0
"""Until an address accepts a connection."""
SILENCE_S = 30.0
"""Without a byte, after which a connection is given up and made anew."""
MAX_REDIRECTS = 8

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Reach:
    """Which machines may be asked for one download."""

    private: bool = False
    """Also this one and others of its network: where the operator named such a one."""

    @classmethod
    def of(cls, url: Url, trusted_hosts: tuple[str, ...] = (), *, configured: bool = False) -> Reach:
        """What may be asked for a URL. `configured`: it is the operator's own, and where it leads is his choice.

        Raises:
            DownloadFailed: its host cannot be found.
        """
        if configured:
            return cls(not all(map(is_public, _addresses(url))))
        named = {host.lower() for host in trusted_hosts}
        return cls(not named.isdisjoint({url.host, url.authority, f"{url.host}:{url.port}"}))

    def check(self, url: Url) -> tuple[str, ...]:
        """The addresses of a URL's host.

        Raises:
            InvalidRequest: it may not be asked.
            DownloadFailed: it cannot be found.
        """
        if url.scheme != "https" and not self.private:
            raise InvalidRequest(
                f"{url.without_query[:200]!r} is without TLS: only https:// is fetched, but from hosts that the setting"
                " downloads.trusted_hosts names",
                param="source",
            )
        addresses = _addresses(url)
        allowed = (lambda each: not is_link_local(each)) if self.private else is_public
        if not all(map(allowed, addresses)):
            raise InvalidRequest(
                f"{url.authority} is in a private network, which nothing is fetched from but from hosts that the setting"
                " downloads.trusted_hosts names",
                param="source",
                code="address_not_allowed",
            )
        return addresses


@dataclass(frozen=True, slots=True)
class Secret:
    """A header that only one origin may see."""

    origin: tuple[str, str, int]
    name: str
    value: str


class Response:
    """An answer, whose body has not been read yet. Close it."""

    def __init__(self, connection: _Connection, answer: http.client.HTTPResponse, url: Url) -> None:
        self._connection = connection
        self._answer = answer
        self.url = url
        """Where it came from in the end."""
        self.status = answer.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in answer.getheaders()}

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._connection.close()

    def read_into(self, buffer: bytearray) -> int:
        """What has come of the body since, as far as it has room; 0 at the end. For bodies of a known length.

        One call of the system each, so that what came before a connection broke is not lost.

        Raises:
            DownloadFailed: the connection broke.
        """
        try:
            return self._answer.fp.readinto1(buffer)
        except (OSError, http.client.HTTPException) as exc:
            raise _broke(self.url, exc) from exc

    def read_start(self, count: int) -> bytes:
        """The first bytes of the body.

        Raises:
            DownloadFailed: the connection broke.
        """
        try:
            return self._answer.read(count)
        except (OSError, http.client.HTTPException) as exc:
            raise _broke(self.url, exc) from exc

    def read(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            DownloadFailed: it is longer.
        """
        data = self.read_start(max_bytes + 1)
        if len(data) > max_bytes:
            raise DownloadFailed(f"{self.url.authority} answered with more than {max_bytes} bytes")
        return data


def get(url: Url, reach: Reach, headers: Mapping[str, str], secret: Secret | None = None) -> Response:
    """Ask for a URL and follow where that leads. Any status but a redirect is the caller's to judge.

    Raises:
        InvalidRequest: it, or where it leads to, may not be asked.
        DownloadFailed: there is no connection, it broke, or it leads nowhere.
    """
    for _ in range(MAX_REDIRECTS):
        response = _ask(url, reach, headers, secret)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or location is None:
            return response
        with response:
            try:
                url = parse_url(location, base=url)
            except InvalidRequest as exc:
                raise DownloadFailed(f"{url.authority} leads elsewhere: {exc.message}") from exc
    raise DownloadFailed(
        f"{url.authority} leads from one address to the next, more than {MAX_REDIRECTS} times"
    )


def _ask(url: Url, reach: Reach, headers: Mapping[str, str], secret: Secret | None) -> Response:
    connection = _Connection(url, reach.check(url))
    said = {
        "User-Agent": f"kolosal/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    if secret is not None and secret.origin == url.origin:
        said[secret.name] = secret.value
    try:
        connection.request("GET", url.target, headers={"Host": url.authority, **said})
        return Response(connection, connection.getresponse(), url)
    except KolosalError:
        connection.close()
        raise
    except (OSError, http.client.HTTPException) as exc:
        connection.close()
        raise _broke(url, exc) from exc


class _Connection(http.client.HTTPConnection):
    """To one of these addresses, whatever the name means by now."""

    def __init__(self, url: Url, addresses: tuple[str, ...]) -> None:
        super().__init__(url.host, url.port, timeout=SILENCE_S)
        self._url = url
        self._addresses = addresses

    def connect(self) -> None:
        self.sock = self._connected()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._url.scheme == "https":
            self.sock = _tls().wrap_socket(self.sock, server_hostname=self._url.host)
        self.sock.settimeout(SILENCE_S)

    def _connected(self) -> socket.socket:
        for address in self._addresses[:-1]:
            try:
                return socket.create_connection((address, self._url.port), CONNECT_S)
            except OSError:
                continue  # the next one may answer
        return socket.create_connection((self._addresses[-1], self._url.port), CONNECT_S)


@cache
def _tls() -> ssl.SSLContext:
    import httpx  # noqa: PLC0415 - knows which authorities are trusted here, SSL_CERT_FILE among it; slow to import

    return httpx.create_ssl_context()


def _addresses(url: Url) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise DownloadFailed.for_now(
            f"There is no host {url.host} to be found: {getattr(exc, 'strerror', None) or exc}"
        ) from exc
    return tuple(dict.fromkeys(str(where[0]) for *_, where in found))


def _broke(url: Url, error: Exception) -> DownloadFailed:
    if isinstance(error, ssl.SSLCertVerificationError):
        return DownloadFailed.for_now(f"{url.authority} is not who it says it is: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return DownloadFailed.for_now(f"{url.authority} did not answer in time")
    if isinstance(error, ConnectionRefusedError):
        return DownloadFailed.for_now(f"Nothing answers at {url.authority}")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DownloadFailed.for_now(f"The connection to {url.authority} broke: {reason}")
