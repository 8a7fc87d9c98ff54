"""The pytest plugin of `scripts/fault.py`: runs the tests of the fault suite at their full sizes and prints its table."""

from __future__ import annotations

import shutil
import textwrap
from collections import defaultdict

import pytest

from tests.faults.rows import NOT_HERE, ROWS

FULL_TIMEOUT_S = 1800
"""For one test: some last minutes at full size."""


class Outcomes:
    """What the tests of each row said."""

    def __init__(self) -> None:
        self.failed: dict[str, list[str]] = defaultdict(list)
        self.passed: dict[str, int] = defaultdict(int)
        self.skipped: dict[str, list[str]] = defaultdict(list)
        """Why tests could not run on this machine."""
        self.figures: dict[str, list[str]] = defaultdict(list)

    def add(self, report: pytest.TestReport) -> None:
        """Count one phase of one test."""
        rows = [str(value) for name, value in report.user_properties if name == "fault"]
        for row in rows:
            if report.failed:
                self.failed[row].append(report.nodeid.rpartition("::")[2])
            elif report.skipped:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
                self.skipped[row].append(reason.removeprefix("Skipped: "))
            elif report.when == "call":
                self.passed[row] += 1
                self.figures[row] += [str(value) for name, value in report.user_properties if name == "seen"]

    def verdict(self, row: str) -> tuple[str, str]:
        """A row's verdict, and what was seen."""
        if self.failed[row]:
            return "FAILED", ", ".join(self.failed[row])
        skipped = [f"not run: {reason}" for reason in self.skipped[row]]
        if not self.passed[row]:
            return ("skipped", "; ".join(skipped)) if skipped else ("not here", NOT_HERE.get(row, "no test"))
        tests = f"{self.passed[row]} test{'s' if self.passed[row] > 1 else ''}"
        return "ok", "; ".join([*(self.figures[row] or [f"{tests} passed"]), *skipped])


_outcomes = Outcomes()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fault-rows P1,P2`: these rows only."""
    parser.addoption("--fault-rows", default="", help="rows of the fault suite, by commas (default: all)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the fault suite, in the order of its table."""
    wanted = [row for row in config.getoption("--fault-rows").upper().split(",") if row] or list(ROWS)
    if unknown := [row for row in wanted if row not in ROWS]:
        raise pytest.UsageError(f"There is no row {unknown[0]!r} in the fault suite: {', '.join(ROWS)}")
    kept: dict[pytest.Item, int] = {}
    for item in items:
        rows = [str(row) for mark in item.iter_markers("fault") for row in mark.args]
        item.user_properties += [("fault", row) for row in rows]
        if found := [wanted.index(row) for row in rows if row in wanted]:
            kept[item] = min(found)
            if config.getoption("--full-size"):
                item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S), append=False)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = sorted(kept, key=lambda item: kept[item])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test ended."""
    _outcomes.add(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table: fault, figure demanded, figure seen."""
    wanted = [row for row in config.getoption("--fault-rows").upper().split(",") if row] or list(ROWS)
    width = max(30, (min(shutil.get_terminal_size((160, 24)).columns, 200) - 20) // 3)
    terminalreporter.section("fault suite")
    _print(terminalreporter, width, "", "", "fault", "demanded", "seen")
    for row in wanted:
        verdict, seen = _outcomes.verdict(row)
        _print(terminalreporter, width, row, verdict, *ROWS[row], seen)


def _print(reporter: pytest.TerminalReporter, width: int, row: str, verdict: str, *cells: str) -> None:
    wrapped = [textwrap.wrap(cell, width) or [""] for cell in cells]
    for at in range(max(map(len, wrapped))):
        line = [cell[at] if at < len(cell) else "" for cell in wrapped]
        head = f"{row:4}{verdict:9}" if at == 0 else " " * 13
        reporter.write_line(head + "  ".join(f"{cell:{width}}" for cell in line).rstrip())
