"""Which names a request may have in `Host`, and which pages may send requests. Pure.

A browser lets a page talk to the host it came from. A page of `evil.example`, whose name is suddenly made to mean
127.0.0.1, could so use a daemon on its reader's machine (DNS rebinding): its requests say `Host: evil.example`. Pages of
other origins are told from our own by `Origin`, which no script can forge.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound

_LOCAL_NAMES = ("host.docker.internal", ".local")
"""Names of this machine in a container of its own, and in its network (multicast DNS)."""

_APP_SCHEMES = frozenset({"app", "file", "tauri", "vscode-file", "vscode-webview"})
"""What pages of desktop applications come from: no page of the web can."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The rule for `Host`."""

    names: frozenset[str]
    suffixes: tuple[str, ...]
    any_name: bool = False
    any_address: bool = False
    """Whether every IP address will do: a rebound name is never an address."""

    @classmethod
    def of(cls, bound: str, allowed: Iterable[str] = (), *, local_apps: bool = False) -> AllowedHosts:
        """The rule of a daemon that listens on `bound`, with the settings `server.allowed_hosts` and `server.allow_local_apps`."""
        given = {host.lower() for host in (*allowed, *(_LOCAL_NAMES if local_apps else ()))}
        return cls(
            names=frozenset({host for host in given if not host.startswith(".")} | {bound.lower()}),
            suffixes=tuple(host for host in given if host.startswith(".")),
            any_name="*" in given,
            any_address=bound in _WILDCARDS,
        )

    def allows(self, header: str) -> bool:
        """Whether a request with this `Host` is answered."""
        if self.any_name:
            return True
        name = host_name(header)
        if name is None:
            return False
        if is_loopback(name) or name in self.names or name.endswith(self.suffixes):
            return True
        return self.any_address and _address(name) is not None


def host_name(header: str) -> str | None:
    """The name or address in a `Host`, without the port, in small letters; None where it is no host."""
    text = header.strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        valid = bracket and (not rest or _is_port(rest)) and ":" in name and _address(name) is not None
        return name if valid else None
    name, colon, port = text.partition(":")
    if colon and not _is_port(f":{port}"):
        return None
    name = name.removesuffix(".")
    allowed = name.isascii() and all(char.isalnum() or char in "-._" for char in name)
    return name if name and allowed else None


def is_loopback(name: str) -> bool:
    """Whether a name or an address always means this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address is not None and address.is_loopback


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """The rule for `Origin`."""

    listed: frozenset[str]
    local_apps: bool = False
    """Whether pages that this machine itself serves will do, on any port, and those of desktop applications."""

    @classmethod
    def of(cls, listed: Iterable[str], *, local_apps: bool = False) -> AllowedOrigins:
        """The rule of the settings `server.cors_origins` and `server.allow_local_apps`."""
        return cls(frozenset(listed), local_apps)

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin, which is not the daemon's own, may use it."""
        return origin in self.listed or (self.local_apps and _is_local(origin))

    @property
    def any(self) -> bool:
        """Whether there is any such origin."""
        return bool(self.listed) or self.local_apps


def is_own_origin(origin: str, host: str) -> bool:
    """Whether a page is the daemon's own: it came from the `Host` that it asks now."""
    scheme, separator, authority = origin.lower().partition("://")
    return scheme in ("http", "https") and bool(separator and authority) and authority == host.strip().lower()


def _is_local(origin: str) -> bool:
    scheme, separator, authority = origin.lower().partition("://")
    if not separator or scheme not in ("http", "https"):
        return bool(separator) and scheme in _APP_SCHEMES
    name = host_name(authority)
    return name is not None and (is_loopback(name) or name in _WILDCARDS)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_port(text: str) -> bool:
    return text[:1] == ":" and (text == ":" or (text[1:].isascii() and text[1:].isdigit() and len(text) <= 6))
