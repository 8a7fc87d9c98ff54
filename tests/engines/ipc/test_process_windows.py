"""What Windows is handed, checked anywhere: sizes of structures, and that other systems are left alone."""

from __future__ import annotations

import ctypes
import sys

import pytest

from kolosal.engines.ipc import process_windows


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="sizes of 64-bit Windows")
def test_the_limits_of_a_job_have_the_size_that_windows_expects() -> None:
    assert ctypes.sizeof(process_windows._BasicLimits) == 64
    assert ctypes.sizeof(process_windows._ExtendedLimits) == 144


@pytest.mark.skipif(sys.platform == "win32", reason="there it would end the tests with their last handle")
def test_other_systems_have_no_jobs() -> None:
    process_windows.end_workers_with_this_process()


def test_a_worker_of_a_virtual_environment_is_the_process_that_is_started() -> None:
    """And no launcher that has started it: memory is asked for by the number of the process."""
    launcher, base = "C:\\venv\\Scripts\\python.exe", "C:\\Python313\\python.exe"

    assert process_windows.python_program(launcher, base) == (base, {"__PYVENV_LAUNCHER__": launcher})


def test_a_worker_runs_in_the_same_python_where_there_is_no_virtual_environment() -> None:
    base = "C:\\Python313\\python.exe"

    assert process_windows.python_program(base, base.upper()) == (base, {})
