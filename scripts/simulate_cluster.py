"""Simulates a cluster of many nodes, engines and requests, with the daemon's own router and scaler, against other ways to route.

Prints one row for each policy: the part of prompt tokens that were in a KV cache, seconds until a prompt began to be computed and
until the first token, and how much more the busiest replica of an engine had than the mean. Nodes fail; what they had in flight goes
on elsewhere. Every policy gets the same conversations, nodes, failures and scaler.

Run it with the environment's Python: .venv/bin/python scripts/simulate_cluster.py --workload chat
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from simulated_replica import Costs, Replica, Request
from simulated_workload import AGENTS, CHAT, Clients, Conversation, Workload

from kolosal.cluster.prompt_key import PromptKey
from kolosal.cluster.routing import Route, Router
from kolosal.cluster.scaling import Scaler, ScalingRules

TICK_S = 10.0
"""How often the scaler is asked, and how often loads are compared."""

SLOTS = 16
"""Replicas that a node has room for."""

WARM_UP = 0.2
"""The part of the time whose requests are not counted: in the beginning every engine has one replica, and nobody has a cell."""

MAX_TOKENS = 12_000
"""A conversation that is longer ends: the context window."""


class Policy(Protocol):
    """Which replica gets a request, as `Router` says it."""

    def add(self, replica: str, kv_tokens: int) -> None: ...
    def drain(self, replica: str) -> None: ...
    def remove(self, replica: str) -> Collection[Route]: ...
    def route(self, prompt: PromptKey) -> Route | None: ...
    def computed(self, route: Route) -> None: ...
    def end(self, route: Route) -> None: ...


class LeastLoaded:
    """The replica with the fewest requests in flight, in turns where several have as few."""

    def __init__(self) -> None:
        self.in_flight: dict[str, int] = {}
        self.draining: set[str] = set()
        self.turn = 0

    def add(self, replica: str, kv_tokens: int) -> None:  # noqa: ARG002 - it holds what it holds
        self.in_flight[replica] = 0

    def drain(self, replica: str) -> None:
        self.draining.add(replica)

    def remove(self, replica: str) -> Collection[Route]:
        self.in_flight.pop(replica, None)
        self.draining.discard(replica)
        return ()

    def route(self, prompt: PromptKey) -> Route | None:
        names = [name for name in self.in_flight if name not in self.draining]
        if not names:
            return None
        self.turn += 1
        first = self.turn % len(names)
        chosen = self.choose([*names[first:], *names[:first]])
        self.in_flight[chosen] += 1
        return Route(chosen, 0, prompt.n_tokens)

    def choose(self, names: list[str]) -> str:
        return min(names, key=self.in_flight.__getitem__)

    def computed(self, route: Route) -> None:
        pass

    def end(self, route: Route) -> None:
        if route.replica in self.in_flight:
            self.in_flight[route.replica] -= 1


class RoundRobin(LeastLoaded):
    """One replica after the other."""

    def choose(self, names: list[str]) -> str:
        return names[0]


POLICIES: dict[str, Callable[[], Policy]] = {
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "kolosal": Router,
}


@dataclass(slots=True)
class Engine:
    """One engine: its policy, its scaler, and what waits while it has no replica."""

    policy: Policy
    scaler: Scaler
    replicas: dict[str, Replica] = field(default_factory=dict)
    starting: int = 0
    draining: dict[str, Replica] = field(default_factory=dict)
    homeless: deque[Request] = field(default_factory=deque)
    waits: list[float] = field(default_factory=list)
    """Of requests that began since the scaler was asked."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the cluster and the run are."""

    nodes: int = 1000
    engines: int = 10_000
    requests: int = 1_000_000
    hours: float = 1.0
    failures: float = 0.01
    """The part of the nodes that fail, each once, at any time."""
    max_replicas: int = 128
    seed: int = 1


@dataclass(slots=True)
class Figures:
    """What came of it."""

    policy: str
    queue_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    n_cached: int = 0
    n_prompt: int = 0
    imbalance: list[float] = field(default_factory=list)
    resumed: int = 0
    ended: int = 0
    most_replicas: int = 0
    replica_hours: float = 0.0
    """While conversations begin, not while the last ones end."""
    wall_s: float = 0.0

    @property
    def hit_rate(self) -> float:
        """The part of the prompts' tokens that were in a KV cache."""
        return self.n_cached / max(1, self.n_prompt)


class Simulation:
    """A run. Events are (time, number, what to do)."""

    def __init__(self, policy: str, workload: Workload, scale: Scale, costs: Costs) -> None:
        self.figures = Figures(policy)
        self.scale, self.costs = scale, costs
        self.clients = Clients(workload, scale.engines, scale.requests, scale.hours, scale.seed)
        self.now = 0.0
        self._counted_from = WARM_UP * scale.hours * 3600
        self._random = random.Random(scale.seed + 1)  # noqa: S311 - no secrets here
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._names = itertools.count()
        self._free = [SLOTS] * scale.nodes
        self._on_node: list[dict[str, Replica]] = [{} for _ in range(scale.nodes)]
        self._n_replicas = 0
        self._active: dict[int, None] = {}
        rules = ScalingRules(min=1, max=scale.max_replicas)
        self._engines = [Engine(POLICIES[policy](), Scaler(rules)) for _ in range(scale.engines)]

    def run(self) -> Figures:
        """To the end of the last conversation."""
        begun = time.perf_counter()
        for engine in range(self.scale.engines):
            self._start_replica(engine, load_s=0.0)
        for node in self._random.sample(
            range(self.scale.nodes), round(self.scale.nodes * self.scale.failures)
        ):
            self._at(self._random.uniform(0.1, 0.9) * self.scale.hours * 3600, partial(self._fail, node))
        self._conversations = self.clients.conversations()
        self._next_conversation()
        self._at(TICK_S, self._tick)
        self._open = 1
        while self._events and self._open:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.figures.wall_s = time.perf_counter() - begun
        return self.figures

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._serial), what))

    # --- requests ---

    def _next_conversation(self) -> None:
        found = next(self._conversations, None)
        if found is None:
            self._open -= 1
            return
        when, conversation = found

        def begin() -> None:
            self._open += 1
            self._turn(conversation)
            self._next_conversation()

        self._at(when, begin)

    def _turn(self, conversation: Conversation) -> None:
        user, answer, _ = conversation.turns[-1]
        self.clients.say(conversation, user)
        self._send(Request(conversation, tuple(conversation.blocks), conversation.n_tokens, answer, self.now))

    def _send(self, request: Request) -> None:
        engine = self._engines[request.conversation.engine]
        self._active[request.conversation.engine] = None
        request.route = engine.policy.route(PromptKey(request.blocks, request.n_prompt + request.answered))
        if request.route is None:
            engine.homeless.append(request)
            return
        replica = engine.replicas[request.route.replica]
        self._advance(replica)
        replica.take(request)
        self._foresee(replica)

    def _advance(self, replica: Replica) -> None:
        computed, ended = replica.advance(self.now)
        engine = self._engines[replica.engine]
        if computed is not None and computed.route is not None:
            engine.policy.computed(computed.route)
            if not computed.answered and computed.started is not None:
                engine.waits.append(computed.started - computed.arrived)
            if (
                not computed.answered
                and computed.started is not None
                and computed.arrived > self._counted_from
            ):
                self.figures.queue_s.append(computed.started - computed.arrived)
                self.figures.first_token_s.append(self.now - computed.arrived)
                self.figures.n_cached += computed.n_cached
                self.figures.n_prompt += computed.n_prompt
        for request in ended:
            self._end(engine, request)

    def _end(self, engine: Engine, request: Request) -> None:
        if request.route is not None:
            engine.policy.end(request.route)
        self.figures.ended += 1
        conversation = request.conversation
        _, answer, think_s = conversation.turns.pop()
        self.clients.say(conversation, answer)
        if conversation.turns and conversation.n_tokens < MAX_TOKENS:
            self._at(self.now + think_s, lambda: self._turn(conversation))
        else:
            self._open -= 1

    def _foresee(self, replica: Replica) -> None:
        when = replica.next_event()
        version = replica.version
        if when is None:
            if replica.name in self._engines[replica.engine].draining:
                self._stop(replica)
            return

        def happens() -> None:
            if replica.alive and replica.version == version:
                self._advance(replica)
                self._foresee(replica)

        self._at(when, happens)

    # --- replicas ---

    def _start_replica(self, engine: int, load_s: float) -> None:
        node = max(self._random.sample(range(len(self._free)), 4), key=self._free.__getitem__)
        if self._free[node] <= 0:
            node = max(range(len(self._free)), key=self._free.__getitem__)
        if self._free[node] <= 0:
            return  # the cluster is full
        self._free[node] -= 1
        replica = Replica(f"r{next(self._names)}", engine, node, self.costs, self.now)
        self._on_node[node][replica.name] = replica
        self._engines[engine].starting += 1
        self._n_replicas += 1
        self.figures.most_replicas = max(self.figures.most_replicas, self._n_replicas)
        if load_s:
            self._at(self.now + load_s, lambda: self._ready(replica))
        else:
            self._ready(replica)

    def _ready(self, replica: Replica) -> None:
        if not replica.alive:
            return
        engine = self._engines[replica.engine]
        replica.now = self.now
        engine.starting -= 1
        engine.replicas[replica.name] = replica
        engine.policy.add(replica.name, self.costs.kv_tokens)
        while engine.homeless:
            self._send(engine.homeless.popleft())

    def _drain(self, engine: Engine) -> None:
        name = min(engine.replicas, key=lambda name: engine.replicas[name].in_flight)
        replica = engine.replicas.pop(name)
        engine.policy.drain(name)
        engine.draining[name] = replica
        self._advance(replica)
        self._foresee(replica)

    def _stop(self, replica: Replica) -> None:
        engine = self._engines[replica.engine]
        engine.draining.pop(replica.name, None)
        engine.policy.remove(replica.name)
        self._gone(replica)

    def _gone(self, replica: Replica) -> None:
        replica.alive = False
        del self._on_node[replica.node][replica.name]
        self._free[replica.node] += 1
        self._n_replicas -= 1

    def _fail(self, node: int) -> None:
        """A machine is gone: what it had in flight goes on elsewhere, from the prompt and what was answered."""
        for replica in [*self._on_node[node].values()]:
            engine = self._engines[replica.engine]
            if (
                engine.replicas.pop(replica.name, None) is None
                and engine.draining.pop(replica.name, None) is None
            ):
                engine.starting -= 1
            self._advance_dead(replica)
            engine.policy.remove(replica.name)
            self._gone(replica)
            self._active[replica.engine] = None
            for request in replica.requests():
                self.figures.resumed += 1
                self._send(request)
        self._free[node] = 0

    def _advance_dead(self, replica: Replica) -> None:
        if replica.in_flight:
            self._advance(replica)

    # --- scaling, and how loads compare ---

    def _tick(self) -> None:
        if self.now <= self.scale.hours * 3600:
            self.figures.replica_hours += self._n_replicas * TICK_S / 3600
        for number in [*self._active]:
            engine = self._engines[number]
            if self.now > self._counted_from:
                self._compare(engine)
            self._scale(number, engine)
        self._at(self.now + TICK_S, self._tick)

    def _scale(self, number: int, engine: Engine) -> None:
        there = len(engine.replicas) + engine.starting
        in_flight = sum(replica.in_flight for replica in engine.replicas.values())
        oldest = [self.now - each.waiting[0].arrived for each in engine.replicas.values() if each.waiting]
        waits = [*engine.waits, *oldest, *(self.now - each.arrived for each in engine.homeless)]
        queue_s = sum(waits) / len(waits) if waits else 0.0
        engine.waits.clear()
        places = max(1, len(engine.replicas)) * self.costs.n_parallel
        wanted = engine.scaler.wanted(
            self.now,
            replicas=there,
            queue_s=queue_s,
            busy=min(1.0, in_flight / places),
            draining=bool(engine.draining),
        )
        for _ in range(wanted - there):
            self._start_replica(number, self.costs.load_s)
        if wanted < there and engine.replicas and not engine.starting:
            self._drain(engine)
        if not in_flight and there == engine.scaler.rules.min and not engine.homeless and engine.replicas:
            self._active.pop(number, None)

    def _compare(self, engine: Engine) -> None:
        loads = [replica.in_flight for replica in engine.replicas.values()]
        if len(loads) > 1 and sum(loads) >= 2 * len(loads):
            self.figures.imbalance.append(max(loads) * len(loads) / sum(loads))


def percentile(values: list[float], part: float) -> float:
    """The value below which that part of them is; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def simulate(policy: str, workload: Workload, scale: Scale, costs: Costs) -> Figures:
    """One run, in a process of its own."""
    return Simulation(policy, workload, scale, costs).run()


def row(figures: Figures) -> str:
    """A row of the table."""
    mean = sum(figures.imbalance) / len(figures.imbalance) if figures.imbalance else 1.0
    values = (
        figures.policy,
        f"{figures.hit_rate:.1%}",
        *(f"{percentile(figures.queue_s, part):.2f}" for part in (0.5, 0.99)),
        *(f"{percentile(figures.first_token_s, part):.2f}" for part in (0.5, 0.99)),
        f"{mean:.2f}",
        f"{figures.replica_hours:,.0f}",
        f"{figures.resumed:,}",
        f"{figures.ended:,}",
        f"{figures.wall_s:.0f}",
    )
    return f"| {' | '.join(values)} |"


HEADER = (
    "| policy | hit rate | queue p50, s | p99, s | first token p50, s | p99, s | imbalance | replica hours | resumed | ended | wall, s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Scale()
    parser.add_argument("--workload", choices=("chat", "agents"), default="chat")
    parser.add_argument("--policy", choices=[*POLICIES], action="append", help="(default: all)")
    parser.add_argument("--nodes", type=int, default=default.nodes)
    parser.add_argument("--engines", type=int, default=default.engines)
    parser.add_argument("--requests", type=int, default=default.requests)
    parser.add_argument("--hours", type=float, default=default.hours, help="in which they come")
    parser.add_argument(
        "--failures", type=float, default=default.failures, help="part of the nodes that fail"
    )
    parser.add_argument("--max-replicas", type=int, default=default.max_replicas, help="of an engine")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--step-ms", type=float, default=4.0, help="of a step, without its tokens (default 4)"
    )
    parser.add_argument("--token-ms", type=float, default=4.5, help="of each token of a step (default 4.5)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (default 2)")
    options = parser.parse_args()
    scale = Scale(
        options.nodes,
        options.engines,
        options.requests,
        options.hours,
        options.failures,
        options.max_replicas,
        options.seed,
    )
    workload = {"chat": CHAT, "agents": AGENTS}[options.workload]
    costs = Costs(options.step_ms / 1000, options.token_ms / 1000)
    print(HEADER, flush=True)
    with ProcessPoolExecutor(options.jobs) as pool:
        runs = [
            pool.submit(simulate, policy, workload, scale, costs) for policy in options.policy or POLICIES
        ]
        for run in runs:
            print(row(run.result()), flush=True)


if __name__ == "__main__":
    main()
