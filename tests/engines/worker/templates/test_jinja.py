"""What a chat template may cost, and that ordinary ones do not notice."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kolosal.engines.worker.templates import growth
from kolosal.engines.worker.templates.budget import MAX_CHAR_BYTES, Budget, OverBudget
from kolosal.engines.worker.templates.jinja import (
    MAX_TEMPLATE_CHARS,
    MAX_TEMPLATE_TOKENS,
    JinjaTemplate,
    TemplateFailed,
)
from tests.engines.worker.templates.hostile_templates import ALL, BURNING, COMPILED, REFUSED

ROOT = Path(__file__).parents[4]

MAX_CPU_S = 2.0

MAX_GROWTH_BYTES = 256 * 1024 * 1024

Seen = Callable[[str], None]
Sized = Callable[[int, int], int]


def tried(*names: str) -> tuple[list[dict[str, Any]], int]:
    """What each template took, in a process of its own for all, and by how much that grew."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.worker.templates.hostile_templates", *names],
        capture_output=True,
        text=True,
        check=True,
        timeout=60 + 10 * len(names),
        cwd=ROOT,
    )
    before, *results = map(json.loads, done.stdout.splitlines())
    return results, results[-1]["rss"] - before["rss"]


def render_often(template: JinjaTemplate) -> None:
    for _ in range(100):
        template.render({})


def spend_often(budget: Budget) -> None:
    for _ in range(1000):
        budget.spend()


@pytest.mark.fault("G4")
def test_hostile_templates_are_refused_within_their_limits(sized: Sized, seen: Seen) -> None:
    burning = list(BURNING)[: sized(1, len(BURNING))]
    results, growth = tried(*burning, *REFUSED)
    slowest = max(result["cpu_s"] for result in results)

    assert [result["name"] for result in results if not result["error"]] == []
    assert [result for result in results if result["cpu_s"] > sized(3, 1) * MAX_CPU_S] == []
    assert growth < MAX_GROWTH_BYTES
    seen(f"{len(results)} refused within {slowest:.1f} s of processor time, RSS +{growth >> 20} MiB")


@pytest.mark.fault("G4")
def test_templates_that_are_long_to_compile_are_compiled_within_their_limits(
    sized: Sized, seen: Seen
) -> None:
    results, growth = tried(*list(COMPILED)[: sized(2, len(COMPILED))])
    slowest = max(result["cpu_s"] for result in results)

    assert [result for result in results if result["cpu_s"] > sized(3, 1) * MAX_CPU_S] == []
    assert growth < MAX_GROWTH_BYTES
    seen(f"the longest compile in {slowest:.1f} s, RSS +{growth >> 20} MiB")


def test_names_of_hostile_templates_are_unique() -> None:
    assert len(ALL) == len(BURNING) + len(REFUSED) + len(COMPILED)


def test_source_may_have_so_many_characters() -> None:
    assert JinjaTemplate("x" * MAX_TEMPLATE_CHARS).render({}) == "x" * MAX_TEMPLATE_CHARS
    with pytest.raises(TemplateFailed, match=f"more than {MAX_TEMPLATE_CHARS}"):
        JinjaTemplate("x" * (MAX_TEMPLATE_CHARS + 1))


def test_source_may_have_so_many_words() -> None:
    with pytest.raises(TemplateFailed, match=f"more than {MAX_TEMPLATE_TOKENS} words"):
        JinjaTemplate("{{ 1 }}" * MAX_TEMPLATE_TOKENS)


def test_renderings_share_a_budget_until_it_is_renewed() -> None:
    template = JinjaTemplate("{% set x = 'a' * 5000000 %}{{ x | length }}")
    for _ in range(5):
        template.render({})
    with pytest.raises(TemplateFailed, match="128 MiB"):
        render_often(template)
    template.renew()

    assert template.render({}) == "5000000"


def test_time_that_others_take_does_not_count() -> None:
    clock = iter([0.0, *[0.1] * 100])
    spend_often(Budget(lambda: next(clock)))


def test_time_of_this_thread_counts() -> None:
    clock = iter([0.0, *[9.9] * 100])
    budget = Budget(lambda: next(clock))
    with pytest.raises(OverBudget, match="processor time"):
        spend_often(budget)


class Canary:
    """Something that can be seen to be gone."""


def test_what_a_large_rendering_has_left_is_freed_before_the_next() -> None:
    template = JinjaTemplate(
        "{% set ns = namespace() %}{% set ns.kept = [ns, canary] %}"
        "{% for i in range(14) %}{% set x = 'a' * 5000000 %}{% endfor %}"
    )
    canary = Canary()
    seen = weakref.ref(canary)
    template.render({"canary": canary})
    del canary
    template.renew()

    assert seen() is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for i in [1] recursive %}{% endfor %}", "cannot have a recursive loop"),
        ("{% block a %}{% endblock %}{{ self.a() }}", "cannot use the name 'self'"),
        ("{% set self = 1 %}", "cannot use the name 'self'"),
        ("{% macro " + "f" * 129 + "() %}{% endmacro %}", "has 129 characters, more than 128"),
    ],
)
def test_what_cannot_be_metered_is_refused_before_it_runs(source: str, reason: str) -> None:
    with pytest.raises(TemplateFailed, match=reason):
        JinjaTemplate(source)


class AnyKey(dict[str, int]):
    """Has a number for each name."""

    def __missing__(self, key: str) -> int:
        return 1


@given(st.lists(st.sampled_from([*"%()*.-#0 dsxa", "999", "1234", "%(", "%%"]), max_size=12).map("".join))
@example("%((a))1234d")
@example("%(a%)1234d")
@example("%(a)1234d")
@example("%%%1234d")
def test_percent_fields_make_no_more_than_is_asked_for(text: str) -> None:
    most = growth.of_fields(text)
    if most == growth.ENDLESS:
        return
    for given_values in (AnyKey(), 1, (1, 1), (1, 1, 1), (999, 999, 1)):
        try:
            made = text % given_values
        except (TypeError, ValueError, OverflowError):
            continue
        assert MAX_CHAR_BYTES * len(made) <= most + MAX_CHAR_BYTES * len(str(given_values)) * text.count("%")


def test_a_long_conversation_is_within_the_budget() -> None:
    messages = [{"role": role, "content": "x" * 300} for _ in range(1500) for role in ("user", "assistant")]
    source = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}"
        "{% endif %}{{ '<|' + m['role'] + '|>' + m['content'] | trim ~ '\n' }}{% endfor %}"
    )

    assert len(JinjaTemplate(source).render({"messages": messages})) > 3000 * 300


def test_a_long_text_is_within_the_budget() -> None:
    text = "für " * 500_000
    source = "{% set c = messages[0].content %}{{ '[' + (c.split('</think>') | last).strip() + ']' }}{{ c | tojson }}"

    assert len(JinjaTemplate(source).render({"messages": [{"content": text}]})) > 2 * len(text)


# --- templates that want nothing special ---

_TEXTS = st.sampled_from(
    ["'a'", "' b '", "'x\\ny'", "m.content", "m.role", "m['content']", "ns.t", "''", "'</think>z'"]
)
_NAMES = st.sampled_from(["messages", "m", "m.content", "ns.l", "ns.t", "ns.n", "y"])
_NUMBERS = st.sampled_from(["0", "1", "2", "loop.index0", "loop.length", "ns.n", "m.content | length", "1.5"])
_LISTS = st.sampled_from(
    [
        "messages",
        "messages[1:]",
        "[1, 2, 3]",
        "range(3)",
        "m.content.split()",
        "[]",
        "ns.l",
        "m.tool_calls",
        "[m, m]",
    ]
)


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} + {})".format, inner, inner),
        st.builds("({} ~ {})".format, inner, inner),
        st.builds("({} * {})".format, inner, _NUMBERS),
        st.builds("({} % {})".format, inner, inner),
        st.builds(
            "({} {} {})".format,
            inner,
            st.sampled_from(["==", "!=", "<", "in", "not in", "and", "or", "-", "//"]),
            inner,
        ),
        st.builds(
            "({} | {})".format,
            inner,
            st.sampled_from(
                [
                    "trim",
                    "upper",
                    "lower",
                    "title",
                    "capitalize",
                    "length",
                    "string",
                    "tojson",
                    "list",
                    "first",
                    "last",
                    "join",
                    "reverse",
                    "int",
                    "float",
                    "safe",
                    "e",
                    "tojson(indent=2)",
                    "replace('a','b')",
                    "indent(2,true)",
                    "default('d')",
                    "join(',",
                    "')",
                    "unique",
                    "sort",
                    "sum",
                    "items",
                    "dictsort",
                    "map(attribute='role')",
                    "selectattr('content')",
                    "select('string')",
                    "map('upper')",
                    "round(1)",
                    "min",
                    "max",
                    "abs",
                    "format(1)",
                ]
            ),
        ),
        st.builds(
            "{}.{}".format,
            inner,
            st.sampled_from(
                [
                    "strip()",
                    "split('a')",
                    "upper()",
                    "startswith('a')",
                    "replace('a','b')",
                    "items()",
                    "get('role')",
                    "format(1)",
                    "splitlines()",
                    "lstrip('\\n')",
                    "rsplit('a',1)",
                    "join(['x','y'])",
                    "title()",
                    "find('a')",
                    "keys()",
                    "role",
                    "index(1)",
                    "append(1)",
                ]
            ),
        ),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds(
            "({} is {})".format,
            inner,
            st.sampled_from(
                [
                    "defined",
                    "string",
                    "mapping",
                    "iterable",
                    "none",
                    "number",
                    "sequence",
                    "odd",
                    "true",
                    "lower",
                    "eq(1)",
                    "in([1])",
                ]
            ),
        ),
        st.builds("{}[{}]".format, _NAMES, _NUMBERS),
        st.builds("{}[{}:]".format, _NAMES, _NUMBERS),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{'k': {}}}".format, inner),
        st.builds("f({})".format, inner),
        st.builds("f(x={})".format, inner),
    )


_EXPRESSIONS = st.recursive(_TEXTS | _NUMBERS | _LISTS, _deeper, max_leaves=5)


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, _EXPRESSIONS, inner, inner),
        st.builds("{{% for y in {} %}}{}{{% else %}}none{{% endfor %}}".format, _LISTS, inner),
        st.builds("{{% for y in {} if {} %}}{}{{{{ y }}}}{{% endfor %}}".format, _LISTS, _EXPRESSIONS, inner),
        st.builds("{{% set ns.t = {} %}}{}".format, _EXPRESSIONS, inner),
        st.builds("{{% set z %}}{}{{% endset %}}{{{{ z }}}}".format, inner),
        st.builds("{{% filter upper %}}{}{{% endfilter %}}".format, inner),
        st.builds("{{% call f(1) %}}{}{{% endcall %}}".format, inner),
        st.builds("{} \n {}".format, inner, inner),
    )


_BODIES = st.recursive(
    st.just("text\n") | st.builds("{{{{ {} }}}}".format, _EXPRESSIONS), _statements, max_leaves=4
)
_FRAME = (
    "{{% macro f(x) %}}<{{{{ x }}}}{{% if caller %}}{{{{ caller() }}}}{{% endif %}}>{{% endmacro %}}"
    "{{% set ns = namespace(t='t', n=3, l=['q']) %}}{{% for m in messages %}}{}{{% endfor %}}"
)
_MESSAGES = [
    {"role": "system", "content": "a b\nc"},
    {
        "role": "user",
        "content": "für <b> & 'a' {0} %s",
        "tool_calls": [{"function": {"name": "g", "arguments": {"k": 1}}}],
    },
]


def unmetered(source: str) -> str:
    """What Jinja alone makes of a template, in the words of an error where it refuses."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )

    def listed(value: object) -> list[object]:
        if isinstance(value, Iterator):
            return list(value)
        raise TypeError

    def to_json(value: object, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=listed)

    environment.filters["tojson"] = to_json
    try:
        return environment.from_string(source).render({"messages": _MESSAGES})
    except Exception:  # noqa: BLE001 - a template raises what it likes
        return "refused"


def rendered(source: str) -> str:
    try:
        return JinjaTemplate(source).render({"messages": _MESSAGES})
    except TemplateFailed:
        return "refused"


@given(_BODIES)
def test_ordinary_templates_render_as_without_a_budget(body: str) -> None:
    source = _FRAME.format(body)
    expected = unmetered(source)

    if " at 0x" not in expected.lower():  # an object that has no text of its own
        assert rendered(source) == expected
