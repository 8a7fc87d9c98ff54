"""What a worker is asked besides generating, over the fake backend."""

from __future__ import annotations

import pytest

from kolosal.engines.ipc.calls import (
    MAX_TEXT_CHARS,
    Call,
    CallResult,
    Detokenize,
    Render,
    Rendered,
    Tokenize,
    Tokenized,
)
from kolosal.engines.ipc.messages import Failed, FromWorker, UnaryResult
from kolosal.schema import ChatPrompt, Message, TextPrompt
from tests.engines.worker.helpers import InProcessWorker, fake_backend


def answer(call: Call, chat_template: str | None = None) -> FromWorker:
    worker = InProcessWorker(fake_backend(), chat_template=chat_template)
    worker.ask(call)
    (frame,) = worker.frames
    return frame


def test_text_is_tokenised() -> None:
    assert answer(Tokenize("ab")) == UnaryResult(1, Tokenized((97, 98), ("a", "b")))


def test_first_token_is_added_where_it_is_asked_for() -> None:
    assert answer(Tokenize("a", add_special=True)) == UnaryResult(1, Tokenized((256, 97), ("<s>", "a")))


def test_control_token_is_read_as_one() -> None:
    assert answer(Tokenize("<end>")) == UnaryResult(1, Tokenized((261,), ("<end>",)))


def test_control_token_is_read_as_text_where_that_is_asked_for() -> None:
    assert answer(Tokenize("<s>", parse_special=False)) == UnaryResult(
        1, Tokenized((60, 115, 62), ("<", "s", ">"))
    )


def test_pieces_are_told_where_they_are_asked_for() -> None:
    assert answer(Tokenize("ab", with_pieces=False)) == UnaryResult(1, Tokenized((97, 98), ()))


def test_piece_of_a_part_of_a_character_is_its_byte() -> None:
    assert answer(Tokenize("é")) == UnaryResult(1, Tokenized((0xC3, 0xA9), ("\xc3", "\xa9")))


def test_tokens_are_written_out() -> None:
    assert answer(Detokenize((256, 0xC3, 0xA9, 261))) == UnaryResult(1, Rendered("<s>é<end>", 4))


def test_broken_character_is_written_as_one_that_is_missing() -> None:
    assert answer(Detokenize((97, 0xC3))) == UnaryResult(1, Rendered("a�", 2))


def test_no_tokens_are_no_text() -> None:
    assert answer(Detokenize(())) == UnaryResult(1, Rendered("", 0))


def test_token_beyond_the_vocabulary_is_refused() -> None:
    match answer(Detokenize((1, 262))):
        case Failed(error="InvalidRequest", param="tokens", message=message):
            assert "262" in message
        case frame:
            pytest.fail(f"not refused: {frame}")


def test_text_prompt_is_rendered_as_a_generation_gets_it() -> None:
    assert answer(Render(TextPrompt("ab"))) == UnaryResult(1, Rendered("<s>ab", 3))


def test_tokens_of_a_prompt_are_told_where_they_are_asked_for() -> None:
    assert answer(Render(TextPrompt("ab"), with_tokens=True)) == UnaryResult(
        1, Rendered("<s>ab", 3, (256, 97, 98))
    )


def test_chat_is_rendered_through_the_template() -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}<end>"
    frame = answer(Render(ChatPrompt((Message("user", "hi"),))), chat_template=template)

    assert frame == UnaryResult(1, Rendered("[user]hi<end>", 10))


def result_of(worker: InProcessWorker) -> CallResult:
    """Of the call that ended last."""
    frame = worker.frames[-1]
    assert isinstance(frame, UnaryResult)
    return frame.result


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize(
    "template", ["{{ bos_token }}{{ messages[0].content }}<end>", "{{ messages[0].content }}<end>"]
)
def test_template_once(monkeypatch: pytest.MonkeyPatch, template: str, *, adds_bos: bool) -> None:
    """What a template made has the same tokens as a prompt of its own, whoever adds the token at the start."""
    worker = InProcessWorker(fake_backend(), chat_template=template)
    if not adds_bos:
        tokenize = worker.backend.tokenize
        monkeypatch.setattr(
            worker.backend,
            "tokenize",
            lambda text, *, parse_special, **_: tokenize(
                text, add_special=False, parse_special=parse_special
            ),
        )
    results = []
    worker.ask(Render(ChatPrompt((Message("user", "hi"),)), with_tokens=True))
    chat = result_of(worker)
    assert isinstance(chat, Rendered)
    for call in (Render(TextPrompt(chat.text), with_tokens=True), Tokenize(chat.text, add_special=True)):
        worker.ask(call)
        result = result_of(worker)
        assert isinstance(result, Rendered | Tokenized)
        results.append(result.tokens)

    assert chat.text == template.replace("{{ bos_token }}", "<s>").replace("{{ messages[0].content }}", "hi")
    assert results == [chat.tokens, chat.tokens]
    assert chat.tokens.count(256) == (adds_bos or "bos_token" in template)


def test_chat_that_the_template_refuses_is_refused() -> None:
    frame = answer(
        Render(ChatPrompt((Message("user", "hi"),))), chat_template="{{ raise_exception('no, thanks') }}"
    )

    assert isinstance(frame, Failed)
    assert (frame.error, frame.param) == ("InvalidRequest", "messages")


def test_answer_too_long_for_a_frame_is_refused() -> None:
    worker = InProcessWorker(fake_backend())
    worker.ask(Tokenize("é" * MAX_TEXT_CHARS))

    (frame,) = worker.frames
    assert isinstance(frame, Failed)
    assert frame.error == "InvalidRequest"
