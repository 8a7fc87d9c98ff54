"""Router: which replica of an engine gets a request.

Pure: no clock, no system; what happens is told to it. One router has the replicas of one engine.

A request goes where the least is to be computed before its first token: what its replica has in flight, and what of its own
prompt that replica does not hold. So the longest cached prefix decides between replicas that have as much to do, the fewest
tokens in flight between those that hold as much; and a prefix that everybody has drowns no replica, because it draws requests
only as long as it saves them more than they would wait, after which others come to hold it, too. That both are counted in
tokens is the idea of NVIDIA Dynamo's router (https://docs.nvidia.com/dynamo/); SGLang's decides by the prefix alone until loads
differ too much (https://docs.sglang.ai/advanced_features/router.html).

What a replica holds is not asked but remembered: the beginnings of the prompts it was given, the least recently used forgotten
first, and no more than its KV cache has room for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from kolosal.cluster.prompt_key import BLOCK_TOKENS, PromptKey

STREAM_TOKENS = 64
"""What a stream that runs counts, in tokens of a prompt: more evens out loads and finds fewer prefixes (`scripts/simulate_cluster.py`)."""

MAX_CONVERSATIONS = 16_384
"""Conversations whose replica is remembered, of those that the daemon keeps."""


@dataclass(eq=False, slots=True)
class Route:
    """Where a request was sent, until it has ended there."""

    replica: str
    n_cached: int
    """Tokens of its prompt that the replica is expected to hold."""
    n_uncached: int
    """Those that it is expected to compute; 0 once it has."""


@dataclass(eq=False, slots=True)
class _Replica:
    max_blocks: int
    held: OrderedDict[int, None] = field(default_factory=OrderedDict)
    """Beginnings that it holds, the least recently used first. With one come all shorter ones, which are used later than it."""
    routes: set[Route] = field(default_factory=set)
    load: int = 0
    """Tokens in flight."""
    draining: bool = False
    chosen: int = 0
    """When it was last chosen, counted in requests."""

    def n_held(self, blocks: Sequence[int]) -> int:
        """How many leading blocks it holds."""
        if not blocks or blocks[0] not in self.held:
            return 0
        return bisect_left(range(len(blocks)), True, key=lambda i: blocks[i] not in self.held)

    def hold(self, blocks: Sequence[int]) -> None:
        """Note that it will hold these, the deepest as the first to be forgotten."""
        for block in reversed(blocks[: self.max_blocks]):
            self.held[block] = None
            self.held.move_to_end(block)
        while len(self.held) > self.max_blocks:
            self.held.popitem(last=False)


class Router:
    """The replicas of one engine, what they hold and have in flight. All calls are synchronous; none waits or fails."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}
        self._conversations: OrderedDict[int, str] = OrderedDict()  # the last turn's replica
        self._n_routed = 0

    # --- replicas ---

    def add(self, replica: str, kv_tokens: int) -> None:
        """A replica is ready, and holds nothing. `kv_tokens` is the room of its KV cache."""
        self.remove(replica)
        self._replicas[replica] = _Replica(max_blocks=max(1, kv_tokens // BLOCK_TOKENS))

    def drain(self, replica: str) -> None:
        """From now on a replica gets nothing new. What it runs, it finishes."""
        if replica in self._replicas:
            self._replicas[replica].draining = True

    def remove(self, replica: str) -> Collection[Route]:
        """A replica has ended: what it held is forgotten. Returns what was in flight there, to be routed anew."""
        gone = self._replicas.pop(replica, None)
        return () if gone is None else gone.routes

    def tokens_in_flight(self, replica: str) -> int:
        """What a replica has to do, in tokens of a prompt; 0 where there is none of that name."""
        found = self._replicas.get(replica)
        return 0 if found is None else found.load

    # --- requests ---

    def route(self, prompt: PromptKey, avoid: Collection[str] = ()) -> Route | None:
        """Choose a replica, and count the request there until `end`; None where none takes new ones.

        `avoid` are replicas that a caller has reason not to want: they are chosen only where there is no other.
        """
        open_ = {name: each for name, each in self._replicas.items() if not each.draining}
        names = [name for name in open_ if name not in avoid] or [*open_]
        if not names:
            return None
        self._n_routed += 1
        sticky = self._conversations.get(prompt.conversation) if prompt.conversation is not None else None
        best, best_cost, best_held = names[0], None, 0
        for name in names:
            replica = open_[name]
            n_held = prompt.n_tokens if name == sticky else replica.n_held(prompt.blocks) * BLOCK_TOKENS
            cost = (replica.load - n_held, replica.chosen)
            if best_cost is None or cost < best_cost:
                best, best_cost, best_held = name, cost, n_held
        return self._begin(best, prompt, min(best_held, prompt.n_tokens))

    def _begin(self, name: str, prompt: PromptKey, n_cached: int) -> Route:
        replica = self._replicas[name]
        route = Route(name, n_cached, prompt.n_tokens - n_cached)
        replica.hold(prompt.blocks)
        replica.routes.add(route)
        replica.load += route.n_uncached + STREAM_TOKENS
        replica.chosen = self._n_routed
        if prompt.conversation is not None:
            self._conversations[prompt.conversation] = name
            self._conversations.move_to_end(prompt.conversation)
            if len(self._conversations) > MAX_CONVERSATIONS:
                self._conversations.popitem(last=False)
        return route

    def computed(self, route: Route) -> None:
        """The prompt has been computed: the first token came. Idempotent."""
        replica = self._replicas.get(route.replica)
        if replica is not None and route in replica.routes:
            replica.load -= route.n_uncached
        route.n_uncached = 0

    def end(self, route: Route) -> None:
        """The request has ended, or left. Idempotent, and nothing where the replica has ended before."""
        self.computed(route)
        replica = self._replicas.get(route.replica)
        if replica is not None and route in replica.routes:
            replica.routes.discard(route)
            replica.load -= STREAM_TOKENS
