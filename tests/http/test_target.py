"""Targets of requests: every way to write one leads to one path, one host and one check."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.http.target import in_one_form, plain_path
from tests.fakes import AsgiRequest, FakeEngine, app_with, http_client
from tests.routes.common.test_access import ADMIN, USER, app_with_keys


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"), ("//", "/"), ("/v1/models/", "/v1/models"), ("//v1///models//", "/v1/models"), ("/v1/models", "/v1/models"),
        ("/engines/org%2Fname", "/engines/org%2Fname"), ("/engines/a%25b", "/engines/a%25b"), ("/a%20b", "/a b"),
        ("/v1/%6dodels", "/v1/models"), ("/v1/../rpc", "/v1/../rpc"), ("/%2e%2e/rpc", "/../rpc"), ("/engines/%2F", "/engines/%2F"),
    ],
)  # fmt: skip
def test_a_path_has_one_form(target: str, path: str) -> None:
    assert plain_path(target) == path


@given(st.text("/%.aF25 "))
def test_a_form_is_never_changed_again(target: str) -> None:
    once = plain_path("/" + target)
    assert "//" not in once
    assert plain_path(once) == once


def scope(target: str, *hosts: str) -> dict[str, Any]:
    headers = [(b"host", host.encode()) for host in hosts]
    return {"type": "http", "path": target, "raw_path": target.encode(), "headers": headers}


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://localhost:8080/v1/models", "/v1/models", "localhost:8080"), ("HTTPS://Evil.com", "/", "Evil.com"),
        ("http://a@b/x/", "/x", "a@b"), ("http:///x", "/x", ""), ("*", "*", "localhost"), ("/x", "/x", "localhost"),
        ("ftp://a/x", "ftp://a/x", "localhost"),
    ],
)  # fmt: skip
def test_an_absolute_target_says_the_host(target: str, path: str, host: str) -> None:
    found = in_one_form(scope(target, "localhost"))
    assert (found["path"], found["headers"]) == (path, [(b"host", host.encode())])


def test_two_hosts_stay_two() -> None:
    assert len(in_one_form(scope("http://localhost/x", "a", "b"))["headers"]) == 2


async def status(
    target: str, host: str, method: str = "GET", version: str = "1.1"
) -> tuple[int | None, bytes]:
    request = AsgiRequest(target, method=method)
    request.scope |= {"headers": [(b"host", host.encode())], "http_version": version}
    request.leave()
    await request.start(app_with(FakeEngine()))
    return request.status, request.content


@pytest.mark.fault("A4")
@pytest.mark.parametrize(
    ("target", "host", "wanted"),
    [
        ("http://evil.com/v1/models", "localhost", 403), ("http://localhost/v1/models", "evil.com", 200),
        ("http://localhost@evil.com/v1/models", "localhost", 403), ("http:///v1/models", "localhost", 403),
        ("//v1//models/", "localhost", 200), ("//evil.com/v1/models", "localhost", 404), ("/v1/../v1/models", "localhost", 404),
        ("/%2e/v1/models", "localhost", 404), ("/v1%2Fmodels", "localhost", 404), ("*", "localhost", 404),
    ],
)  # fmt: skip
async def test_the_host_of_the_target_is_the_one_that_is_looked_at(
    target: str, host: str, wanted: int
) -> None:
    assert (await status(target, host))[0] == wanted


@pytest.mark.parametrize(
    ("version", "wanted"), [("1.0", 200), ("1.1", 200), ("2.0", 505), ("3.0", 505), ("0.9", 505)]
)
async def test_other_versions_of_http_are_told_so(version: str, wanted: int) -> None:
    got, content = await status("/health", "localhost", version=version)
    assert got == wanted
    assert (b"http_version_not_supported" in content) == (wanted == 505)


@pytest.mark.parametrize(
    "target", ["//{0}", "/{0}/", "///{0}//", "/./{0}", "/x/../{0}", "/%2e%2e/{0}", "http://localhost//{0}"]
)
@pytest.mark.parametrize(("path", "key"), [("engines", USER), ("v1/chat/completions", ADMIN), ("rpc", ADMIN)])
async def test_no_form_of_a_path_gets_around_the_key(target: str, path: str, key: str) -> None:
    for headers in ([], [(b"authorization", f"Bearer {key}".encode())]):
        request = AsgiRequest(target.format(path), {})
        request.scope["headers"] = headers
        request.leave()
        await request.start(app_with_keys(FakeEngine()))
        assert request.status in ((401, 404) if not headers else (403, 404))


async def test_errors_have_the_dialect_of_the_path_that_is_meant() -> None:
    async with http_client(app_with()) as client:
        said = (await client.post("http://localhost//api//chat/", content=b"{")).json()
    assert list(said) == ["error"]
    assert isinstance(said["error"], str)
