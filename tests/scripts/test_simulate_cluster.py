"""The simulation of a cluster: a small one, with the daemon's own router and scaler. The same every time."""

from __future__ import annotations

from simulate_cluster import POLICIES, Figures, Scale, percentile, simulate
from simulated_replica import Costs, Replica, Request
from simulated_workload import CHAT, Conversation

SCALE = Scale(nodes=20, engines=4, requests=2500, hours=0.05, failures=0.1)
COSTS = Costs(step_s=0.004, token_s=0.0045)


def test_router_finds_more_prefixes_and_lets_requests_wait_less_than_the_others() -> None:
    runs = {policy: simulate(policy, CHAT, SCALE, COSTS) for policy in POLICIES}
    ours = runs.pop("kolosal")
    for other in runs.values():
        assert ours.hit_rate > other.hit_rate
        assert percentile(ours.first_token_s, 0.99) < percentile(other.first_token_s, 0.99)
    assert {run.ended for run in runs.values()} == {ours.ended}
    assert any(run.resumed for run in (ours, *runs.values()))


def test_same_seed_gives_the_same_run() -> None:
    one, other = (simulate("kolosal", CHAT, SCALE, COSTS) for _ in range(2))
    assert summary(one) == summary(other)


def summary(figures: Figures) -> tuple[object, ...]:
    return figures.hit_rate, figures.ended, figures.resumed, figures.queue_s, figures.replica_hours


def test_a_replica_takes_as_long_as_its_steps() -> None:
    replica = Replica("a", 0, 0, COSTS, now=0.0)
    request = Request(Conversation(0, [], 0, []), (1, 2), n_prompt=128, answer=10, arrived=0.0)
    replica.take(request)
    first = replica.next_event()
    assert first is not None
    chunk = COSTS.chunk(0)
    assert abs(first - 128 / chunk * COSTS.step(chunk)) < 1e-9
    assert replica.advance(first) == (request, [])
    last = replica.next_event()
    assert last is not None
    assert abs(last - first - 10 * COSTS.step(1)) < 1e-9
    assert replica.advance(last) == (None, [request])
    assert replica.next_event() is None
