"""`kolosal bench`: whom it measures, and which API key it sends."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from kolosal.bench.run import BenchOptions
from kolosal.cli import app

CONFIG = "server: {port: 9}\nauth: {api_key: the-daemons-own-key}\n"


@pytest.mark.parametrize(("arguments", "variable", "expected"), [
    ((), None, ("http://127.0.0.1:9", "the-daemons-own-key")),
    ((), "a-key-of-the-variable", ("http://127.0.0.1:9", "a-key-of-the-variable")),
    (("--api-key", "given"), "a-key-of-the-variable", ("http://127.0.0.1:9", "given")),
    (("--url", "http://other/v1"), None, ("http://other/v1", None)),
    (("--url", "http://other/v1"), "a-key-of-the-variable", ("http://other/v1", "a-key-of-the-variable")),
])  # fmt: skip
def test_the_key_of_a_daemon_is_sent_to_it_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variable: str | None,
    expected: tuple[str, str | None],
) -> None:
    asked: list[BenchOptions] = []

    def measure(options: BenchOptions) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr("kolosal.bench.run.run_bench", measure)
    monkeypatch.delenv("KOLOSAL_API_KEY", raising=False)
    if variable is not None:
        monkeypatch.setenv("KOLOSAL_API_KEY", variable)
    (tmp_path / "config.yaml").write_text(CONFIG)
    done = CliRunner().invoke(app, ["bench", "--config", str(tmp_path / "config.yaml"), *arguments])
    assert done.exit_code == 0, done.output
    assert [(options.target.url, options.target.api_key) for options in asked] == [expected]
