"""Row A2 of the fault suite: who may be asked for a model."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kolosal.downloads.address import is_public, parse_url
from kolosal.downloads.net import Reach, Secret, get
from kolosal.errors import DownloadFailed, InvalidRequest
from tests.file_server import FileServer, ServedFile

pytestmark = pytest.mark.fault("A2")


@pytest.fixture(scope="module")
def web() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "169.254.169.254", "10.1.2.3", "172.16.0.1", "192.168.1.1", "0.0.0.0", "100.64.0.1", "fc00::1",
        "fe80::1%eth0", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "224.0.0.1", "ff02::1", "::",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_networks_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "0x7f000001",
        "2130706433",
        "127.1",
        "localhost",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
    ],
)
def test_what_leads_to_this_machine_is_refused_before_it_is_asked(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", _unexpected)
    with pytest.raises((InvalidRequest, DownloadFailed)):
        get(parse_url(f"https://{host}/x.gguf"), Reach(), {})


def _unexpected(*_: object) -> None:
    raise AssertionError("a connection was made")


def test_a_name_is_resolved_once_and_that_address_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, connected = [], []

    def rebinding(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address: tuple[str, int], _timeout: float) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(DownloadFailed):
        get(parse_url("https://rebind.example/x.gguf"), Reach(), {})
    assert (asked, connected) == (["rebind.example"], ["93.184.216.34"])


def test_one_private_address_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
    with pytest.raises(InvalidRequest, match="private network"):
        Reach().check(parse_url("https://both.example/x.gguf"))


def test_no_tls_is_for_trusted_hosts_only(web: FileServer) -> None:
    url = parse_url(f"{web.url}/x.gguf")
    with pytest.raises(InvalidRequest, match="without TLS"):
        get(url, Reach.of(url), {})
    for trusted in ("127.0.0.1", web.authority):
        assert Reach.of(url, (trusted,)) == Reach(private=True)


def test_what_the_operator_configured_may_be_private_and_lead_to_private() -> None:
    assert Reach.of(parse_url("http://127.0.0.1:1/"), configured=True) == Reach(private=True)
    with pytest.raises(InvalidRequest, match="private network"):
        Reach(private=True).check(parse_url("http://169.254.169.254/latest"))


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "gopher://h/x", "http://169.254.169.254/x", "http://a@b/x", "http:\\\\b\\x"],
)
def test_redirects_are_checked_as_the_first_address_was(web: FileServer, target: str) -> None:
    web.redirects["/elsewhere"] = target
    with pytest.raises((DownloadFailed, InvalidRequest)):
        get(parse_url(f"{web.url}/elsewhere"), Reach(private=True), {})


def test_redirects_come_to_an_end(web: FileServer) -> None:
    web.redirects["/round"] = "/round"
    with pytest.raises(DownloadFailed, match="more than 8 times"):
        get(parse_url(f"{web.url}/round"), Reach(private=True), {})


def test_a_secret_is_told_to_its_own_origin_only(web: FileServer) -> None:
    with FileServer() as cdn:
        cdn.files["/blob"] = ServedFile(b"x")
        web.redirects["/gated"] = f"{cdn.url}/blob"
        url = parse_url(f"{web.url}/gated")
        get(url, Reach(private=True), {}, Secret(url.origin, "Authorization", "Bearer s")).__exit__()
        (at_home,), (elsewhere,) = web.requests("/gated"), cdn.requests("/blob")
    assert at_home.headers["authorization"] == "Bearer s"
    assert "authorization" not in elsewhere.headers
