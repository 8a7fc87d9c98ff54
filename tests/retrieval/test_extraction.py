"""Text of files: the right one, and in little time and memory where somebody means ill."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from kolosal.errors import InvalidRequest
from kolosal.retrieval.extraction import Extraction
from tests.retrieval.documents import pdf, word, zip_bomb

HTML = (
    b"<!doctype html><title>Cats</title><style>p{}</style><script>if (a<b) x('<p>')</script>"
    b"<h1>On&nbsp;cats</h1><p>They <b>sleep</b>.</p><table><tr><td>1</td><td>2</td></tr></table>"
)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.txt", "Café\n".encode(), "Café\n"),
        ("a.md", b"\xef\xbb\xbf# Title", "# Title"),
        ("a.csv", "a;b".encode("utf-16"), "a;b"),
        ("a.json", b'{"a": 1}', '{"a": 1}'),
        ("a.unknown", b"\x1b[1mtext\x1b[0m", "\x1b[1mtext\x1b[0m"),
        ("a.html", HTML, "Cats\n\nOn cats\n\nThey sleep.\n\n1 2"),
        ("a.HTM", b"<meta charset=iso-8859-1><p>caf\xe9", "café"),
        ("a.pdf", pdf("Hello", "world"), "Hello\n\nworld"),
        ("no-suffix", pdf("Hello"), "Hello"),
        ("a.docx", word("One", "Two", table=[["a", "b"], ["c", "d"]]), "One\nTwo\na\tb\nc\td"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:3] else "",
)
async def test_text_of_a_file(name: str, data: bytes, text: str) -> None:
    assert await Extraction().text_of(name, lambda: data) == text


@pytest.mark.parametrize(
    ("name", "data", "code", "message"),
    [
        ("a.txt", b"\x89PNG\r\n\x1a\n\0", "unsupported_file", "not text in UTF-8: byte 0 is 0x89"),
        ("a.txt", b"MZ\0\0", "unsupported_file", r"holds the control character U\+0000"),
        ("a.html", b"<meta charset=nothing><p>caf\xe9", "invalid_file", "charset 'nothing' is not known"),
        ("a.pdf", b"%PDF-1.7 and no more", "invalid_file", "no PDF that can be read"),
        ("a.pdf", pdf(""), "invalid_file", "hold no text"),
        ("a.docx", b"PK\3\4 and no more", "invalid_file", "no Word document"),
        ("a.txt", b"x" * 16_777_217, "unsupported_file", "more than 16777216 characters"),
    ],
)
async def test_file_without_text_is_refused_with_the_reason(
    name: str, data: bytes, code: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as error:
        await Extraction().text_of(name, lambda: data)
    assert (error.value.code, error.value.param) == (code, "file")


@pytest.mark.parametrize(
    ("name", "made", "reason"),
    [
        ("a.docx", lambda: zip_bomb(1000), "needs more than 768 MiB of memory"),
        ("a.html", lambda: b"<![CDATA[" * 400_000, "takes more than 3 s of processor time"),
        ("a.pdf", lambda: pdf("x", stream=zlib.compress(b"a b " * 26_214_400)), "no PDF that can be read"),
    ],
    ids=["a zip bomb", "tags that take quadratic time", "a stream that is 300 times as long unpacked"],
)
async def test_hostile_file_costs_no_more_than_it_may(
    name: str, made: Callable[[], bytes], reason: str
) -> None:
    data = made()  # and not when tests are collected
    with pytest.raises(InvalidRequest, match=reason):
        await Extraction().text_of(name, lambda: data)


async def test_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kolosal.retrieval.extraction.find_spec", lambda _: None)
    with pytest.raises(InvalidRequest, match=r"pip install 'kolosal\[documents\]'") as error:
        await Extraction().text_of("a.pdf", lambda: pdf("Hello"))
    assert error.value.code == "unsupported_file"
