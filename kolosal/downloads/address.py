"""URLs and network addresses that may be asked. Pure: nothing is resolved here.

A URL is parsed once, and what was parsed is what is connected to, so that no second parser can read it in another way.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from kolosal.errors import InvalidRequest

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?\.?")
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PATH_CHARS = "/%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Url:
    """An `http` or `https` URL, in its parts."""

    scheme: str
    host: str
    """In small letters; an IPv6 address without brackets."""
    port: int
    path: str
    """Begins with a slash; whatever may not stand in a request line is escaped."""
    query: str

    @property
    def target(self) -> str:
        """What a request line asks for."""
        return self.path + (f"?{self.query}" if self.query else "")

    @property
    def authority(self) -> str:
        """Host and port, as in the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What two URLs share that may be told the same secrets."""
        return self.scheme, self.host, self.port

    @property
    def without_query(self) -> str:
        """For messages: a query may hold keys and signatures."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str, *, base: Url | None = None) -> Url:
    """A URL in its parts; with `base`, also a relative one, as a redirect may give it.

    Raises:
        InvalidRequest: it is none, is of another scheme, or is written in a way that programs read differently.
    """
    shown = repr(text[:200].partition("?")[0])
    if not text.isprintable() or " " in text or "\\" in text or len(text) > 8000:
        raise InvalidRequest(f"{shown} is no URL", param="source")
    try:
        parts = urlsplit(text if base is None else urljoin(base.text, text))
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode() if parts.hostname else ""
    except (ValueError, UnicodeError):
        raise InvalidRequest(f"{shown} is no URL", param="source") from None
    if parts.scheme not in _PORTS:
        raise InvalidRequest(f"{shown} must begin with https://", param="source")
    if "@" in parts.netloc:
        raise InvalidRequest(
            "A URL may hold no user name and no password: they would be written down", param="source"
        )
    if not _HOST.fullmatch(host) and not _is_ipv6(host):
        raise InvalidRequest(f"{shown} names no host", param="source")
    if port == 0:
        raise InvalidRequest(f"{shown}: port 0 is none", param="source")
    path = quote(parts.path or "/", safe=_PATH_CHARS)
    return Url(
        parts.scheme,
        host.removesuffix("."),
        port or _PORTS[parts.scheme],
        path,
        quote(parts.query, safe=_PATH_CHARS + "?"),
    )


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, and not this machine's, its network's or its cloud's."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def is_link_local(address: str) -> bool:
    """Whether it is one under which clouds tell machines their secrets: never a place of models."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_link_local


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
