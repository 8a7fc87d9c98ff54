from __future__ import annotations

import json
import sys

import pytest

from kolosal.bench.client import Target
from kolosal.bench.processes import rss_bytes, server_pids
from kolosal.bench.run import BenchOptions, api_base, list_workloads, run_bench
from kolosal.bench.workloads import WORKLOADS
from tests.bench.stub_server import StubServer

FIGURES = {
    "requests", "wall_s", "prompt_tokens", "cached_tokens", "completion_tokens", "characters", "ttft_p50_s",
    "ttft_max_s", "gap_p50_s", "gap_p99_s", "gap_max_s", "decode_tok_s", "total_tok_s", "chars_s", "valid_answers",
    "load_s", "rss_bytes", "note",
}  # fmt: skip


def options(stub: StubServer, *only: str, model: str = "", **fields: object) -> BenchOptions:
    return BenchOptions(target=Target(url=stub.url, model=model), only=only, **fields)  # type: ignore[arg-type]


def test_json_has_the_promised_keys(threaded_stub: StubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench(options(threaded_stub, "one_stream,load", repeat=2, seed=7, as_json=True)) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"form", "kolosal", "url", "model", "seed", "repeat", "started_at", "workloads"}
    assert (report["form"], report["model"], report["seed"]) == (1, "stub", 7)
    done, skipped = report["workloads"]
    assert set(done) == set(skipped) == {"name", "title", "status", "reason", "median", "runs"}
    assert set(done["median"]) == set(done["runs"][0]) == FIGURES
    assert (done["status"], len(done["runs"])) == ("ok", 2)
    assert (skipped["status"], skipped["median"], skipped["runs"]) == ("skipped", None, [])


def test_the_table_has_a_line_a_workload_and_progress_goes_to_stderr(
    threaded_stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_bench(options(threaded_stub, "streams_8", "repeat_text", model="stub")) == 0
    out, err = capsys.readouterr()
    assert "streams_8" in out
    assert "TTFT" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["streams_8", "repeat_text"]


def test_a_failure_is_one_line_and_exit_status_1(
    threaded_stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    threaded_stub.error_after = 100  # beyond the probe
    assert run_bench(options(threaded_stub, "one_stream,streams_8")) == 1
    out, err = capsys.readouterr()
    assert "one_stream: failed: the server failed during the answer: the worker died" in out
    assert "streams_8: ok" in err
    assert "Traceback" not in out + err


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench(BenchOptions(target=Target(url="http://127.0.0.1:1/v1", model="x"))) == 1
    assert capsys.readouterr().err.startswith("Error: nothing answers at 127.0.0.1 port 1")


def test_an_unknown_workload_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench(BenchOptions(target=Target(url="http://127.0.0.1:1/v1"), only=["nothing"])) == 1
    assert "there is no workload nothing; there is: one_stream" in capsys.readouterr().err


def test_a_fresh_seed_is_drawn_for_each_run(
    threaded_stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        run_bench(options(threaded_stub, "one_stream", as_json=True))
        capsys.readouterr()
    prompts = [prompt for prompt in threaded_stub.prompts() if prompt != "Hello"]
    assert len(set(prompts)) == 2


def test_the_list_has_every_workload(capsys: pytest.CaptureFixture[str]) -> None:
    list_workloads()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [w.name for w in WORKLOADS]


def test_the_processes_of_a_local_url_are_found(threaded_stub: StubServer) -> None:
    pids = server_pids(threaded_stub.url)
    if sys.platform == "linux":
        assert len(pids) == 1
        assert (rss_bytes(pids) or 0) > 2**20
    assert server_pids("http://example.org/v1") == ()
    assert server_pids("http://example.org/v1", [5]) == (5,)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("http://h/api", "http://h/api"),
    ],
)
def test_a_bare_address_means_its_v1(given: str, base: str) -> None:
    assert api_base(given) == base


def test_no_process_no_memory() -> None:
    assert rss_bytes([]) is None
    assert rss_bytes([2**22 + 1]) is None
