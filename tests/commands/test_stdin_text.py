from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.commands.text import decode_piped


@given(
    st.text().filter(lambda text: not text.startswith("\ufeff")),
    st.sampled_from(["cp1252", "utf-8", "ascii"]),
)
def test_utf8_is_read_whatever_the_system_writes(text: str, system: str) -> None:
    assert decode_piped(text.encode(), system) == text.replace("\r\n", "\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_tells_the_encoding(encoding: str) -> None:
    assert decode_piped("ça va?\r\n".encode(encoding), "cp1252") == "ça va?\n"


def test_what_is_not_utf8_is_read_as_the_system_writes_it() -> None:
    assert decode_piped("ça va?".encode("cp1252"), "cp1252") == "ça va?"


@given(st.binary(), st.sampled_from(["cp1252", "utf-8", "ascii"]))
def test_any_bytes_are_some_text(data: bytes, system: str) -> None:
    decode_piped(data, system).encode()
