"""Whatever order of turns a client sends, every template takes it, and shows all that was said."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from kolosal.engines.worker.templates.arrangement import shape_of
from kolosal.engines.worker.templates.renderer import TemplateFailed
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.schema import ChatPrompt, Message, Tool, ToolCall, ToolUse
from tests.engines.worker.helpers import RENDERER, fake_backend
from tests.engines.worker.templates.families import FAMILIES

USE = ToolUse((Tool("f"),))


def conversation(letters: str) -> tuple[Message, ...]:
    """Turns by their letters, see `shape_of`; each says a word of its own."""
    roles = {"s": "system", "d": "developer", "u": "user", "a": "assistant"}
    turns: list[Message] = []
    waiting: list[str] = []
    for index, letter in enumerate(letters):
        text = f"said{index}."
        if letter in roles:
            turns.append(Message(roles[letter], text))
        elif letter == "t":
            turns.append(Message("tool", text, tool_call_id=waiting.pop(0) if waiting else None))
        else:
            calls = [
                ToolCall(f"call{index}{n}", "f", f'{{"arg{index}{n}.": 1}}')
                for n in range(1 + (letter in "CX"))
            ]
            waiting = [call.id for call in calls]
            turns.append(Message("assistant", text if letter in "xX" else "", tool_calls=tuple(calls)))
    return tuple(turns)


def words(letters: str) -> list[str]:
    """All that is said in such a conversation."""
    said = conversation(letters)
    return [turn.content for turn in said if turn.content] + [
        re.findall(r"arg\d+\.", call.arguments)[0] for turn in said for call in turn.tool_calls
    ]


ORDERS = [
    "u", "s", "su", "us", "usu", "ssu", "susu", "sus", "suasu", "duu", "uu", "uua", "a", "au", "sau", "aau", "uaau", "uas", "sa", "ua",
    "uct", "uctu", "ucts", "sucCttau", "uCtt", "uXttau", "uxt", "uxta", "ucu", "uc", "tu", "ut", "sutua", "ctu", "uasct", "dsuasuctsu",
]  # fmt: skip


@pytest.fixture(scope="module", params=list(FAMILIES.values()), ids=list(FAMILIES))
def template(request: pytest.FixtureRequest) -> ChatTemplate:
    return ChatTemplate(fake_backend(n_ctx=100_000), request.param, RENDERER)


def shown(template: ChatTemplate, letters: str, *, tools: bool, continues: bool = False) -> str:
    prompt = ChatPrompt(conversation(letters), USE if tools else ToolUse(), continues)
    return bytes(token for token in template.tokenize(prompt) if token < 256).decode()


@pytest.mark.parametrize("tools", [False, True])
def test_qwen_late_system_and_every_other_order_is_taken(template: ChatTemplate, *, tools: bool) -> None:
    for letters in ORDERS:
        text = shown(template, letters, tools=tools)
        assert [word for word in words(letters) if word not in text] == [], (letters, text)


def test_orders_that_nobody_thought_of_are_taken(template: ChatTemplate) -> None:
    orders = random.Random(7)  # noqa: S311 - the same ones each time
    for _ in range(40):
        letters = "".join(orders.choices("sduacCxXt", k=orders.randint(1, 9)))
        text = shown(template, letters, tools=True)
        assert [word for word in words(letters) if word not in text] == [], (letters, text)


@pytest.mark.parametrize("letters", ["a", "ua", "sua", "usua", "uua", "uaa", "uctsa"])
def test_a_turn_that_is_gone_on_with_stays_the_last(template: ChatTemplate, letters: str) -> None:
    if "the last role" in template._text:
        with pytest.raises(TemplateFailed, match="the last role must be user or tool"):
            shown(template, letters, tools=True, continues=True)
        return
    text = shown(template, letters, tools=True, continues=True)
    assert text.endswith(f"said{len(letters) - 1}.")
    assert [word for word in words(letters) if word not in text] == []


def test_what_is_taken_as_it_is_stays_as_it_is() -> None:
    template = ChatTemplate(fake_backend(), FAMILIES["any order"], RENDERER)
    text = shown(template, "susuuaau", tools=False)
    assert (
        text
        == "<system>said0.<user>said1.<system>said2.<user>said3.<user>said4.<assistant>said5.<assistant>said6.<user>said7.<assistant>"
    )


def test_what_the_system_says_late_stays_where_it_was_said() -> None:
    """So a longer conversation begins with the shorter one's prompt, and shares its KV cells."""
    template = ChatTemplate(fake_backend(), FAMILIES["system first only"], RENDERER)
    short = shown(template, "suas", tools=False)
    assert short == "<system>said0.<user>said1.<assistant>said2.<user>said3.<assistant>"
    assert shown(template, "suasau", tools=False).startswith(short)
    assert shown(template, "suasu", tools=False).endswith("<user>said3.\n\nsaid4.<assistant>")


def test_calls_stay_calls_where_only_their_order_is_not_taken() -> None:
    template = ChatTemplate(fake_backend(), FAMILIES["one call a turn"], RENDERER)
    text = shown(template, "uXtt", tools=True)
    assert text == (
        '<user>said0.<assistant>said1.<assistant><tool_call>f {"arg10.": 1}</tool_call><tool>said2.'
        '<assistant><tool_call>f {"arg11.": 1}</tool_call><tool>said3.<assistant>'
    )


@pytest.mark.parametrize(
    ("letters", "shape"),
    [
        ("u", "u"), ("uuuuu", "uu"), ("su" + "au" * 50, "su" + "au" * 2), ("u" + "ctau" * 50, "u" + "ctau" * 2),
        ("uXtttt", "uXtt"), ("tuctut", "ouctuo"), ("uctctct", "uctct"),
        ("s" + "uctcta" * 3 + "ua" + "uctcta" + "ua" * 2 + "uXtta" + "uctcta" + "uc", "suctcta" + "uctcta" + "ua" + "uXtta" + "uc"),
    ],
)  # fmt: skip
def test_conversations_that_differ_in_length_only_have_one_shape(letters: str, shape: str) -> None:
    assert shape_of(conversation(letters)) == shape


def test_a_shape_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(fake_backend(n_ctx=100_000), FAMILIES["system first only"], RENDERER)
    shown(template, "suau" + "au" * 5, tools=True)
    rendered: list[int] = []
    render = RENDERER.render

    def counting(source: str, given: list[dict[str, Any]], *, renew: bool) -> list[str | TemplateFailed]:
        rendered.append(len(given))
        return render(source, given, renew=renew)

    monkeypatch.setattr(RENDERER, "render", counting)
    for length in range(2, 20):
        shown(template, "suau" + "au" * length, tools=True)
    assert rendered == [1] * 18
