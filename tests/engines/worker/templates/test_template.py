from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.engines.worker.backend import TemplateSource
from kolosal.engines.worker.templates.renderer import TemplateFailed
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.schema import ChatPrompt, Message
from tests.engines.worker.helpers import RENDERER, fake_backend
from tests.fake_worker.backend import BOS, END, FakeBackend

USER = (Message("user", "Hi"),)


def template(source: str | None = None) -> ChatTemplate:
    return ChatTemplate(fake_backend(), source, RENDERER)


def render(source: str | None, *messages: Message) -> str:
    """The prompt in words: what the fake's tokens stand for."""
    names = {BOS: b"[BOS]", END: b"[END]"}
    return b"".join(
        names.get(token, bytes([token % 256]))
        for token in template(source).tokenize(ChatPrompt(messages or USER))
    ).decode()


# --- which template ---


def with_model_template(source: str | None) -> FakeBackend:
    backend = fake_backend()
    backend.template = TemplateSource(source, "<s>", "<end>")
    return backend


@pytest.mark.parametrize(
    ("of_model", "configured", "origin"),
    [("M", "C", "configured"), ("M", None, "model"), (None, "C", "configured"), (None, None, "chatml")],
)
def test_configured_template_goes_before_the_models_before_chatml(
    of_model: str | None, configured: str | None, origin: str
) -> None:
    assert ChatTemplate(with_model_template(of_model), configured, RENDERER).origin == origin


def test_model_without_a_template_gets_chatml() -> None:
    assert render(None) == "[BOS]<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_text_that_is_no_template_is_refused() -> None:
    with pytest.raises(TemplateFailed, match="not valid"):
        template("{% for %}")


def test_number_too_long_for_python_is_refused() -> None:
    with pytest.raises(TemplateFailed, match="not valid"):
        template("{{ " + "9" * 5000 + " }}")


def test_expression_nested_too_deep_is_refused() -> None:
    with pytest.raises(TemplateFailed, match="not valid"):
        template("{{ " + "(" * 20_000 + ")" * 20_000 + " }}")


# --- what templates may use ---


def test_begin_of_text_token_is_not_doubled() -> None:
    assert render("{{ bos_token }}{{ messages[0].content }}") == "[BOS]Hi"


def test_begin_of_text_token_is_added_where_the_template_has_none() -> None:
    assert render("{{ messages[0].content }}") == "[BOS]Hi"


def test_begin_of_text_token_is_not_doubled_around_escaped_text() -> None:
    assert render("{{ bos_token }}{{ messages[0].content }}", Message("user", "<end>")) == "[BOS]<end>"


def test_end_token_is_given_to_the_template() -> None:
    assert render("{{ messages[0].content }}{{ eos_token }}") == "[BOS]Hi[END]"


def test_name_is_given_to_the_template() -> None:
    assert render("{{ messages[0].name }}", Message("user", "Hi", name="Ann")) == "[BOS]Ann"


def test_generation_prompt_is_asked_for() -> None:
    assert render("{{ add_generation_prompt }}") == "[BOS]True"


def test_loop_controls_work() -> None:
    source = (
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    )

    assert render(source, Message("user", "one"), Message("assistant", "two")) == "[BOS]one"


def test_block_lines_leave_no_white_space() -> None:
    assert render("  {% if true %}\nyes\n  {% endif %}\n") == "[BOS]yes\n"


def test_tojson_does_not_escape_for_html() -> None:
    assert render("{{ {'a': '<b> & é'} | tojson }}") == '[BOS]{"a": "<b> & é"}'


def test_tojson_indents() -> None:
    assert render("{{ [1] | tojson(indent=2) }}") == "[BOS][\n  1\n]"


def test_tojson_takes_what_filters_give() -> None:
    assert render("{{ [1, 2] | map('string') | tojson }}") == '[BOS]["1", "2"]'


def test_marks_for_training_are_passed_over() -> None:
    assert render("a{% generation %}b{{ 1 }}{% endgeneration %}c") == "[BOS]ab1c"


def test_strftime_now_gives_the_date() -> None:
    assert render("{{ strftime_now('%Y') }}")[5:].isdigit()


def test_raise_exception_is_the_refusal_the_client_sees() -> None:
    with pytest.raises(TemplateFailed, match="roles must alternate"):
        template("{{ raise_exception('roles must alternate') }}").tokenize(ChatPrompt(USER))


def test_message_of_a_refusal_is_cut() -> None:
    with pytest.raises(TemplateFailed) as refusal:
        template("{{ raise_exception('a' * 10000000) }}").tokenize(ChatPrompt(USER))

    assert len(str(refusal.value)) < 2000


def test_message_of_a_refusal_can_be_encoded() -> None:
    with pytest.raises(TemplateFailed) as refusal:
        template(r"{{ raise_exception('\ud800') }}").tokenize(ChatPrompt(USER))

    assert str(refusal.value).encode()


# --- hostile templates ---


@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__']['__base__'] }}",
        "{{ (''|attr('__class__')).__base__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ ('{0.__class__.__mro__}'|attr('format'))('') }}",
        "{{ ['{0.__class__}']|map('format', '')|list|map(attribute='__class__')|list }}",
        "{{ raise_exception.__globals__['dt'] }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum.__globals__['os'].popen('true') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment.from_string('x') }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'content': 'x'}) }}",
        "{{ messages[0].clear() }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{% extends '/etc/passwd' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_way_out_of_the_sandbox_is_refused(source: str) -> None:
    with pytest.raises(TemplateFailed):
        template(source).tokenize(ChatPrompt(USER))


@pytest.mark.fault("G4")
def test_no_code_of_a_template_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = (
        "{{ ''.__class__.__base__.__subclasses__()[0].__init__.__globals__['os'].system('touch CANARY') }}"
    )
    source = source.replace("CANARY", str(canary))
    with pytest.raises(TemplateFailed):
        template(source).tokenize(ChatPrompt(USER))

    assert not canary.exists()


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}",
        "{{ messages[7].content }}",
        "{{ messages + 1 }}",
        "{{ 5 | dictsort }}",
        "{{ cycler() }}",
        "{{ messages[0].content.encode('no-such-codec') }}",
        "{{ 10 ** 5000 }}",
        "{{ strftime_now(5) }}",
        r"{{ '\ud800' }}",
    ],
)
def test_template_that_fails_refuses_the_conversation(source: str) -> None:
    with pytest.raises(TemplateFailed):
        template(source).tokenize(ChatPrompt(USER))


# --- what users write stays text ---


@pytest.mark.parametrize("text", ["<end>", "a<end>b", "<s><end>", "<s", "<<end>>", "<en<end>d>"])
def test_spelling_of_a_control_token_stays_characters(text: str) -> None:
    assert render("{{ messages[0].content }}", Message("user", text)) == f"[BOS]{text}"


def test_spelling_in_a_name_stays_characters() -> None:
    assert render("{{ messages[0].name }}", Message("user", "", name="<end>")) == "[BOS]<end>"


def test_spelling_in_a_role_stays_characters() -> None:
    assert render("{{ messages[0].role }}", Message("<end>", "")) == "[BOS]<end>"


def test_control_tokens_of_the_template_work_beside_escaped_text() -> None:
    source = "{{ messages[0].content }}<end>{{ messages[0].content }}"

    assert render(source, Message("user", "<end>")) == "[BOS]<end>[END]<end>"


@pytest.mark.parametrize(
    "text",
    ["\uf8fe0\uf8ff", "\uf8fe7\uf8ff<end>", "\uf8fe<end>\uf8ff", "\uf8fe0<end>\uf8ff", "\uf8fe" + "1" * 5000 + "\uf8ff"],
)  # fmt: skip
def test_private_marks_in_user_text_survive(text: str) -> None:
    assert render("{{ messages[0].content }}", Message("user", text)) == f"[BOS]{text}"


@pytest.mark.parametrize("number", ["0", "5", "1" * 5000])
def test_marks_that_meet_across_fields_survive(number: str) -> None:
    source = "{{ messages[0].name }}{{ messages[0].content }}"
    message = Message("user", "\uf8ff<end>", name=f"\uf8fe{number}")

    assert render(source, message) == f"[BOS]\uf8fe{number}\uf8ff<end>"


def test_escaped_text_reaches_the_template_more_than_once() -> None:
    assert render("{{ messages[0].content * 2 }}", Message("user", "<end>")) == "[BOS]<end><end>"


def test_tokenize_can_be_called_again() -> None:
    chat = template()
    first = chat.tokenize(ChatPrompt((Message("user", "<end>"),)))

    assert chat.tokenize(ChatPrompt((Message("user", "<end>"),))) == first


def test_mark_the_template_writes_itself_is_passed_through() -> None:
    assert (
        render("\uf8fe9\uf8ff{{ messages[0].content }}", Message("user", "<end>"))
        == "[BOS]\uf8fe9\uf8ff<end>"
    )


_ONE_CALL = """{% for m in messages %}{% if m.tool_calls %}
{% if m.tool_calls | length != 1 %}{{ raise_exception("one call") }}{% endif %}<tool_call>{{ m.tool_calls[0].function.name }}
{% else %}{{ m.content }}{% endif %}{% endfor %}"""
_ALL_CALLS = "<tool_call>{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(("source", "several"), [(_ONE_CALL, False), (_ALL_CALLS, True), ("no calls", True)])
def test_whether_a_turn_may_make_several_calls_is_tried(source: str, several: bool) -> None:
    assert template(source).shows_several_calls is several
