"""ConversationEngine and the functions below it, over a model that knows its lines."""

from __future__ import annotations

import pytest

from kolosal.conversation import ConversationEngine
from kolosal.conversation.inputs import build_review_message, prepare_inputs
from kolosal.conversation.outputs import (
    generate_reply,
    get_and_improve_reply,
    get_reply,
    get_revised_reply,
    stream_and_improve_reply,
    stream_and_improve_reply_display_intermediate,
    stream_generate,
    stream_reply,
)
from kolosal.errors import EngineDied
from kolosal.schema import ChatPrompt
from tests.conversation.models import DIED, DRAFT, PROMPTS, REVIEW1, REVIEW2, ScriptedHost, scripted

STATUSES = [
    "🤔 Generating draft answer...",
    "🔄️ Running first improvement pass...",
    "🔄️ Running second improvement pass...\n\n",
]
KEYS = {
    "user_question", "draft_answer", "suggestions1", "revision1", "comments1", "suggestions2", "revision2", "comments2"
}  # fmt: skip
HISTORY = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def turns(host: ScriptedHost, index: int = 0) -> list[tuple[str, str]]:
    prompt = host.prompts[index]
    assert isinstance(prompt, ChatPrompt)
    return [(message.role, message.content) for message in prompt.messages]


def test_a_conversation_remembers() -> None:
    host, tok, model = scripted("Hello, Ann.", "Ann.")
    engine = ConversationEngine(tok, model, PROMPTS)

    assert "".join(engine.stream_reply("I am Ann.")) == "Hello, Ann."
    assert engine.last_result == {"reply": "Hello, Ann."}
    assert "".join(engine.stream_reply("Who am I?")) == "Ann."
    assert turns(host, 1) == [
        ("system", "Answer."), ("user", "I am Ann."), ("assistant", "Hello, Ann."), ("user", "Who am I?")
    ]  # fmt: skip
    assert len(engine.conversation_history) == 4


def test_c05_improvement_is_three_generations() -> None:
    host, tok, model = scripted(DRAFT, REVIEW1, REVIEW2)
    engine = ConversationEngine(tok, model, PROMPTS, improvement=True)
    engine.conversation_history = HISTORY

    pieces = [*engine.stream_reply("Why?")]

    assert [piece for piece in pieces if piece in STATUSES] == STATUSES
    assert "".join(pieces[3:]) == "The sky scatters blue light."
    assert [turns(host, index)[0][1] for index in range(3)] == ["Answer.", "Revise.", "Revise."]
    assert turns(host, 1)[1:] == [
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", build_review_message("Why?", DRAFT)),
    ]
    assert turns(host, 2)[-1] == ("user", build_review_message("Why?", "The sky is blue by day."))
    assert engine.last_result.keys() == KEYS | {"reply"}
    assert engine.last_result["reply"] == engine.last_result["revision2"] == "The sky scatters blue light."
    assert engine.conversation_history[-1] == {"role": "assistant", "content": "The sky scatters blue light."}


def test_c06_a_malformed_review_falls_back() -> None:
    _, tok, model = scripted(DRAFT, "Nice!", "### Revised Answer\nNone\n### Comments\nNone")
    result = get_and_improve_reply(tok, model, PROMPTS, "Why?")

    assert (result["revision1"], result["revision2"], result["reply"]) == (DRAFT, DRAFT, DRAFT)
    assert (result["suggestions1"], result["comments2"]) == ("None", "None")


def test_c07_steps_show_draft_and_reviews() -> None:
    _, tok, model = scripted(DRAFT, REVIEW1, REVIEW2)
    engine = ConversationEngine(tok, model, PROMPTS).set_improvement(True).set_intermediate_steps(True)

    assert "".join(engine.stream_reply("Why?")) == f"{DRAFT}\n{REVIEW1}\n{REVIEW2}"


def test_c09_setters_chain() -> None:
    _, tok, model = scripted()
    engine = ConversationEngine(tok, model, PROMPTS)

    assert engine.set_improvement(True).set_intermediate_steps(True) is engine
    assert (engine.improvement, engine.intermediate_steps) == (True, True)
    assert (engine.conversation_history, engine.last_result) == ([], {})


@pytest.mark.parametrize("improvement", [False, True])
def test_c09_a_failure_changes_nothing(improvement: bool) -> None:
    host, tok, model = scripted(*([DRAFT] if improvement else []), DIED)
    engine = ConversationEngine(tok, model, PROMPTS, improvement)
    engine.conversation_history, engine.last_result = HISTORY, {"reply": "Hello!"}

    with pytest.raises(EngineDied, match="It died"):
        list(engine.stream_reply("Why?"))

    assert (engine.conversation_history, engine.last_result) == (HISTORY, {"reply": "Hello!"})
    assert host.running == 0


def test_c09_an_early_close_changes_nothing_and_stops_the_model() -> None:
    host, tok, model = scripted(DRAFT)
    engine = ConversationEngine(tok, model, PROMPTS)
    answer = engine.stream_reply("Why?")

    assert (next(answer), host.running) == ("The s", 1)
    answer.close()

    assert (engine.conversation_history, engine.last_result, host.running) == ([], {}, 0)


def test_a_missing_system_prompt_is_a_key_error_before_anything_is_generated() -> None:
    host, tok, model = scripted(DRAFT)
    engine = ConversationEngine(tok, model, {"assistant": "Answer."}, improvement=True)

    with pytest.raises(KeyError, match="reviser"):
        next(engine.stream_reply("Why?"))
    with pytest.raises(KeyError, match="pirate"):
        get_reply(tok, model, PROMPTS, "Why?", role="pirate")
    assert host.prompts == []


def test_c10_stream_generate_ends_with_none_and_returns_the_text() -> None:
    host, tok, model = scripted(DRAFT)
    inputs = prepare_inputs(tok, model, PROMPTS, "Why?", conversation_history=HISTORY)
    pieces: list[str | None] = []

    def run() -> str:
        stream = stream_generate(inputs, tok, model, max_new_tokens=9)
        while True:
            try:
                pieces.append(next(stream))
            except StopIteration as end:
                return str(end.value)

    assert run() == DRAFT
    assert pieces[-1] is None
    assert "".join(piece or "" for piece in pieces) == DRAFT
    assert host.samplings[0].max_tokens == 9


def test_c10_prepared_inputs_go_into_generate() -> None:
    _, tok, model = scripted(DRAFT, DRAFT)
    inputs = prepare_inputs(tok, model, PROMPTS, "Why?", conversation_history=HISTORY)

    text = "<system>Answer.<user>Hi<assistant>Hello!<user>Why?<assistant>"
    assert inputs["input_ids"].shape == (1, len(text))
    assert inputs["attention_mask"] == [[1] * len(text)]
    assert tok.decode(inputs["input_ids"]) == text
    output = model.generate(**inputs, max_new_tokens=512)
    assert tok.decode(output[0]) == text + DRAFT
    assert generate_reply(inputs, tok, model) == DRAFT


def test_what_generate_does_not_know_is_named() -> None:
    _, tok, model = scripted()
    inputs = prepare_inputs(tok, model, PROMPTS, "Why?")

    with pytest.raises(ValueError, match="num_beams is no generation parameter"):
        model.generate(**inputs, num_beams=4)
    with pytest.raises(ValueError, match="temperature"):
        model.generate(**inputs, temperature=-1)
    with pytest.raises(ValueError, match="one row"):
        model.generate([[1], [2]])


def test_the_functions_do_what_the_engine_does() -> None:
    _, tok, model = scripted("Hello", "Hello", REVIEW1, DRAFT, REVIEW1, REVIEW2, DRAFT, REVIEW1, REVIEW2)

    assert get_reply(tok, model, PROMPTS, "Hi") == "Hello"
    assert "".join(stream_reply(tok, model, PROMPTS, "Hi")) == "Hello"
    assert get_revised_reply("Why?", DRAFT, tok, model, PROMPTS) == (
        "1. Say more.",
        "The sky is blue by day.",
        "Better.",
    )
    assert "".join(stream_and_improve_reply(tok, model, PROMPTS, "Why?")).endswith("light.")
    shown = stream_and_improve_reply_display_intermediate(tok, model, PROMPTS, "Why?")
    assert "".join(shown) == f"{DRAFT}\n{REVIEW1}\n{REVIEW2}"
