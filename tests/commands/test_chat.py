"""The conversation loop, with scripted lines and answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence

import httpx
from hypothesis import given
from hypothesis import strategies as st

from kolosal.commands.address import Address
from kolosal.commands.answers import Body
from kolosal.commands.chat import Chat, Terminal, converse
from kolosal.commands.client import DaemonClient
from kolosal.commands.text import printable
from kolosal.sampling import MAX_TOKENS_LIMIT

END = EOFError()
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


class Conversation:
    """Talks to a scripted daemon; what was written, noted and asked stands in its lists."""

    def __init__(
        self, *lines: str | BaseException, answers: Sequence[str | int] = (), system: str | None = None
    ) -> None:
        self._lines = iter([*lines, END])
        self._answers = iter(answers)
        self.written: list[str] = []
        self.noted: list[str] = []
        self.asked: list[Body] = []
        client = DaemonClient(Address("http://daemon"), httpx.MockTransport(self._daemon))
        self.chat = Chat(client, "a", system, {"temperature": 0.5})
        converse(self.chat, Terminal(self._read, self.written.append, self.noted.append), self._run)

    def _read(self, _prompt: str) -> str:
        line = next(self._lines)
        if isinstance(line, BaseException):
            raise line
        return line

    def _run(self, answer: Coroutine[None, None, None]) -> None:
        asyncio.run(answer)

    def _daemon(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        answer = next(self._answers)
        if isinstance(answer, int):
            return httpx.Response(answer, json={"error": {"message": "no"}})
        data = json.dumps({"choices": [{"delta": {"content": answer}}]})
        return httpx.Response(200, headers=EVENTS, content=f"data: {data}\n\ndata: [DONE]\n\n")


def said(role: str, content: str) -> Body:
    return {"role": role, "content": content}


def test_each_question_carries_the_conversation_so_far() -> None:
    talk = Conversation("one", "", "  two  ", answers=["1", "2"], system="be brief")
    assert talk.asked[1]["messages"] == [
        said("system", "be brief"),
        said("user", "one"),
        said("assistant", "1"),
        said("user", "two"),
    ]
    assert (talk.asked[1]["model"], talk.asked[1]["temperature"]) == ("a", 0.5)
    assert "".join(talk.written) == "1\n2\n\n"


def test_an_answer_is_as_long_as_the_context_allows() -> None:
    assert Conversation("one", answers=["1"]).asked[0]["max_tokens"] == MAX_TOKENS_LIMIT


def test_clear_forgets_all_but_the_system_prompt() -> None:
    talk = Conversation("one", "/clear", "two", answers=["1", "2"], system="be brief")
    assert talk.asked[1]["messages"] == [said("system", "be brief"), said("user", "two")]


def test_a_question_that_failed_is_taken_back() -> None:
    talk = Conversation("one", "two", answers=[500, "2"])
    assert talk.asked[1]["messages"] == [said("user", "two")]
    assert "Error: no" in talk.noted


def test_commands_are_not_sent_to_the_model() -> None:
    talk = Conversation("/help", "/nonsense", "/?", "/bye", "never read")
    assert talk.asked == []
    assert any("/nonsense" in note for note in talk.noted)
    assert any("/clear" in note for note in talk.noted)


def test_ctrl_c_at_the_prompt_leaves() -> None:
    assert Conversation(KeyboardInterrupt(), "never read").asked == []


async def test_a_stopped_answer_stays_as_far_as_it_came() -> None:
    waits = asyncio.Event()

    class Hanging(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            yield b'data: {"choices": [{"delta": {"content": "so far"}}]}\n\n'
            waits.set()
            await asyncio.Event().wait()

    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=EVENTS, stream=Hanging()))
    async with DaemonClient(Address("http://daemon"), transport) as client:
        chat = Chat(client, "a", None, {})
        answering = asyncio.create_task(chat.answer("one", lambda _: None))
        await waits.wait()
        answering.cancel()
        await asyncio.wait([answering])
    assert chat.messages == [said("user", "one"), said("assistant", "so far")]


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    assert all(char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160) for char in printable(text))


def test_text_passes_unchanged() -> None:
    assert printable("Grüße, 世界 🌍\n\tdone") == "Grüße, 世界 🌍\n\tdone"
