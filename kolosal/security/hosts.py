"""Which names a request may have in `Host`, and which pages may send requests. Pure.

A browser lets a page talk to the host it came from. A page of `evil.example`, whose name is suddenly made to mean
127.0.0.1, could so use a daemon on its reader's machine (DNS rebinding): its requests say `Host: evil.example`. Pages of
other origins are told from our own by `Origin`, which no script can forge.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The rule for `Host`."""

    names: frozenset[str]
    suffixes: tuple[str, ...]
    any_name: bool = False
    any_address: bool = False
    """Whether every IP address will do: a rebound name is never an address."""

    @classmethod
    def of(cls, bound: str, allowed: Iterable[str] = ()) -> AllowedHosts:
        """The rule of a daemon that listens on `bound`, with the setting `server.allowed_hosts`."""
        given = {host.lower() for host in allowed}
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


def allows_origin(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether pages of this origin may use the daemon: its own pages, and those of the setting `server.cors_origins`."""
    scheme, separator, authority = origin.lower().partition("://")
    own = scheme in ("http", "https") and separator and authority and authority == host.strip().lower()
    return bool(own) or origin in allowed


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_port(text: str) -> bool:
    return text[:1] == ":" and (text == ":" or (text[1:].isascii() and text[1:].isdigit() and len(text) <= 6))
