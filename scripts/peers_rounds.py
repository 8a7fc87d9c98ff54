"""For `bench_peers.py`: several servers measured in turns: workload by workload, round by round, side by side.

Alternating lets whatever else the machine does meet all sides alike. The first round warms up and is not counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from peers_compare import Rounds, Side, lines

from kolosal.bench.client import Client, Target
from kolosal.bench.errors import BenchError, Skipped
from kolosal.bench.measures import Measures
from kolosal.bench.run import run_once
from kolosal.bench.workloads import Workload

NGRAM_WORKLOADS = ("repeat_text", "edit_code")
"""What a peer's speculation is measured with."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is up."""

    target: Target
    pid: int


async def measure_in_turns(
    servers: Mapping[Side, Server],
    workloads: Sequence[Workload],
    count: int,
    seed: int,
    tell: Callable[[str], None],
    *,
    warm_up: bool = True,
) -> dict[tuple[str, Side], list[Measures]]:
    """`count` rounds of every workload, after one that is not counted; in one round all sides get the same prompts.

    Raises:
        BenchError: a server does not answer at all.
    """
    clients = {side: Client(server.target) for side, server in servers.items()}
    for client in clients.values():
        await client.probe()
    rounds: dict[tuple[str, Side], list[Measures]] = {}
    for workload in workloads:
        for number in range(0 if warm_up else 1, count + 1):
            for side in sides_of(workload, servers):
                measured, outcome = await _one(workload, clients[side], f"{seed}/{number}", servers[side])
                tell(f"{workload.name:<22}{'warm-up' if number == 0 else number!s:<9}{side:<22}{outcome}")
                if measured is not None and number > 0:
                    rounds.setdefault((workload.name, side), []).append(measured)
    return rounds


def sides_of(workload: Workload, servers: Mapping[Side, Server]) -> list[Side]:
    """Who takes part in a workload, in the order of the turns."""
    return [side for side in servers if side is not Side.THEIRS_NGRAM or workload.name in NGRAM_WORKLOADS]


def document(conditions: Mapping[str, str], rounds: Rounds) -> str:
    """Everything that was measured, as JSON."""
    ratios = [
        {**asdict(line.figure), "ours": line.ours, "theirs": line.theirs, "ratio": line.ratio}
        for line in lines(rounds)
    ]
    every = [
        {"workload": name, "side": side, "runs": [asdict(run) for run in runs]}
        for (name, side), runs in rounds.items()
    ]
    return json.dumps({"conditions": {**conditions}, "ratios": ratios, "rounds": every}, indent=2)


async def _one(workload: Workload, client: Client, seed: str, server: Server) -> tuple[Measures | None, str]:
    """One round of one side and how it went; a failure leaves the other sides' figures."""
    try:
        measured = await run_once(workload, client, seed, [server.pid])
    except (BenchError, Skipped) as exc:
        return None, f"failed: {exc}"
    return measured, "" if measured.wall_s is None else f"{measured.wall_s:.2f} s"
