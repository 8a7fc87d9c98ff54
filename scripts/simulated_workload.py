"""What clients of a simulated cluster do: conversations of growing turns, with models by Zipf's law, and bursts.

What is drawn does not depend on how requests are answered, so that every policy gets the same conversations. When the next turn
comes does: after the answer, and the time to read it.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from kolosal.cluster.prompt_key import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of conversation. Lengths are medians of log-normal distributions, in tokens."""

    weight: float
    turns: float
    """On average; geometric."""
    user: float
    answer: float
    think_s: float
    """Until the next turn, on average; exponential."""
    opening: float = 0.0
    """Of a text of its own in the first turn, such as a document."""
    system: float = 0.0
    """Of the system prompt that its application has in every conversation."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Who asks what."""

    name: str
    zipf: float
    """Exponent of the models' popularity."""
    kinds: tuple[Kind, ...]
    applications: int
    """Of each model, as Zipf's law with exponent 1 has it; each has a system prompt and an API key."""
    burst_every_s: float
    """On average; one model's conversations begin `burst` times as often for `burst_s`."""
    burst_s: float
    burst: float
    wave: float = 0.0
    """How much more and less there is within an hour, as a part of the mean: a day in short."""


CHAT = Workload(
    "chat",
    zipf=1.0,
    kinds=(
        Kind(weight=0.60, turns=5, user=60, answer=120, think_s=20, system=400),
        Kind(weight=0.25, turns=4, user=40, answer=150, think_s=30),
        Kind(weight=0.05, turns=6, user=40, answer=150, think_s=30, opening=2500, system=200),
        Kind(weight=0.10, turns=1, user=300, answer=60, think_s=0, system=800),
    ),
    applications=20,
    burst_every_s=120,
    burst_s=30,
    burst=6,
)
"""People who chat with assistants. The router's constants were chosen with this one."""

AGENTS = Workload(
    "agents",
    zipf=0.8,
    kinds=(
        Kind(weight=0.30, turns=12, user=250, answer=80, think_s=2, system=2000),
        Kind(weight=0.70, turns=1, user=30, answer=200, think_s=0, opening=1200, system=100),
    ),
    applications=5,
    burst_every_s=300,
    burst_s=60,
    burst=10,
    wave=0.5,
)
"""Agents that call tools in quick turns, and questions about documents that never come again. Nothing was chosen with it."""


class Conversation:
    """One conversation: what it will say, and the blocks of what was said."""

    __slots__ = ("blocks", "engine", "n_tokens", "turns")

    def __init__(
        self, engine: int, blocks: list[int], n_tokens: int, turns: list[tuple[int, int, float]]
    ) -> None:
        self.engine = engine
        self.blocks = blocks
        self.n_tokens = n_tokens
        self.turns = turns
        """Those to come, the last one first: tokens of the user and of the answer, seconds until the next."""


class Clients:
    """Draws the conversations of a workload, in the order in which they begin."""

    def __init__(self, workload: Workload, n_engines: int, n_requests: int, hours: float, seed: int) -> None:
        self.workload = workload
        self._random = random.Random(seed)  # noqa: S311 - no secrets here
        self._models: list[float] = [
            *itertools.accumulate(1 / (n + 1) ** workload.zipf for n in range(n_engines))
        ]
        self._applications = [*itertools.accumulate(1 / (n + 1) for n in range(workload.applications))]
        self._kinds = [*itertools.accumulate(kind.weight for kind in workload.kinds)]
        self._n_requests = n_requests
        turns = sum(kind.weight * kind.turns for kind in workload.kinds) / self._kinds[-1]
        self._rate = n_requests / turns / (hours * 3600)
        self._blocks = itertools.count()
        self._systems: dict[tuple[int, int, int], tuple[list[int], int]] = {}

    def conversations(self) -> Iterator[tuple[float, Conversation]]:
        """Each with the time of its first turn, until there are as many turns as requests are wanted."""
        now, n_drawn = 0.0, 0
        burst_from, burst_engine = self._random.expovariate(1 / self.workload.burst_every_s), self._model()
        while n_drawn < self._n_requests:
            wave = 1 + self.workload.wave * math.sin(now / 3600 * 2 * math.pi)
            bursting = now >= burst_from
            share = self._share(burst_engine) * (self.workload.burst - 1) if bursting else 0.0
            now += self._random.expovariate(self._rate * wave * (1 + share))
            in_burst = self._random.random() < share / (1 + share)
            conversation = self._conversation(burst_engine if in_burst else self._model())
            n_drawn += len(conversation.turns)
            yield now, conversation
            if now >= burst_from + self.workload.burst_s:
                burst_from = now + self._random.expovariate(1 / self.workload.burst_every_s)
                burst_engine = self._model()

    def say(self, conversation: Conversation, n_tokens: int) -> None:
        """Something is added to a conversation."""
        conversation.n_tokens += n_tokens
        missing = conversation.n_tokens // BLOCK_TOKENS - len(conversation.blocks)
        conversation.blocks.extend(itertools.islice(self._blocks, missing))

    def _model(self) -> int:
        return bisect(self._models, self._random.random() * self._models[-1])

    def _share(self, engine: int) -> float:
        before = self._models[engine - 1] if engine else 0.0
        return (self._models[engine] - before) / self._models[-1]

    def _conversation(self, engine: int) -> Conversation:
        draw = self._random
        n_kind = bisect(self._kinds, draw.random() * self._kinds[-1])
        kind = self.workload.kinds[n_kind]
        blocks, n_tokens = self._system(engine, n_kind, kind)
        n_turns = 1
        while draw.random() > 1 / kind.turns:
            n_turns += 1
        turns = [
            (
                self._length(kind.user),
                self._length(kind.answer),
                draw.expovariate(1 / kind.think_s) if kind.think_s else 0.0,
            )
            for _ in range(min(n_turns, 40))
        ]
        made = Conversation(engine, [*blocks], n_tokens, turns)
        if kind.opening:
            self.say(made, self._length(kind.opening))
        return made

    def _system(self, engine: int, n_kind: int, kind: Kind) -> tuple[list[int], int]:
        if not kind.system:
            return [], 0
        application = bisect(self._applications, self._random.random() * self._applications[-1])
        name = (engine, n_kind, application)
        if name not in self._systems:
            n_tokens = self._length(kind.system)
            self._systems[name] = ([*itertools.islice(self._blocks, n_tokens // BLOCK_TOKENS)], n_tokens)
        return self._systems[name]

    def _length(self, median: float) -> int:
        return max(1, min(int(self._random.lognormvariate(math.log(median), 0.7)), 8000))
