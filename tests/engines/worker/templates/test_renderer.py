"""The process that renders: started, ended and started anew."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from tests.engines.worker.templates.hostile_templates import BURNING

ROOT = Path(__file__).parents[4]

GONE_S = 2.0
"""How long a process may live on when the worker was killed."""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="the process limits itself on POSIX only")


@pytest.fixture
def own() -> Iterator[TemplateRenderer]:
    """A renderer whose process may end."""
    with contextlib.closing(TemplateRenderer()) as renderer:
        yield renderer


def greeting(renderer: TemplateRenderer) -> str | TemplateFailed:
    [text] = renderer.render("Hello {{ name }}", [{"name": "you"}], renew=True)
    return text


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def process_of(renderer: TemplateRenderer) -> psutil.Process:
    """The process that a renderer is made to start."""
    before = children()
    renderer.start()
    [process] = children() - before
    return process


def test_process_is_started_once_and_ended(own: TemplateRenderer) -> None:
    before = children()
    process = process_of(own)
    own.start()

    assert greeting(own) == "Hello you"
    assert children() - before == {process}
    own.close()
    own.close()
    assert children() == before


def test_process_is_started_when_it_is_needed(own: TemplateRenderer) -> None:
    assert greeting(own) == "Hello you"
    own.close()

    assert greeting(own) == "Hello you"


def test_templates_take_turns(own: TemplateRenderer) -> None:
    assert greeting(own) == "Hello you"
    own.compile("Bye")

    assert [greeting(own), *own.render("Bye", [{}, {}], renew=True)] == ["Hello you", "Bye", "Bye"]


def test_refusal_of_one_conversation_is_none_of_others(own: TemplateRenderer) -> None:
    first, second = own.render("{{ 1 / n }}", [{"n": 0}, {"n": 1}], renew=True)

    assert str(first) == "The model's chat template refused the messages: division by zero"
    assert second == "1.0"


@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ 'a' * 10 ** 9 }}", "it needs more than 192 MiB of memory"),
        pytest.param("{{ 10 ** (10 ** 8) }}", "it takes more than 1.5 s of processor time", marks=posix_only),
    ],
)
def test_process_that_ends_is_replaced(own: TemplateRenderer, source: str, reason: str) -> None:
    with pytest.raises(TemplateFailed, match=f"^The model's chat template refused the messages: {reason}$"):
        own.render(source, [{}], renew=True)

    assert greeting(own) == "Hello you"


@pytest.mark.fault("G4")
def test_process_that_is_late_is_replaced(own: TemplateRenderer) -> None:
    process = process_of(own)
    assert greeting(own) == "Hello you"
    assert own._process is not None
    own._process._max_wall_s = 0.5
    process.suspend()
    with pytest.raises(TemplateFailed, match=r"it takes more than 0\.5 s$"):
        greeting(own)

    assert not process.is_running()
    assert greeting(own) == "Hello you"


def test_process_that_somebody_ended_is_replaced_unnoticed(own: TemplateRenderer) -> None:
    process = process_of(own)
    greeting(own)
    process.kill()
    psutil.wait_procs([process])

    assert greeting(own) == "Hello you"


def render_until_it_fails(renderer: TemplateRenderer, source: str) -> None:
    while True:
        renderer.render(source, [{}] * 5, renew=False)


@posix_only
def test_renderings_share_their_time_until_it_is_renewed(own: TemplateRenderer) -> None:
    source = "{% for i in range(99999) %}{% endfor %}"
    own.render(source, [{}], renew=True)
    with pytest.raises(TemplateFailed, match="processor time"):
        render_until_it_fails(own, source)

    assert own.render(source, [{}], renew=True) == [""]


def test_process_that_does_not_start_is_no_fault_of_the_template() -> None:
    renderer = TemplateRenderer([sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(OSError, match=r"did not start: .*exit status 7"):
        greeting(renderer)
    renderer.close()


@pytest.mark.parametrize("answer", ["nonsense", '[{"text": 1}]', "[]", "[{}, {}]", '{"text": ""}'])
def test_process_that_talks_nonsense_is_ended(answer: str) -> None:
    before = children()
    script = (
        f"import sys; print('[]', flush=True); sys.stdin.readline(); print({answer!r}, flush=True); input()"
    )
    with pytest.raises(TemplateFailed, match="the process that renders chat templates ended"):
        TemplateRenderer([sys.executable, "-c", script]).compile("x")

    assert children() == before


def test_process_that_stops_in_the_middle_of_an_answer_is_ended() -> None:
    before = children()
    script = "import sys; print('[]', flush=True); sys.stdin.readline(); sys.stdout.write('[{}')"
    with pytest.raises(TemplateFailed, match="the process that renders chat templates ended"):
        TemplateRenderer([sys.executable, "-c", script]).compile("x")

    assert children() == before


@pytest.mark.fault("P7")
@pytest.mark.parametrize("source", ["Hello", BURNING["loops"]], ids=["idle", "rendering"])
def test_process_ends_with_the_worker(source: str) -> None:
    script = (
        "import psutil, sys\n"
        "from kolosal.engines.worker.templates.renderer import TemplateRenderer\n"
        "renderer = TemplateRenderer()\n"
        "renderer.compile(sys.argv[1])\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "renderer.render(sys.argv[1], [{}], renew=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, source]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as worker:
        assert worker.stdout is not None
        process = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    _, alive = psutil.wait_procs([process], timeout=5 * GONE_S)

    assert alive == []


@posix_only
@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("open('/etc/passwd')", "OSError"),
        ("open('/dev/null', 'w')", "OSError"),
        ("socket.socket()", "OSError"),
        ("os.pipe()", "OSError"),
        ("bytearray(300 << 20)", "MemoryError"),
        ("os.write(1, b'')", "nothing"),
    ],
)
def test_process_can_do_nothing_but_talk(attempt: str, error: str) -> None:
    script = (
        "import os, socket\n"
        "from kolosal.engines.worker.templates.limits import LIMITS\n"
        "from kolosal.engines.worker.sandbox.limits_posix import limit_this_process\n"
        "limit_this_process(LIMITS.memory_bytes)\n"
        f"try:\n    {attempt}\n"
        "except Exception as exc:\n    print(type(exc).__name__)\n"
        "else:\n    print('nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)

    assert done.stdout.strip() == error
