from __future__ import annotations

import codecs

from hypothesis import example, given
from hypothesis import strategies as st

from kolosal.engines.worker.detokenize import Detokenizer

# Few letters, so that stop strings overlap each other and the text; two, three and four byte code points.
_ALPHABET = "ab€🙂é"
_texts = st.text(_ALPHABET, max_size=24).map(str.encode)
_bytes = st.one_of(
    _texts, st.binary(max_size=16), st.tuples(_texts, st.binary(max_size=4), _texts).map(b"".join)
)
_stops = st.lists(st.text(_ALPHABET, min_size=1, max_size=5), max_size=4).map(tuple)


@st.composite
def _cut(draw: st.DrawFn) -> list[bytes]:
    data = draw(_bytes)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _shown(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            return text[: end - max(map(len, met))], True
    return text, False


def _decoded(data: bytes) -> str:
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(data)


def _stream(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[list[str], bool]:
    stream = Detokenizer(stops)
    shown = [stream.push(piece) for piece in pieces]
    if stream.stop is None:
        shown.append(stream.flush())
    return shown, stream.stop is not None


@given(_cut(), _stops)
@example([b"abcd"], ("bc", "abcd"))
@example([b"a", b"b", b"c", b"d"], ("bc", "abcd"))
@example([b"x<", b"|e", b"nd|>"], ("<|end|>",))
def test_text_is_the_same_however_it_is_cut(pieces: list[bytes], stops: tuple[str, ...]) -> None:
    shown, stopped = _stream(pieces, stops)

    assert ("".join(shown), stopped) == _shown(_decoded(b"".join(pieces)), stops)


def test_an_empty_stop_string_is_none() -> None:
    assert _stream([b"ab", b"c"], ("", "c")) == (["ab", ""], True)
    assert _stream([b"ab"], ("",)) == (["ab", ""], False)


@given(_cut(), _stops)
def test_nothing_shown_is_ever_taken_back(pieces: list[bytes], stops: tuple[str, ...]) -> None:
    final, _ = _shown(_decoded(b"".join(pieces)), stops)
    stream = Detokenizer(stops)
    so_far = ""
    for piece in pieces:
        so_far += stream.push(piece)

        assert final.startswith(so_far)


@given(_cut())
def test_every_piece_is_valid_unicode(pieces: list[bytes]) -> None:
    shown, _ = _stream(pieces, ())

    assert all(piece.encode().decode() == piece for piece in shown)


def test_code_point_is_shown_when_its_last_byte_comes() -> None:
    stream = Detokenizer()

    assert [stream.push(bytes([byte])) for byte in "🙂".encode()] == ["", "", "", "🙂"]


def test_invalid_bytes_become_replacement_characters() -> None:
    assert Detokenizer().push(b"a\xffb\xc3(c") == "a\ufffdb\ufffd(c"


def test_incomplete_code_point_at_the_end_is_dropped() -> None:
    stream = Detokenizer()

    assert stream.push(b"a\xf0\x9f") + stream.flush() == "a"


def test_possible_beginning_of_a_stop_string_is_held_back() -> None:
    stream = Detokenizer(("STOP",))

    assert stream.push(b"go ST") == "go "


def test_held_text_is_shown_when_it_was_no_stop_string() -> None:
    stream = Detokenizer(("STOP",))
    stream.push(b"go ST")

    assert stream.push(b"ART") == "START"


def test_held_text_is_shown_at_the_end() -> None:
    stream = Detokenizer(("STOP",))
    stream.push(b"go ST")

    assert stream.flush() == "ST"


def test_nothing_is_shown_after_a_stop_string() -> None:
    stream = Detokenizer(("STOP",))
    stream.push(b"STOP")

    assert stream.push(b" and more") + stream.flush() == ""
