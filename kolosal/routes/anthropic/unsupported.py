"""Fields of the official Messages request that this daemon does not have, or that change nothing here.

As in Anthropic's own API no field passes unread: one that asks for what this daemon does not have is refused, and so is
one that nobody knows. Null is as good as leaving a field out.
"""

from __future__ import annotations

from collections.abc import Mapping

from kolosal.errors import InvalidRequest, UnsupportedFeature

IGNORED_FIELDS = frozenset(
    {
        "anthropic_beta",
        "anthropic_version",
        "billing_policy",
        "cache_control",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "metadata",
        "service_tier",
        "speed",
    }
)
"""They change no answer of a daemon that keeps no accounts, computes here, and finds shared prompts by itself."""

REFUSED_FIELDS: dict[str, tuple[object, ...]] = {
    "compaction": (),
    "container": (),
    "mcp_servers": ([],),
    "thread": (),
}
"""For each field the values, besides null, that ask for nothing."""


def check_extra(extra: Mapping[str, object], ignored: frozenset[str] = IGNORED_FIELDS) -> None:
    """Look through the fields of a request that its type does not have.

    Raises:
        UnsupportedFeature: one asks for what this daemon does not have.
        InvalidRequest: one is unknown.
    """
    for name, value in extra.items():
        if value is None or name in ignored:
            continue
        if name not in REFUSED_FIELDS:
            raise InvalidRequest(f"Unknown field: {name[:60]}", param=name[:60])
        if value not in REFUSED_FIELDS[name]:
            raise UnsupportedFeature(f"{name} is not supported by this server", param=name)
