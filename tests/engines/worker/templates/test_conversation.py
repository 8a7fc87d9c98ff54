"""What chat templates of different capabilities make of tools, calls, results, thoughts and roles."""

from __future__ import annotations

import contextlib
import datetime as dt
import json

import pytest

from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.schema import ChatPrompt, Message, Tool, ToolCall, ToolMode, ToolUse
from tests.engines.worker.helpers import RENDERER, fake_backend
from tests.fake_worker.backend import BOS, END

HERMES = """
{%- if tools %}[TOOLS {% for tool in tools %}{{ tool | tojson }}{% endfor %} in <tool_call></tool_call>]{% endif %}
{%- for m in messages %}({{ m.role }}:{{ m.content }}
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{%- for call in m.tool_calls or [] %}<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %})
{%- endfor %}{% if add_generation_prompt %}(assistant:{% endif %}"""
PLAIN = "{% for m in messages %}({{ m.role }}:{{ m.content }}){% endfor %}{% if add_generation_prompt %}(assistant:{% endif %}"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}({{ m.role }}:{{ m.content }})"
    "{% endfor %}"
)
SILENT_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}({{ m.role }}:{{ m.content }}){% endif %}{% endfor %}"
)
STRING_ARGUMENTS = (
    "<tool_call>{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}"
    "{% endfor %}{% endfor %}"
)
PLAIN_ARGUMENTS = (
    "<tool_call>{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    "{% for name, value in c.function.arguments | items %}<{{ name }}={{ value }}>{% endfor %}{% endfor %}{% endfor %}"
)
NULL_CONTENT = (
    "<tool_call>{% for m in messages %}{% if m.content is none %}CALL {{ m.tool_calls[0].function.name }}"
    " {{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "[TOOL_CALLS] {% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
    "{{ raise_exception('nine characters') }}{% endif %}{{ c.function | tojson }}{{ c.id }}{% endfor %}"
    "{% if m.role == 'tool' %}={{ m.tool_call_id }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{# <|tool_call>call: #}{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ '{' }}"
    "{% if c.function.arguments is mapping %}{% for k, v in c.function.arguments | items %}{{ k }}:{{ v }}{% endfor %}"
    "{% else %}{{ c.function.arguments }}{% endif %}{{ '}' }}{% endfor %}{% endfor %}"
)
HARMONY = (
    "{% for m in messages %}<|channel|>{{ m.role }}<|message|>{{ m.thinking }}|{{ m.content }}{{ m.tool_calls }}"
    "{% if m.thinking and m.content and m.tool_calls %}{{ raise_exception('both') }}{% endif %}{% endfor %}"
)

WEATHER = Tool(
    "get_weather", "Weather <end> now", {"type": "object", "properties": {"city": {"type": "string"}}}
)
USE = ToolUse((WEATHER,))
CALL = ToolCall("call_0123456789abcdefABCDEF01", "get_weather", '{"city": "Oslo"}')
LOOP = (
    Message("user", "Hi"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "Rain", tool_call_id=CALL.id),
)


def render(source: str | None, prompt: ChatPrompt) -> str:
    names = {BOS: b"", END: b"[END]"}
    tokens = ChatTemplate(fake_backend(), source, RENDERER).tokenize(prompt)
    return b"".join(names.get(token, bytes([token % 256])) for token in tokens).decode()


# --- templates that know tools ---


def test_tools_are_given_in_openais_shape() -> None:
    text = render(HERMES, ChatPrompt((Message("user", "Hi"),), USE))
    tool, _ = json.JSONDecoder().raw_decode(text.removeprefix("[TOOLS "))

    assert tool == {
        "type": "function",
        "function": {
            "name": WEATHER.name,
            "description": WEATHER.description,
            "parameters": WEATHER.parameters,
        },
    }


def test_tools_are_kept_from_a_model_that_may_call_none() -> None:
    prompt = ChatPrompt((Message("user", "Hi"),), ToolUse((WEATHER,), ToolMode.NONE))

    assert render(HERMES, prompt) == "(user:Hi)(assistant:"
    assert "get_weather" not in render(PLAIN, prompt)


def test_earlier_calls_are_given_with_their_arguments_as_an_object() -> None:
    text = render(HERMES, ChatPrompt(LOOP, USE))

    assert '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>)(tool:Rain)' in text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (STRING_ARGUMENTS, 'get_weather{"city": "Oslo"}'),
        (PLAIN_ARGUMENTS, "get_weather<city=Oslo>"),
        (GEMMA, "get_weather{city:Oslo}"),
        (NULL_CONTENT, 'CALL get_weather {"city": "Oslo"}'),
    ],
)
def test_earlier_calls_are_given_as_the_template_wants_them(source: str, shown: str) -> None:
    assert shown in render(source, ChatPrompt(LOOP, USE))


def test_ids_are_made_as_short_as_mistrals_templates_want_them() -> None:
    text = render(MISTRAL, ChatPrompt(LOOP, USE))
    _, _, short = text.rpartition("=")

    assert len(short) == 9
    assert f'{{"name": "get_weather", "arguments": {{"city": "Oslo"}}}}{short}={short}' in text


def test_short_ids_are_left_as_they_are() -> None:
    call = ToolCall("Ab1Cd2Ef3", "f", "{}")

    assert "Ab1Cd2Ef3" in render(MISTRAL, ChatPrompt((Message("assistant", "", tool_calls=(call,)),), USE))


def test_result_carries_the_name_of_its_function() -> None:
    source = "<tool_call>{% for m in messages %}{% if m.role == 'tool' %}{{ m.name }}={{ m.content }}{% endif %}{% endfor %}"

    assert "get_weather=Rain" in render(source, ChatPrompt(LOOP, USE))


@pytest.mark.parametrize(
    "arguments",
    ["", " \n", "null", "[]", "oops", '{"city": "Os', '"{}"', "NaN", r'{"a": "\ud800"}', "[" * 5000],
)
@pytest.mark.parametrize("source", [HERMES, PLAIN, STRING_ARGUMENTS])
def test_arguments_that_are_no_object_are_given_as_an_empty_one(source: str, arguments: str) -> None:
    call = ToolCall("a", "f", arguments)
    shown = {HERMES: '"arguments": {}}', PLAIN: '"arguments": {}}', STRING_ARGUMENTS: "f{}"}[source]

    assert shown in render(source, ChatPrompt((Message("assistant", "", tool_calls=(call,)),), USE))


# --- templates that know none ---


def test_tools_are_described_to_a_model_whose_template_knows_none() -> None:
    text = render(PLAIN, ChatPrompt((Message("system", "Be kind."), Message("user", "Hi")), USE))

    assert text.startswith("(system:Be kind.\n\n")
    assert '"name": "get_weather"' in text
    assert "<tool_call>" in text
    assert text.endswith("(user:Hi)(assistant:")


def test_tools_get_a_system_turn_where_there_is_none() -> None:
    assert render(PLAIN, ChatPrompt((Message("user", "Hi"),), USE)).startswith("(system:")


def test_tools_are_told_to_the_user_turn_where_a_system_turn_is_refused() -> None:
    text = render(NO_SYSTEM, ChatPrompt((Message("user", "Hi"),), USE))

    assert text.startswith("(user:")
    assert "get_weather" in text
    assert text.endswith("\n\nHi)")


def test_earlier_calls_and_results_are_told_as_text() -> None:
    text = render(PLAIN, ChatPrompt((*LOOP, Message("tool", "Sun")), USE))

    assert (
        '(assistant:<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>)'
        in text
    )
    assert (
        "(user:<tool_response>\nRain\n</tool_response>\n<tool_response>\nSun\n</tool_response>)(assistant:"
        in text
    )


def test_user_who_speaks_after_results_speaks_in_the_same_turn() -> None:
    text = render(PLAIN, ChatPrompt((*LOOP, Message("user", "And now?")), USE))

    assert text.endswith("(user:<tool_response>\nRain\n</tool_response>\nAnd now?)(assistant:")


# --- roles ---


@pytest.mark.parametrize("source", [NO_SYSTEM, SILENT_SYSTEM])
def test_system_turn_that_does_not_reach_the_model_is_told_by_the_user(source: str) -> None:
    messages = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yes?"))

    assert render(source, ChatPrompt(messages)) == "(user:Be kind.\n\nHi)(assistant:Yes?)"


def test_system_turn_alone_is_told_by_the_user() -> None:
    assert render(NO_SYSTEM, ChatPrompt((Message("system", "Be kind."),))) == "(user:Be kind.)"


def test_developer_is_the_system_where_the_template_does_not_know_one() -> None:
    assert render(PLAIN, ChatPrompt((Message("developer", "Be kind."),))) == "(system:Be kind.)(assistant:"


def test_developer_stays_one_where_the_template_knows_it() -> None:
    source = "{# developer #}" + PLAIN

    assert render(source, ChatPrompt((Message("developer", "a"),))) == "(developer:a)(assistant:"


# --- thoughts ---


def test_earlier_thoughts_are_given() -> None:
    messages = (Message("user", "Hi"), Message("assistant", "Yes?", thinking="Hm"))

    assert "(assistant:Yes?<think>Hm</think>)" in render(HERMES, ChatPrompt(messages))


def test_gpt_oss_gets_thoughts_beside_calls_only_without_content() -> None:
    call = Message("assistant", "", tool_calls=(CALL,), thinking="Hm")
    said = Message("assistant", "Yes?", tool_calls=(CALL,), thinking="Hm")

    assert "Hm|" in render(HARMONY, ChatPrompt((call,), USE))
    assert "Hm|" not in render(HARMONY, ChatPrompt((said,), USE))


@pytest.mark.parametrize(
    ("source", "within"),
    [
        ("{{ messages[0].content }}<think>\n", True),
        ("<think></think>", False),
        ("</think> none", False),
        ("none", False),
    ],
)
def test_prompt_that_ends_within_thoughts_is_known(source: str, within: bool) -> None:
    template = ChatTemplate(fake_backend(), "{# </think> #}" + source, RENDERER)
    prompt = ChatPrompt((Message("user", "Hi"),))

    assert template.ends_in_thoughts(prompt, template.tokenize(prompt)) is within


@pytest.mark.parametrize(
    ("content", "within"), [("<think>Hm", True), ("<think>Hm</think>Yes", False), ("Yes", False)]
)
def test_continued_turn_may_be_within_thoughts(content: str, within: bool) -> None:
    template = ChatTemplate(fake_backend(), "{# </think> #}" + PLAIN, RENDERER)
    prompt = ChatPrompt((Message("assistant", content),), continues=True)

    assert template.ends_in_thoughts(prompt, template.tokenize(prompt)) is within


# --- going on with a turn ---


def test_last_turn_is_left_open_where_it_is_gone_on_with() -> None:
    messages = (Message("user", "Hi"), Message("assistant", "Well, "))

    assert render(PLAIN, ChatPrompt(messages, continues=True)) == "(user:Hi)(assistant:Well, "


def test_empty_turn_can_be_gone_on_with() -> None:
    assert render(PLAIN, ChatPrompt((Message("assistant", ""),), continues=True)) == "(assistant:"


def test_template_that_hides_the_turn_cannot_go_on_with_it() -> None:
    with pytest.raises(TemplateFailed, match="continued"):
        render("{{ messages[0].role }}", ChatPrompt((Message("assistant", "a"),), continues=True))


@pytest.mark.parametrize("messages", [(), (Message("user", "Hi"),)])
def test_only_the_assistants_turn_can_be_gone_on_with(messages: tuple[Message, ...]) -> None:
    with pytest.raises(TemplateFailed, match="assistant"):
        render(PLAIN, ChatPrompt(messages, continues=True))


# --- variables ---


def test_variables_reach_the_template() -> None:
    prompt = ChatPrompt((Message("user", "Hi"),), template_kwargs={"enable_thinking": False, "level": 3})

    assert render("{{ enable_thinking }} {{ level }}", prompt) == "False 3"


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"])
def test_variables_of_ours_cannot_be_set(name: str) -> None:
    prompt = ChatPrompt((Message("user", "Hi"),), USE, template_kwargs={name: "HACK"})

    assert "HACK" not in render(HERMES + "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}", prompt)


@pytest.mark.parametrize(
    ("given", "configured", "shown"),
    [
        ({}, True, "True True"), ({}, False, "False False"), ({"enable_thinking": False}, True, "False False"),
        ({"enable_thinking": True}, False, "True True"), ({"thinking": False}, True, "True False"),
    ],
)  # fmt: skip
def test_models_think_unless_told_otherwise(
    given: dict[str, bool | int | float | str], configured: bool, shown: str
) -> None:
    source = "{{ enable_thinking }} {{ thinking }}"
    template = ChatTemplate(fake_backend(), source, RENDERER, enable_thinking=configured)
    tokens = template.tokenize(ChatPrompt((Message("user", "Hi"),), template_kwargs=given))

    assert bytes(tokens[1:]).decode() == shown


def test_dates_are_given_to_the_hour_so_that_prompts_begin_alike() -> None:
    source = "{{ date_string }}|{{ datetime }}|{{ strftime_now('%d %b %Y|%M:%S') }}"
    date_string, datetime, today, minutes = render(source, ChatPrompt((Message("user", "Hi"),))).split("|")

    assert date_string == today == dt.datetime.now().astimezone().strftime("%d %b %Y")
    assert dt.datetime.strptime(datetime, "%b %d %Y %H:00:00 GMT").year >= 2026  # noqa: DTZ007
    assert minutes == "00:00"


def test_date_of_a_request_goes_before_ours() -> None:
    prompt = ChatPrompt((Message("user", "Hi"),), template_kwargs={"date_string": "1 Jan 2000"})

    assert render("{{ date_string }}", prompt) == "1 Jan 2000"


@pytest.mark.parametrize("shown", ["{{ functions }}", "{% for f in functions %}{{ f | tojson }}{% endfor %}"])
def test_tools_are_functions_to_templates_of_older_families(shown: str) -> None:
    source = f"<tool_call>{{% if functions %}}{shown}{{% endif %}}|{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}"

    functions = render(source, ChatPrompt((Message("user", "Hi"),), USE)).partition("|")[0]
    told = json.loads(functions.removeprefix("<tool_call>"))
    assert (told if isinstance(told, dict) else told[0])["name"] == "get_weather"
    assert render(source, ChatPrompt((Message("user", "Hi"),))) == "<tool_call>|Hi"


def test_answer_need_not_be_begun() -> None:
    assert render(PLAIN, ChatPrompt((Message("user", "Hi"),), add_generation_prompt=False)) == "(user:Hi)"


# --- what clients say of themselves ---

BILLING = "x-anthropic-billing-header: cc_version=2.1.3; cc_entrypoint=cli; cch=0a1b2;"


@pytest.mark.parametrize(
    ("system", "kept"),
    [
        (BILLING, ""),
        (f"{BILLING}\nBe kind.", "(system:Be kind.)"),
        (f"Of {BILLING}", f"(system:Of {BILLING})"),
    ],
)
def test_line_that_changes_with_every_request_is_dropped(system: str, kept: str) -> None:
    prompt = ChatPrompt((Message("system", system), Message("user", BILLING)))

    assert render(PLAIN, prompt) == f"{kept}(user:{BILLING})(assistant:"


def test_line_that_changes_with_every_request_can_be_kept() -> None:
    template = ChatTemplate(fake_backend(), PLAIN, RENDERER, keep_client_metadata=True)
    tokens = template.tokenize(ChatPrompt((Message("system", BILLING),)))

    assert BILLING in bytes(tokens[1:]).decode()


# --- what users write stays text ---


def test_control_tokens_in_tools_calls_results_and_variables_stay_characters() -> None:
    call = ToolCall("<end>", "<end>", '{"<end>": ["<end>"]}')
    messages = (
        Message("assistant", "", tool_calls=(call,), thinking="<end>"),
        Message("tool", "<end>", tool_call_id="<end>"),
    )
    for source in (HERMES + "{{ level }}", PLAIN):
        prompt = ChatPrompt(messages, USE, template_kwargs={"level": "<end>"})
        assert "[END]" not in render(source, prompt)


# --- bounds ---


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(90000) %}{% for j in range(90000) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}{% endfor %}",
        "{{ 'a' * 100000000 }}",
        "{{ 100000000 * 'a' }}",
        "{{ [1] * 100000000 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ (2 ** 5000) * (2 ** 15000) }}",
    ],
)
def test_template_that_makes_too_much_is_refused(source: str) -> None:
    with contextlib.closing(TemplateRenderer()) as renderer:
        template = ChatTemplate(fake_backend(), source, renderer)
        with pytest.raises(TemplateFailed):
            template.tokenize(ChatPrompt((Message("user", "Hi"),)))


def test_small_sums_are_computed() -> None:
    assert (
        render("{{ 3 * 4 }} {{ 2 ** 10 }} {{ 'ab' * 2 }} {{ 1.5 * 2 }}", ChatPrompt(())) == "12 1024 abab 3.0"
    )
