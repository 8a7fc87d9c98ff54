"""T1: the soak, for seconds, or for minutes in the full fault suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from soak import Options
from soak_figures import verdict
from soak_run import soaked

from kolosal.native.preflight import SetupError

AT_REST = {"file descriptors", "worker processes", "unexplained errors", "exit status"}
"""What a run of seconds can tell already. The threads of a daemon's own pool come in its first minute."""


@pytest.mark.fault("T1")
@pytest.mark.timeout(300)
def test_loads_kills_and_disconnects_leave_nothing_behind(
    tiny_gguf: Path, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    minutes = sized(2, 240) / 60
    said: list[str] = []
    figures, soak = soaked(Options(model=tiny_gguf, minutes=minutes, clients=3), said.append)

    ends = soak.tally.ends
    assert ends["answered"] > 0
    assert (
        soak.kills + soak.unloads > 0
    )  # who finds no worker in these seconds, because it is loading, kills none
    assert soak.kills or sized(1, 0)
    assert "warm-up" in said[0]
    told = [line for line in verdict(figures) if line.figure in AT_REST or sized(0, 1)]
    assert [line for line in told if not line.kept] == [], soak.tally.errors
    seen(
        f"{minutes:.2g} min, {ends.total()} requests, {soak.unloads} unloads, {soak.kills} kills: "
        + ", ".join(f"{line.figure} {line.seen}" for line in told)
    )


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(SetupError, match="cannot be loaded"):
        soaked(Options(model=path, minutes=0.1), lambda _: None)
