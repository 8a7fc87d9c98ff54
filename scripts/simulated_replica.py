"""A replica as the simulation of a cluster has it: continuous batching, a queue, a prefix cache. No clock: times are given.

Between two events nothing changes, so all steps in between have the same cost and are taken at once: an event is an arrival, the
end of a prompt's computing, or the end of an answer. What is left out: preemption where the KV cache is full, speculation, and
that attention grows with the context.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from simulated_workload import Conversation

from kolosal.cluster.prompt_key import BLOCK_TOKENS
from kolosal.cluster.routing import Route


@dataclass(frozen=True, slots=True)
class Costs:
    """What a replica's machine takes. A step of n tokens takes `step_s + n * token_s`."""

    step_s: float
    token_s: float
    target_step_s: float = 0.15
    """Prompts get as many tokens of a step as keep it within this, as in the worker's scheduler."""
    n_parallel: int = 8
    kv_tokens: int = 16_384
    load_s: float = 10.0

    def step(self, n_tokens: int) -> float:
        return self.step_s + n_tokens * self.token_s

    def chunk(self, n_streams: int) -> int:
        """Tokens of prompts in a step beside so many streams."""
        room = int((self.target_step_s - self.step(n_streams)) / self.token_s)
        return min(max(1, room), 512)


class Request:
    """A turn of a conversation, on its way."""

    __slots__ = (
        "answer",
        "answered",
        "arrived",
        "blocks",
        "conversation",
        "ends_at_step",
        "n_cached",
        "n_prompt",
        "route",
        "started",
        "to_compute",
    )

    def __init__(
        self, conversation: Conversation, blocks: tuple[int, ...], n_prompt: int, answer: int, arrived: float
    ) -> None:
        self.conversation = conversation
        self.blocks = blocks
        self.n_prompt = n_prompt
        self.answer = answer
        self.answered = 0
        self.arrived = arrived
        self.started: float | None = None
        """When its prompt began to be computed."""
        self.n_cached = 0
        self.route: Route | None = None
        self.to_compute = 0.0
        self.ends_at_step = 0.0


class Replica:
    """What one replica holds, computes and has waiting. `advance` first, whatever is done."""

    def __init__(self, name: str, engine: int, node: int, costs: Costs, now: float) -> None:
        self.name, self.engine, self.node, self.costs = name, engine, node, costs
        self.now = now
        self.alive = True
        self.version = 0
        """Grows with each change: the event that was foreseen before it will not happen."""
        self.waiting: deque[Request] = deque()
        self.prompts: deque[Request] = deque()
        self.streams: list[tuple[float, int, Request]] = []
        self._steps = 0.0
        self._step_s = costs.step_s
        self._chunk = 0
        self._serial = 0
        self._held: OrderedDict[int, None] = OrderedDict()
        self._max_blocks = costs.kv_tokens // BLOCK_TOKENS

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.prompts) + len(self.streams)

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return self.costs.n_parallel - len(self.prompts) - len(self.streams)

    def requests(self) -> Iterator[Request]:
        """All that it has; of those that stream it is known how far they came."""
        yield from self.waiting
        yield from self.prompts
        for ends_at, _, request in self.streams:
            request.answered = request.answer - max(1, round(ends_at - self._steps))
            yield request

    def take(self, request: Request) -> None:
        """A request arrives."""
        self.waiting.append(request)
        self._fill()

    def advance(self, now: float) -> tuple[Request | None, list[Request]]:
        """Compute until then. Returns whose prompt is done, and whose answer."""
        steps = (now - self.now) / self._step_s
        self.now = now
        self._steps += steps
        computed, ended = None, []
        if self.prompts:
            head = self.prompts[0]
            head.to_compute -= steps * self._chunk
            if head.to_compute < 1e-3:
                self.prompts.popleft()
                self._serial += 1
                heapq.heappush(self.streams, (self._steps + head.answer - head.answered, self._serial, head))
                computed = head
                self._begin_prompt()
        while self.streams and self.streams[0][0] - self._steps < 1e-3:
            request = heapq.heappop(self.streams)[2]
            request.answered = request.answer
            ended.append(request)
        if ended:
            self._fill()
        return computed, ended

    def next_event(self) -> float | None:
        """When the next prompt or answer is done, if nothing comes before; None where it has nothing to do."""
        self.version += 1
        n_streams = len(self.streams)
        self._chunk = self.costs.chunk(n_streams) if self.prompts else 0
        tokens = n_streams + (min(self._chunk, self.prompts[0].to_compute) if self.prompts else 0)
        self._step_s = self.costs.step_s + tokens * self.costs.token_s
        steps = min(
            self.prompts[0].to_compute / self._chunk if self.prompts else float("inf"),
            self.streams[0][0] - self._steps if self.streams else float("inf"),
        )
        return None if steps == float("inf") else self.now + max(steps, 1e-3) * self._step_s

    def _fill(self) -> None:
        while self.waiting and self.free > 0:
            self.prompts.append(self.waiting.popleft())
            if len(self.prompts) == 1:
                self._begin_prompt()

    def _begin_prompt(self) -> None:
        """The first of the prompts begins to be computed, but for what is in the cache."""
        if not self.prompts:
            return
        request, n_held = self.prompts[0], 0
        for block in request.blocks:
            if block not in self._held:
                break
            n_held += 1
        if request.started is None:
            request.started = self.now
        n_prompt = request.n_prompt + request.answered
        cached = min(n_held * BLOCK_TOKENS, n_prompt - 1)
        request.n_cached = cached
        request.to_compute = n_prompt - cached
        for block in reversed(request.blocks):
            self._held[block] = None
            self._held.move_to_end(block)
        while len(self._held) > self._max_blocks:
            self._held.popitem(last=False)
