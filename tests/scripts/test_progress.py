from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from kolosal.native.progress import Count, Reporter, advance, clock, draw, last_words, run_logged


def count_of(*lines: str) -> Count:
    count = Count(0, 0)
    for line in lines:
        count = advance(count, line)
    return count


def test_ninja_lines_as_pip_indents_them() -> None:
    assert count_of("  Building wheel\n", "  [12/83] /usr/bin/c++ -o x.o -c x.cpp\n") == Count(12, 83)


def test_nested_build_does_not_move_the_bar() -> None:
    assert count_of("[40/90] x", "[1/2] shader", "[2/2] shader") == Count(40, 90)


def test_count_never_falls() -> None:
    assert count_of("[40/90] x", "[39/90] y") == Count(40, 90)


def test_total_may_grow() -> None:
    assert count_of("[1/2] probe", "[3/90] x") == Count(3, 90)


@pytest.mark.parametrize("line", ["", "[x/3]", "[3/]", "text [3/4]", "[5/4] more than all"])
def test_other_lines_count_nothing(line: str) -> None:
    assert count_of(line) == Count(0, 0)


def test_msbuild_names_files_without_a_total() -> None:
    assert count_of("  ggml.c\n", "  llama-model.cpp\n", "  text about a file.cpp here\n") == Count(2, 0)


@pytest.mark.parametrize("columns", [10, 40, 80, 200])
def test_drawn_line_fits_the_terminal(columns: int) -> None:
    assert len(draw("llama.cpp (cpu)", Count(41, 83), 62.0, columns)) < max(columns, 21)


def test_bar_shows_share_and_time() -> None:
    assert draw("x", Count(41, 82), 62.9, 100) == "x  [############............]  50 %  41/82  1:02"
    assert draw("x", Count(7, 0), 5.0, 100) == "x  7 files compiled  0:05"
    assert draw("x", Count(0, 0), 5.0, 100) == "x  0:05"


def test_clock_counts_minutes() -> None:
    assert [clock(0), clock(59.9), clock(60), clock(3600)] == ["0:00", "0:59", "1:00", "60:00"]


def test_without_a_terminal_there_is_a_line_every_ten_percent() -> None:
    out = io.StringIO()
    reporter = Reporter("build", out, now=lambda: 0.0)
    for done in range(1, 84):
        reporter.line(f"[{done}/83] compile")
        reporter.tick()
    reporter.finish("done")
    shown = out.getvalue().splitlines()
    assert shown == [
        "build ...",
        *(f"build: {percent} %, 0:00" for percent in range(10, 101, 10)),
        "build: done, 0:00",
    ]


def test_output_goes_to_the_log_and_the_status_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "setup.log"
    code = "import sys; print('[1/1] out'); print('err', file=sys.stderr); sys.exit(3)"
    assert run_logged("step", [sys.executable, "-c", code], os.environ, log) == 3
    text = log.read_text()
    assert "[1/1] out" in text
    assert "err" in text
    assert "step: failed" in capsys.readouterr().out


def test_last_words_are_the_end_of_the_last_command_without_compile_lines(tmp_path: Path) -> None:
    log = tmp_path / "setup.log"
    log.write_text(
        "$ first\nold\n\n$ second\n" + "".join(f"[{n}/9] c++\nnote {n}\n" for n in range(9)) + "x" * 500
    )
    assert last_words(log, 3) == ["note 7", "note 8", "x" * 200]
    assert "old" not in last_words(log, 100)


def test_last_words_leave_out_how_pip_wraps_a_failed_build(tmp_path: Path) -> None:
    log = tmp_path / "setup.log"
    log.write_text(
        "$ pip\n  CMake Error: no compiler\n  error: subprocess-exited-with-error\n  \u00d7 Building wheel\n"
        "  \u2502 exit code: 1\n  full command: x\n  cwd: y\n  ERROR: Failed building wheel for z\nERROR: No space left\n",
        encoding="utf-8",
    )
    assert last_words(log, 25) == ["  CMake Error: no compiler", "ERROR: No space left"]
