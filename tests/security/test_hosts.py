"""Which hosts and origins a daemon answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.security.hosts import AllowedHosts, AllowedOrigins, host_name, is_own_origin

LOCAL = AllowedHosts.of("127.0.0.1")


@pytest.mark.parametrize("host", [
    "localhost", "localhost:8080", "LocalHost:1", "localhost.", "a.localhost", "127.0.0.1", "127.0.0.1:65535", "127.9.9.9",
    "[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]:80", "127.0.0.1:",
])  # fmt: skip
def test_loopback_names_are_always_ours(host: str) -> None:
    assert LOCAL.allows(host)


@pytest.mark.parametrize("host", [
    "evil.com", "evil.com:8080", "localhost.evil.com", "127.0.0.1.evil.com", "evil.com#localhost", "evil.com@localhost",
    "localhost@evil.com", "192.168.0.7", "8.8.8.8:80", "[2001:db8::1]", "0.0.0.0", "", " ", ":", "[", "[]", "[::1", "::1",
    "[::1]x", "[::1]:x", "localhost:x", "localhost:808080", "localhost:80:80", "127.1", "0x7f.1", "localhost,evil.com",
    "local\u212aost", "[localhost]",
])  # fmt: skip
def test_all_others_are_not(host: str) -> None:
    assert not LOCAL.allows(host)


def test_the_bound_host_and_the_listed_ones_are_ours() -> None:
    hosts = AllowedHosts.of("gpu-box", ["Models.example.com", ".lan"])
    assert all(
        map(
            hosts.allows,
            ["gpu-box:8080", "GPU-BOX", "models.example.com", "a.lan", "a.b.lan:80", "localhost"],
        )
    )
    assert not any(
        map(hosts.allows, ["lan", "xlan", "a.lan.evil.com", "other.example.com", "gpu-box.evil.com"])
    )


def test_a_daemon_on_all_addresses_answers_addresses_but_no_unknown_names() -> None:
    for bound in ("0.0.0.0", "::"):
        hosts = AllowedHosts.of(bound)
        assert all(map(hosts.allows, ["192.168.0.7:8080", "[2001:db8::1]", "localhost", "0.0.0.0:8080"]))
        assert not hosts.allows("evil.com")


def test_a_star_stands_for_any_name() -> None:
    assert AllowedHosts.of("127.0.0.1", ["*"]).allows("evil.com")


@given(st.text(max_size=60))
def test_any_text_is_a_plain_name_or_none(text: str) -> None:
    name = host_name(text)
    assert name is None or not set(name) & set("@/\\?#,;[] \t\r\n")
    LOCAL.allows(text)


@given(st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,10}){0,3}", fullmatch=True))
def test_what_is_put_before_a_foreign_name_does_not_make_it_ours(prefix: str) -> None:
    assert not LOCAL.allows(f"{prefix}.evil.com")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8080", True),
        ("https://localhost:8080", True),
        ("http://LOCALHOST:8080", True),
        ("https://app.example.com", True),
        ("http://app.example.com", False),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("http://evil.com", False),
        ("null", False),
        ("file://", False),
        ("", False),
        ("app://localhost:8080", False),
    ],
)
def test_own_pages_and_listed_ones_may_ask(origin: str, allowed: bool) -> None:
    listed = AllowedOrigins.of(["https://app.example.com"])
    assert (is_own_origin(origin, "localhost:8080") or listed.allows(origin)) is allowed


def test_without_a_host_no_page_is_our_own() -> None:
    assert not is_own_origin("http://", "")


@pytest.mark.parametrize("origin", [
    "http://localhost", "https://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:80", "http://a.localhost:1",
    "http://tauri.localhost", "http://0.0.0.0:3000", "app://obsidian.md", "tauri://localhost", "vscode-webview://0d1e",
    "vscode-file://vscode-app", "file://", "APP://x",
])  # fmt: skip
def test_what_runs_on_this_machine_may_ask_unless_told_otherwise(origin: str) -> None:
    assert AllowedOrigins.of([], local_apps=True).allows(origin)
    assert not AllowedOrigins.of([]).allows(origin)


@pytest.mark.parametrize("origin", [
    "null", "", "http://evil.com", "http://localhost.evil.com", "http://evil.com#localhost", "http://localhost@evil.com",
    "http://192.168.0.7", "http://box.local", "app:", "localhost", "http://", "://localhost", "javascript://localhost",
    "chrome-extension://abc", "http://127.0.0.1.evil.com", "http://localhost:x",
])  # fmt: skip
def test_pages_from_elsewhere_may_not(origin: str) -> None:
    assert not AllowedOrigins.of([], local_apps=True).allows(origin)


def test_names_of_this_machine_in_its_network_are_ours_unless_told_otherwise() -> None:
    names = ["host.docker.internal", "host.docker.internal:8080", "box.local", "BOX.local.:80", "a.b.local"]
    assert all(map(AllowedHosts.of("127.0.0.1", local_apps=True).allows, names))
    assert not any(map(LOCAL.allows, names))
    foreign = [
        "local",
        "xlocal",
        "box.local.evil.com",
        "docker.internal",
        "x.host.docker.internal",
        "box.internal",
        "evil.com",
    ]
    assert not any(map(AllowedHosts.of("127.0.0.1", local_apps=True).allows, foreign))
