from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bench_peers import llama_version, parser
from peers_compare import FIGURES, Figure, Line, Side, lines, ratio_table
from peers_rounds import Server, document, measure_in_turns, sides_of
from peers_servers import Limits, engine_body, peer_argv, running
from rich.console import Console

from kolosal.bench.client import Target
from kolosal.bench.errors import BenchError
from kolosal.bench.measures import Measures
from kolosal.bench.run import chosen
from tests.bench.stub_server import StubServer, stub_server

LIMITS = Limits(Path("m.gguf"), 2, 16, 20_480)


def one(figure: Figure, ours: float, theirs: float) -> Line:
    return Line(figure=figure, ours=(ours,), theirs=(theirs,))


def figure(label: str) -> Figure:
    return next(figure for figure in FIGURES if label in figure.label)


@pytest.mark.parametrize(
    ("label", "ours", "theirs", "reached"),
    [
        ("8 streams", 133, 120, True),
        ("8 streams", 131, 120, False),
        ("shared prompt: wall", 3.3, 34, True),
        ("shared prompt: wall", 8, 34, False),
        ("worst gap", 0.2, 5, True),
        ("worst gap", 0.4, 10, False),  # 0.04 of theirs, but more than 0.3 s
        ("shared prompt: first", 9, 1, None),
    ],
)
def test_a_target_is_reached_by_ratio_and_bound(
    label: str, ours: float, theirs: float, reached: bool | None
) -> None:
    assert one(figure(label), ours, theirs).reached is reached


def test_ratio_is_of_medians() -> None:
    line = Line(figure=FIGURES[0], ours=(1, 100, 3), theirs=(2, 2, 50))
    assert line.ratio == 1.5


def test_no_ratio_without_both_sides() -> None:
    assert Line(figure=FIGURES[0], ours=(1,), theirs=()).ratio is None
    assert one(FIGURES[0], 1, 0).ratio is None


def test_the_table_shows_both_sides_the_ratio_and_the_target() -> None:
    rounds = {
        ("repeat_text", Side.OURS): [Measures(decode_tok_s=rate) for rate in (300.0, 310.0, 290.0)],
        ("repeat_text", Side.THEIRS): [Measures(decode_tok_s=150.0)],
        ("one_stream", Side.OURS): [Measures(rss_bytes=500 * 2**20)],
    }
    rows = lines(rounds)
    out = io.StringIO()
    Console(file=out, width=140).print(ratio_table(rows))
    text = out.getvalue()
    plain, ngram, memory = text.splitlines()[-4:-1]
    assert "300 (290-310)" in plain
    assert "2.00" in plain
    assert "≥ 2 reached" in " ".join(plain.split())
    assert "failed" in ngram
    assert "500" in memory


def test_the_document_holds_every_round() -> None:
    rounds = {
        ("one_stream", Side.OURS): [Measures(decode_tok_s=2.0)],
        ("one_stream", Side.THEIRS): [Measures(decode_tok_s=1.0)],
    }
    found = json.loads(document({"commit": "abc"}, rounds))
    assert found["conditions"] == {"commit": "abc"}
    assert found["ratios"][0]["ratio"] == 2
    assert [entry["side"] for entry in found["rounds"]] == ["ours", "llama-server"]


@pytest.fixture
async def stub() -> AsyncIterator[StubServer]:
    async with stub_server() as server:
        yield server


async def test_sides_take_turns_and_the_first_round_is_not_counted(stub: StubServer) -> None:
    servers = {
        side: Server(Target(url=stub.url, model=side), 1)
        for side in (Side.OURS, Side.THEIRS, Side.THEIRS_NGRAM)
    }
    told: list[str] = []
    rounds = await measure_in_turns(servers, chosen(["one_stream"]), 2, 5, told.append)
    sides = [body["model"] for _, body in stub.bodies][len(servers) :]  # after the probes
    assert sides == ["ours", "llama-server"] * 3
    assert [len(runs) for runs in rounds.values()] == [2, 2]
    assert len(told) == 6
    prompts = stub.prompts()[len(servers) :]
    assert prompts[0] == prompts[1] != prompts[2]


async def test_a_side_that_fails_leaves_the_others_figures(stub: StubServer) -> None:
    servers = {side: Server(Target(url=stub.url, model=side), 1) for side in (Side.OURS, Side.THEIRS)}
    told: list[str] = []
    stub.error_after = 100  # beyond the probe
    rounds = await measure_in_turns(servers, chosen(["one_stream", "streams_8"]), 1, 5, told.append)
    assert {name for name, _ in rounds} == {"streams_8"}
    assert sum("failed: the server failed" in line for line in told) == 4


def test_only_the_repeated_text_meets_the_ngram_mode() -> None:
    servers = {side: Server(Target(url="", model=""), 1) for side in Side}
    assert sides_of(chosen(["repeat_text"])[0], servers) == list(Side)
    assert sides_of(chosen(["one_stream"])[0], servers) == [Side.OURS, Side.THEIRS, Side.THEIRS_SPLIT]


def test_a_ratio_is_to_the_better_of_the_peers_ways_to_keep_cells() -> None:
    values = {Side.OURS: 30.0, Side.THEIRS: 15.0, Side.THEIRS_SPLIT: 20.0}
    rounds = {("streams_8", side): [Measures(total_tok_s=value)] for side, value in values.items()}
    assert [line.ratio for line in lines(rounds)] == [1.5]


def test_both_servers_get_the_same_limits() -> None:
    argv = peer_argv(Path("bin/llama-server"), LIMITS, "{port}")
    assert argv[0] == "bin/llama-server"
    pairs = dict(zip(argv[1::2], argv[2::2], strict=False))
    assert (pairs["--parallel"], pairs["--ctx-size"], pairs["--threads"], pairs["--port"]) == (
        "16",
        "20480",
        "2",
        "{port}",
    )
    assert argv[-1] == "--kv-unified"
    assert peer_argv(Path("llama-server"), LIMITS, "1", unified=False)[-1] == "--no-kv-unified"
    parameters = engine_body(LIMITS, speculation=True)["loading_parameters"]
    assert parameters == {
        "n_ctx": 16384, "n_parallel": 16, "kv_pool_tokens": 20480, "n_threads": 2, "n_threads_batch": 2
    }  # fmt: skip


def test_speculation_is_named_only_to_turn_it_off() -> None:
    parameters = engine_body(LIMITS, speculation=False)["loading_parameters"]
    assert isinstance(parameters, dict)
    assert parameters["speculation"] is False


def test_the_pinned_version_is_read() -> None:
    assert llama_version('[project]\ndependencies = ["x>=1", "llama-cpp-python==1.2.3"]') == "1.2.3"


def test_options_have_defaults_and_bounds() -> None:
    options = parser().parse_args([])
    assert (options.parallel, options.rounds, options.no_speculation) == (16, 3, False)
    with pytest.raises(SystemExit):
        parser().parse_args(["--rounds", "0"])


def test_a_server_that_ends_at_once_is_told_with_its_words(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('no model there')"]
    with (
        pytest.raises(BenchError, match="no model there"),
        running(argv, "http://127.0.0.1:1/", tmp_path / "log"),
    ):
        pass


def test_a_server_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match="cannot start"),
        running([str(tmp_path / "none")], "http://127.0.0.1:1/", tmp_path / "log"),
    ):
        pass
