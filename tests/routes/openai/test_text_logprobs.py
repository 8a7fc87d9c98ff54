"""Where tokens begin in a text, whatever bytes they hold."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kolosal.routes.openai.text_logprobs import OffsetCounter, TextLogprobsWriter
from kolosal.schema import TokenLogprob, TokenLogprobs


def cut(data: bytes, marks: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = sorted({mark % (len(data) + 1) for mark in marks} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


MARKS = st.lists(st.integers(0, 200), max_size=20)


def offsets(pieces: list[bytes]) -> list[int]:
    counter = OffsetCounter()
    return [counter.add(piece) for piece in pieces]


@given(st.text(max_size=40), MARKS)
def test_offset_is_that_of_the_character_a_token_begins_with_or_continues(
    text: str, marks: list[int]
) -> None:
    pieces = cut(text.encode(), marks)
    begun = 0
    for piece, offset in zip(pieces, offsets(pieces), strict=True):
        whole = len(text.encode()[:begun].decode(errors="ignore"))
        assert offset == whole
        begun += len(piece)


@given(st.binary(max_size=60), MARKS)
def test_bytes_that_are_no_text_are_counted_as_they_are_shown(data: bytes, marks: list[int]) -> None:
    pieces = cut(data, marks)
    counted = offsets(pieces)
    shown = data.decode(errors="replace")
    assert counted == sorted(counted)
    assert all(0 <= offset <= len(shown) for offset in counted)


def test_a_token_after_a_broken_character_begins_behind_it() -> None:
    assert offsets([b"\xf0\x9f", b"a", b"b"]) == [0, 1, 2]
    assert offsets([b"\xf0\x9f", b"\x99\x82", b"b"]) == [0, 0, 1]
    assert offsets([b"\xe2", b"\xe2\x82", b"\xac!"]) == [0, 1, 1]


def entry(
    data: bytes, *, control: bool = False, in_prompt: bool = True, logprob: float = -1.0
) -> TokenLogprobs:
    return TokenLogprobs(TokenLogprob(1, data.decode("latin-1"), logprob, control), (), in_prompt)


def test_a_part_of_a_character_is_written_as_its_bytes() -> None:
    body = TextLogprobsWriter().write(
        [entry(b"\xf0\x9f", in_prompt=False), entry(b"\x99\x82", in_prompt=False)]
    )
    assert body["tokens"] == ["bytes:\\xf0\\x9f", "bytes:\\x99\\x82"]
    assert body["text_offset"] == [0, 0]
    assert body["top_logprobs"][0] == {"bytes:\\xf0\\x9f": -1.0}


def test_a_token_put_before_the_prompt_takes_no_room() -> None:
    entries = [entry(b"<s>", control=True), entry(b"Hi"), entry(b"!", in_prompt=False)]
    assert TextLogprobsWriter("Hi").write(entries)["text_offset"] == [0, 0, 2]


def test_a_control_token_spelled_in_the_prompt_takes_its_room() -> None:
    entries = [
        entry(b"<s>", control=True),
        entry(b"<|x|>", control=True),
        entry(b"Hi"),
        entry(b"!", in_prompt=False),
    ]
    assert TextLogprobsWriter("<|x|>Hi").write(entries)["text_offset"] == [0, 0, 5, 7]


def test_a_blank_put_before_the_first_word_is_not_counted() -> None:
    entries = [entry(b"<s>", control=True), entry(b" Hi"), entry(b" you"), entry(b"!", in_prompt=False)]
    assert TextLogprobsWriter("Hi you").write(entries)["text_offset"] == [0, 0, 2, 6]


def test_two_tokens_of_one_text_count_as_the_more_probable() -> None:
    top = (TokenLogprob(1, "a", -0.1), TokenLogprob(2, "a", -5.0))
    body = TextLogprobsWriter().write([TokenLogprobs(TokenLogprob(2, "a", -5.0), top)])
    assert body["top_logprobs"] == [{"a": -0.1}]
