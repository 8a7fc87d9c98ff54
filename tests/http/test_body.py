"""Bytes to UTF-8 JSON: charsets as Windows PowerShell 5.1 and others send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.errors import ClientError, InvalidRequest, UnsupportedMediaType
from kolosal.http.body import kind_of, parse_object, to_utf8

POWERSHELL_5 = "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.4291"
POWERSHELL_7 = "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; en-US) PowerShell/7.4.2"


@pytest.mark.parametrize(
    ("body", "content_type", "agent"),
    [
        ('{"a":"é"}'.encode(), "", ""),
        ('{"a":"é"}'.encode(), "application/json; charset=UTF-8", ""),
        ('{"a":"é"}'.encode(), 'application/json; charset="utf-8"', ""),
        (b"\xef\xbb\xbf" + '{"a":"é"}'.encode(), "application/json", ""),
        ('{"a":"é"}'.encode("iso-8859-1"), "application/json; charset=ISO-8859-1", ""),
        ('{"a":"é"}'.encode("cp1252"), "application/json; charset=windows-1252", ""),
        ('{"a":"é"}'.encode("utf-16"), "application/json; charset=utf-16", ""),
        ('{"a":"é"}'.encode("utf-16-le"), "application/json; charset=utf-16le", ""),
        ('{"a":"é"}'.encode("iso-8859-1"), "application/x-www-form-urlencoded", POWERSHELL_5),
        ('{"a":"é"}'.encode("iso-8859-1"), "application/json", POWERSHELL_5),
        ('{"a":"é"}'.encode(), "application/json", POWERSHELL_5),
        ('{"a":"é"}'.encode(), "application/json; charset=utf-8", POWERSHELL_5),
    ],
)
def test_the_text_arrives_whatever_the_charset(body: bytes, content_type: str, agent: str) -> None:
    assert parse_object(to_utf8(body, content_type, agent)) == {"a": "é"}


@pytest.mark.parametrize(
    ("content_type", "agent"),
    [
        ("application/json", "curl/8"),
        ("application/json", POWERSHELL_7),
        ("application/json; charset=utf-8", POWERSHELL_5),
        ("application/json; charset=us-ascii", ""),
    ],
)
def test_only_windows_powershell_may_send_latin_1_unsaid(content_type: str, agent: str) -> None:
    with pytest.raises(InvalidRequest, match=r"Invalid JSON: the body is not valid \S+ text"):
        to_utf8('{"a":"é"}'.encode("iso-8859-1"), content_type, agent)


@pytest.mark.fault("H7")
@pytest.mark.parametrize(
    "charset", ["klingon", "base64", "idna", "punycode", "utf-7", "unicode_escape", "x" * 9999, "\x00"]
)
def test_odd_charsets_are_refused(charset: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="is not accepted") as caught:
        to_utf8(b"{}", f"application/json; charset={charset}", "")
    assert len(caught.value.message) < 200


@pytest.mark.fault("H7")
@given(st.binary(), st.text(), st.sampled_from(["", POWERSHELL_5]))
def test_any_bytes_become_utf_8_or_a_client_error(body: bytes, content_type: str, agent: str) -> None:
    try:
        text = to_utf8(body, content_type, agent)
    except ClientError:
        return
    text.decode()


@pytest.mark.fault("H7")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid JSON: the body is empty"),
        (b"  \n", "Invalid JSON: the body is empty"),
        (b"{", "Invalid JSON: "),
        (b"[]", "Invalid JSON: the body must be an object, not an array"),
        (b'"x"', "Invalid JSON: the body must be an object, not a string"),
        (b"null", "Invalid JSON: the body must be an object, not null"),
        (b"true", "Invalid JSON: the body must be an object, not true"),
        (b"12", "Invalid JSON: the body must be an object, not a number"),
        (b'{"a":NaN}', "Invalid JSON: "),
        (b'{"a":Infinity}', "Invalid JSON: "),
        (b'{"a":1e999}', "Invalid JSON: "),
        (b'{"a":' + b"1" * 5000 + b"}", "Invalid JSON: "),
        (b'{"a":"\\ud800"}', "Invalid JSON: "),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "Invalid JSON: "),
        (b'{"a":' * 100_000, "Invalid JSON: "),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_object(body)
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 200


def test_kinds_have_names() -> None:
    values: list[object] = [None, False, "", 1, 1.0, [], {}]
    assert [kind_of(value) for value in values] == [
        "null", "false", "a string", "a number", "a number", "an array", "an object",
    ]  # fmt: skip
