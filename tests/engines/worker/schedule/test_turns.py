"""Chats with tools and thoughts through preprocessor and engine loop, over the fake backend."""

from __future__ import annotations

import pytest

from kolosal.chat.events import whole_turn
from kolosal.chat.formats import ToolFormat
from kolosal.chat.parser import ChatParser
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    Grammar,
    GrammarKind,
    Message,
    TokenDelta,
    Tool,
    ToolMode,
    ToolUse,
    Usage,
)
from tests.engines.worker.helpers import Answer, InProcessWorker, fake_backend

CONTENT = "{% for m in messages %}{{ m.content }}{% endfor %}"
THINKS = "{# </think> #}" + CONTENT
OPENS = THINKS + "<think>\n"
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = Tool("look", parameters=CITY)
CALL = '<tool_call>\n{"name": "look", "arguments": {"city": "Oslo"}}\n</tool_call>'


_NO_TOOLS = ToolUse()


def ask(
    said: str,
    *,
    use: ToolUse = _NO_TOOLS,
    grammar: Grammar | None = None,
    template: str = CONTENT,
    stop: tuple[str, ...] = (),
) -> Answer:
    prompt = ChatPrompt((Message("user", f"<say>{said}</say>"),), use)
    request = GenerateRequest(prompt, SamplingParams(max_tokens=400, stop=stop), grammar)
    return InProcessWorker(fake_backend(n_ctx=4096), chat_template=template).answer(request)


def test_call_of_a_model_that_calls() -> None:
    answer = ask(CALL, use=ToolUse((TOOL,), parallel=False))
    delta = TokenDelta(answer.text, finish_reason=answer.finish_reason, usage=answer.usage)
    turn = whole_turn(ChatParser(ToolFormat.GENERIC, None, (TOOL,)).push(delta))

    assert (turn.text, turn.finish_reason) == ("", FinishReason.TOOL_CALLS)
    assert [(call.name, call.arguments) for call in turn.calls] == [("look", '{"city": "Oslo"}')]


def test_call_is_made_valid_where_the_model_strays() -> None:
    strays = CALL.replace("Oslo", "Rome")

    assert ask(strays, use=ToolUse((TOOL,), parallel=False)).text == CALL


def test_call_is_forced_where_it_is_required() -> None:
    use = ToolUse((TOOL, Tool("other")), ToolMode.REQUIRED, only=("look",), parallel=False)

    assert ask("I would rather not", use=use).text == CALL


def test_text_stays_free_where_no_call_is_made() -> None:
    assert ask("No need, thanks.", use=ToolUse((TOOL,))).text == "No need, thanks."


def test_tools_that_may_not_be_called_constrain_nothing() -> None:
    said = "<tool_call>\nnonsense"

    assert ask(said, use=ToolUse((TOOL,), ToolMode.NONE)).text == said


def test_bad_schema_fails_the_request_and_names_the_field() -> None:
    bad = Tool("bad", parameters={"type": "object", "properties": {"a": {"type": "strin"}}}, strict=True)
    error = ask("a", use=ToolUse((TOOL, bad))).error

    assert error is not None
    assert (error.error, error.param) == ("InvalidRequest", "tools.1.function.parameters")


# --- thoughts ---


def test_thoughts_that_the_prompt_opens_are_shown_with_their_tag() -> None:
    assert ask("Hm.</think>Yes.", template=OPENS).text == "<think>Hm.</think>Yes."


def test_opened_thoughts_are_shown_where_nothing_follows() -> None:
    assert ask("", template=OPENS).text == "<think>"


def test_thoughts_are_not_constrained_and_the_answer_is() -> None:
    grammar = Grammar(GrammarKind.REGEX, "(yes|no)!")

    assert (
        ask("<think>Hm.</think>\n\nyes!", grammar=grammar, template=THINKS).text
        == "<think>Hm.</think>\n\nyes!"
    )
    assert ask("Hm.</think>no!", grammar=grammar, template=OPENS).text == "<think>Hm.</think>no!"


def test_stop_string_ends_the_turn_behind_its_opened_thoughts() -> None:
    assert ask("Hm.</think>Yes.", template=OPENS, stop=("k>Y",)).text == "<think>Hm.</thin"


# --- markers ---


def test_front_comes_before_the_first_token_and_only_once() -> None:
    stream = Detokenizer(front="<think>")

    assert [stream.push(b"a"), stream.push(b"b"), stream.flush()] == ["<think>a", "b", ""]


@pytest.mark.parametrize("use", [ToolUse(), ToolUse((TOOL,))])
def test_control_tokens_that_mark_calls_are_shown_only_where_there_are_tools(use: ToolUse) -> None:
    backend = fake_backend()
    backend.tokenize = lambda text, **_: [300] if text == "<tool_call>" else list(text.encode())  # type: ignore[method-assign]
    backend.token_bytes = lambda token: b"" if token == 300 else bytes([token])  # type: ignore[method-assign]
    template = InProcessWorker(backend, chat_template="<tool_call>")._preprocessor._template
    shown = template.markers(ChatPrompt((Message("user", "a"),), use))

    assert dict(shown) == ({300: b"<tool_call>"} if use.tools else {})


def test_usage_counts_what_was_generated_not_what_is_shown_before() -> None:
    answer = ask("Hm.", template=OPENS)

    assert isinstance(answer.usage, Usage)
    assert answer.usage.completion_tokens == len("Hm.") + 1
