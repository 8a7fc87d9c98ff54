"""What Windows' service control manager is told, in which order."""

from __future__ import annotations

import asyncio
import threading

from kolosal.service.windows_supervisor import ServiceState, WindowsSupervisor
from kolosal.windows_service import LastWords, parser

START, STOP, RUN = ServiceState.START_PENDING, ServiceState.STOP_PENDING, ServiceState.RUNNING
NEVER_S = 1e6


class Manager:
    """What it was told; `enough` is set when it has heard so many words."""

    def __init__(self, enough: int = 0) -> None:
        self.told: list[tuple[ServiceState, int]] = []
        self.enough = threading.Event()
        self._enough = enough

    def report(self, state: ServiceState, checkpoint: int) -> None:
        self.told.append((state, checkpoint))
        if len(self.told) >= self._enough:
            self.enough.set()


def test_a_service_starts_runs_and_stops() -> None:
    manager, said = Manager(), list[str]()

    async def daemon() -> None:
        with supervisor.stop_requests() as stop:
            supervisor.ready("http://x")
            thread = threading.Thread(target=supervisor.request_stop)
            thread.start()
            await stop.wait()
            thread.join()
            supervisor.stopping(30)
            supervisor.tell_again()

    with WindowsSupervisor(manager.report, said.append, NEVER_S) as supervisor:
        asyncio.run(daemon())
    assert manager.told == [(START, 1), (RUN, 0), (STOP, 1), (STOP, 2), (STOP, 2)]
    assert said == ["http://x"]


def test_checkpoints_go_on_while_a_state_lasts() -> None:
    manager = Manager(enough=4)
    with WindowsSupervisor(manager.report, print, 0.001):
        assert manager.enough.wait(30)
    assert manager.told[:4] == [(START, 1), (START, 2), (START, 3), (START, 4)]


def test_a_stop_that_comes_before_the_daemon_runs_is_not_lost() -> None:
    manager = Manager()

    async def daemon() -> None:
        with supervisor.stop_requests() as stop:
            await stop.wait()
            supervisor.ready("http://x")

    with WindowsSupervisor(manager.report, print, NEVER_S) as supervisor:
        supervisor.request_stop()
        asyncio.run(daemon())
    assert RUN not in [state for state, _ in manager.told]


def test_last_words_are_the_last_line_and_bounded() -> None:
    words = LastWords()
    words.write("one\n\nCannot listen\n\n")
    assert words.last == "Cannot listen"
    words.write("x\n" * 1000)
    assert len(words._lines) == 20


def test_the_options_are_those_that_are_installed() -> None:
    options = parser().parse_args(["--name", "Kolosal", "--folder", "x", "--config", "c.yaml", "--port", "9"])
    assert (options.name, str(options.folder), str(options.config), options.port) == (
        "Kolosal",
        "x",
        "c.yaml",
        9,
    )
