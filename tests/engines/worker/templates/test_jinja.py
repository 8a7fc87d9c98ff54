"""What a chat template may cost, and that long conversations do not notice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kolosal.engines.worker.templates.jinja import JinjaRenderer
from kolosal.engines.worker.templates.limits import LIMITS, MAX_TEMPLATE_CHARS
from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from tests.engines.worker.templates.hostile_templates import ALL, ALLOWED, BURNING, REFUSED

ROOT = Path(__file__).parents[4]

MAX_CPU_S = 2.0

MAX_GROWTH_BYTES = 256 * 1024 * 1024

Seen = Callable[[str], None]
Sized = Callable[[int, int], int]


def tried(*names: str) -> tuple[list[dict[str, Any]], int]:
    """What each template took, with one renderer for all, and the most memory that came to be used: all that the process may
    have, and by how much the one that uses it grew."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.worker.templates.hostile_templates", *names],
        capture_output=True,
        text=True,
        check=True,
        timeout=60 + 10 * len(names),
        cwd=ROOT,
    )
    before, *results = map(json.loads, done.stdout.splitlines())
    return results, LIMITS.memory_bytes + results[-1]["rss"] - before["rss"]


def some(templates: Mapping[str, str], n: int) -> list[str]:
    """Names of as many of them, others in each run: which, follows from the run's seed."""
    return random.sample(sorted(templates), min(n, len(templates)))


@pytest.mark.fault("G4")
def test_hostile_templates_are_refused_within_their_limits(sized: Sized, seen: Seen) -> None:
    results, growth = tried(*some(BURNING, sized(1, 999)), *some(REFUSED, sized(8, 999)))
    slowest = max(result["cpu_s"] for result in results)

    assert [result["name"] for result in results if not result["error"]] == []
    assert [result for result in results if result["cpu_s"] > sized(3, 1) * MAX_CPU_S] == []
    assert growth < MAX_GROWTH_BYTES
    seen(f"{len(results)} refused within {slowest:.1f} s of processor time, RSS at most +{growth >> 20} MiB")


@pytest.mark.fault("G4")
def test_costly_templates_are_within_their_limits(sized: Sized, seen: Seen) -> None:
    results, growth = tried(*some(ALLOWED, sized(8, 999)))
    slowest = max(result["cpu_s"] for result in results)

    assert [result for result in results if result["cpu_s"] > sized(3, 1) * MAX_CPU_S] == []
    assert growth < MAX_GROWTH_BYTES
    seen(f"the costliest took {slowest:.1f} s, RSS at most +{growth >> 20} MiB")


def test_names_of_hostile_templates_are_unique() -> None:
    assert len(ALL) == len(BURNING) + len(REFUSED) + len(ALLOWED)


def rendered(renderer: TemplateRenderer, source: str, **variables: Any) -> str:
    [text] = renderer.render(source, [variables], renew=True)
    if isinstance(text, TemplateFailed):
        raise text
    return text


def test_source_may_have_so_many_characters(renderer: TemplateRenderer) -> None:
    assert rendered(renderer, "x" * MAX_TEMPLATE_CHARS) == "x" * MAX_TEMPLATE_CHARS
    with pytest.raises(TemplateFailed, match=f"more than {MAX_TEMPLATE_CHARS}"):
        rendered(renderer, "x" * (MAX_TEMPLATE_CHARS + 1))


def test_text_may_be_so_long(renderer: TemplateRenderer) -> None:
    with pytest.raises(TemplateFailed, match="it makes more than 16 MiB of text"):
        rendered(renderer, "{{ 'x' * n }}", n=LIMITS.answer_bytes)

    assert len(rendered(renderer, "{{ 'x' * n }}", n=LIMITS.answer_bytes - 100)) == LIMITS.answer_bytes - 100


def test_a_long_conversation_is_rendered(renderer: TemplateRenderer) -> None:
    messages = [{"role": role, "content": "x" * 300} for _ in range(1500) for role in ("user", "assistant")]
    source = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}"
        "{% endif %}{{ '<|' + m['role'] + '|>' + m['content'] | trim ~ '\n' }}{% endfor %}"
    )

    assert len(rendered(renderer, source, messages=messages)) > 3000 * 300


def test_a_long_text_is_rendered_whatever_came_before(renderer: TemplateRenderer) -> None:
    source = "{% set c = messages[0].content %}{{ '[' + (c.split('</think>') | last).strip() + ']' }}"
    wide = "\U0001f600" + "a" * 8_000_000

    for text in ("für " * 500_000, wide, "abc " * 3_000_000, wide, wide):
        assert len(rendered(renderer, source, messages=[{"content": text}])) > len(text)


# --- without a process ---


def answered(source: str, *variables: dict[str, Any]) -> list[dict[str, str]]:
    """What the process would say to a template and these."""
    jinja = JinjaRenderer()
    [compiled] = json.loads(jinja.answer({"source": source}))
    if compiled:
        return [compiled]
    answers: list[dict[str, str]] = json.loads(jinja.answer({"variables": variables}))
    return answers


def test_each_set_of_variables_has_its_answer() -> None:
    source = "{% if a > 1 %}{{ raise_exception('too much') }}{% endif %}{{ a }}"

    assert answered(source, {"a": 1}, {"a": 2}, {"a": 0}) == [
        {"text": "1"},
        {"error": "too much"},
        {"text": "0"},
    ]


def test_an_answer_is_one_line() -> None:
    jinja = JinjaRenderer()
    jinja.answer({"source": "{{ a }}\r\n"})

    assert jinja.answer({"variables": [{"a": "\n\u2028"}]}).count(b"\n") == 1


def test_source_is_not_run_while_it_is_compiled() -> None:
    assert json.loads(JinjaRenderer().answer({"source": "{{ 1 / 0 }}{% set a = 'a' * (1 / 0) %}"})) == [{}]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for %}", "Expected an expression, got 'end of statement block'"),
        ("{{ a | nothing }}", "No filter named 'nothing'."),
        ("{{ a.b.c }}", "'a' is undefined"),
        ("{{ raise_exception(10 ** 5000) }}", "TemplateError"),
        ("{{ raise_exception('') }}", "TemplateError"),
        ("{{ namespace() | tojson }}", "Namespace cannot be written as JSON"),
    ],
)
def test_an_error_is_told_in_its_own_words(source: str, reason: str) -> None:
    assert answered(source, {}) == [{"error": reason}]


def test_an_error_is_told_without_paths() -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files", "/secret/path")

    assert answered("{{ f() }}", {"f": fail}) == [{"error": "Too many open files"}]


def test_what_takes_too_much_memory_is_no_answer() -> None:
    def fail() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        answered("{{ f() }}", {"f": fail})
