"""Which replica gets a request. No clock, no process: what happens is told to the router."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kolosal.cluster.prompt_key import BLOCK_TOKENS, BYTES_PER_TOKEN, PromptKey, prompt_key
from kolosal.cluster.routing import STREAM_TOKENS, Route, Router
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, Message, TextPrompt, TokensPrompt, Tool, ToolUse

KV_TOKENS = 100 * BLOCK_TOKENS
BLOCK = "x" * BLOCK_TOKENS * BYTES_PER_TOKEN


def router(*replicas: str, kv_tokens: int = KV_TOKENS) -> Router:
    made = Router()
    for replica in replicas:
        made.add(replica, kv_tokens)
    return made


def key(*blocks: int, conversation: int | None = None) -> PromptKey:
    return PromptKey(blocks, len(blocks) * BLOCK_TOKENS + 1, conversation)


def sent(router: Router, prompt: PromptKey) -> Route:
    route = router.route(prompt)
    assert route is not None
    return route


def answered(router: Router, prompt: PromptKey) -> Route:
    route = sent(router, prompt)
    router.end(route)
    return route


def request(text: str, **others: Any) -> GenerateRequest:
    return replace(GenerateRequest(TextPrompt(text), SamplingParams()), **others)


# --- choosing ---


def test_requests_that_nobody_has_cells_of_are_spread() -> None:
    replicas = router("a", "b", "c")

    assert {sent(replicas, key(n)).replica for n in range(3)} == {"a", "b", "c"}


def test_idle_replicas_take_turns() -> None:
    replicas = router("a", "b")

    assert [answered(replicas, key(n)).replica for n in range(4)] == ["a", "b", "a", "b"]


def test_next_turn_goes_where_the_last_one_was() -> None:
    replicas = router("a", "b", "c")
    first = answered(replicas, key(1, 2, 3))
    answered(replicas, key(7, 8, 9))
    second = sent(replicas, key(1, 2, 3, 4))

    assert second.replica == first.replica
    assert second.n_cached == 3 * BLOCK_TOKENS


def test_longest_prefix_decides() -> None:
    replicas = router("a", "b")
    answered(replicas, key(1, 2))
    answered(replicas, key(9))
    longer = answered(replicas, key(9, 1, 2, 3, 4))

    assert sent(replicas, key(9, 1, 2, 3, 5)).replica == longer.replica


def test_popular_prefix_drowns_no_replica() -> None:
    replicas = router("a", "b", "c", "d")
    shared = tuple(range(10))
    routes = [sent(replicas, key(*shared, 100 + n)) for n in range(80)]
    counts = {name: sum(route.replica == name for route in routes) for name in "abcd"}

    assert min(counts.values()) > 10


def test_prefix_draws_as_long_as_it_saves_more_than_the_wait() -> None:
    replicas = router("a", "b")
    prompt = key(*range(STREAM_TOKENS // BLOCK_TOKENS))
    holder = answered(replicas, prompt).replica

    assert [sent(replicas, prompt).replica == holder for _ in range(2)] == [True, False]


def test_conversation_that_the_daemon_keeps_stays_though_its_beginning_is_forgotten() -> None:
    replicas = router("a", "b", kv_tokens=4 * BLOCK_TOKENS)
    first = answered(replicas, key(1, 2, conversation=7))
    for n in range(10, 20):
        answered(replicas, key(n, n, n, n))

    assert sent(replicas, key(1, 2, 3, conversation=7)).replica == first.replica


def test_replica_that_is_to_be_avoided_is_taken_where_there_is_no_other() -> None:
    replicas = router("a", "b")

    assert {replicas.route(key(n), avoid={"a"}).replica for n in range(3)} == {"b"}  # type: ignore[union-attr]
    assert replicas.route(key(9), avoid={"a", "b"}) is not None


def test_without_replicas_there_is_no_route() -> None:
    assert Router().route(key(1)) is None


# --- replicas that come and go ---


def test_draining_replica_gets_nothing_new_and_finishes_what_it_has() -> None:
    replicas = router("a", "b")
    prompt = key(*range(50), conversation=1)
    route = sent(replicas, prompt)
    replicas.drain(route.replica)

    assert all(sent(replicas, prompt).replica != route.replica for _ in range(20))
    assert replicas.tokens_in_flight(route.replica) > 0
    replicas.end(route)
    assert replicas.tokens_in_flight(route.replica) == 0


def test_replica_that_ended_returns_what_it_had_in_flight_and_forgets_what_it_held() -> None:
    replicas = router("a")
    route = sent(replicas, key(1, 2, 3))

    assert set(replicas.remove("a")) == {route}
    replicas.add("a", KV_TOKENS)
    replicas.end(route)  # of the one that is gone: nothing to the new one
    assert (replicas.tokens_in_flight("a"), sent(replicas, key(1, 2, 3)).n_cached) == (0, 0)


def test_no_more_is_remembered_than_the_cache_has_room_for() -> None:
    replicas = router("a", kv_tokens=3 * BLOCK_TOKENS)
    answered(replicas, key(1, 2))
    answered(replicas, key(5, 6))

    assert answered(replicas, key(1, 2)).n_cached == BLOCK_TOKENS  # of its end the first is forgotten first


class Books(RuleBasedStateMachine):
    """Whatever happens in whatever order, the books say what is in flight and no route leads to a replica that takes none."""

    @initialize()
    def begin(self) -> None:
        self.router = Router()
        self.running: dict[Route, bool] = {}  # whether its prompt was computed
        self.open: set[str] = set()
        self.all: set[str] = set()

    @rule(name=st.sampled_from("abcd"), blocks=st.integers(1, 6))
    def add(self, name: str, blocks: int) -> None:
        self._forget(name)
        self.router.add(name, blocks * BLOCK_TOKENS)
        self.open.add(name)
        self.all.add(name)

    @rule(name=st.sampled_from("abcd"))
    def drain(self, name: str) -> None:
        self.router.drain(name)
        self.open.discard(name)

    @rule(name=st.sampled_from("abcd"))
    def remove(self, name: str) -> None:
        expected = {route for route in self.running if route.replica == name}
        assert set(self.router.remove(name)) == expected
        self._forget(name)

    def _forget(self, name: str) -> None:
        self.open.discard(name)
        self.all.discard(name)
        self.running = {route: done for route, done in self.running.items() if route.replica != name}

    @rule(
        path=st.lists(st.integers(0, 1), max_size=8),
        conversation=st.none() | st.integers(0, 2),
        avoid=st.sets(st.sampled_from("abcd"), max_size=2),
    )
    def route(self, path: list[int], conversation: int | None, avoid: set[str]) -> None:
        blocks = tuple(hash(tuple(path[: n + 1])) for n in range(len(path)))
        route = self.router.route(key(*blocks, conversation=conversation), avoid)
        if not self.open:
            assert route is None
            return
        assert route is not None
        assert route.replica in (self.open - avoid or self.open)
        assert 0 <= route.n_cached <= len(path) * BLOCK_TOKENS + 1
        assert route.n_cached + route.n_uncached == len(path) * BLOCK_TOKENS + 1
        self.running[route] = False

    @precondition(lambda self: self.running)
    @rule(data=st.data(), twice=st.booleans())
    def computed(self, data: st.DataObject, twice: bool) -> None:
        route = data.draw(st.sampled_from([*self.running]))
        for _ in range(1 + twice):
            self.router.computed(route)
        self.running[route] = True

    @precondition(lambda self: self.running)
    @rule(data=st.data(), twice=st.booleans())
    def end(self, data: st.DataObject, twice: bool) -> None:
        route = data.draw(st.sampled_from([*self.running]))
        for _ in range(1 + twice):
            self.router.end(route)
        del self.running[route]

    @invariant()
    def books_add_up(self) -> None:
        if not hasattr(self, "router"):
            return
        for name in "abcd":
            there = [route for route in self.running if route.replica == name]
            expected = sum(STREAM_TOKENS + route.n_uncached for route in there)
            assert self.router.tokens_in_flight(name) == expected


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=50, stateful_step_count=40)


# --- keys ---


@given(text=st.text(max_size=2000), more=st.text(max_size=600))
def test_longer_prompt_begins_with_the_blocks_of_the_shorter(text: str, more: str) -> None:
    short, long = prompt_key(request(text)), prompt_key(request(text + more))

    assert long.blocks[: len(short.blocks)] == short.blocks
    assert len(long.blocks) == len((text + more).encode()) // (BLOCK_TOKENS * BYTES_PER_TOKEN)


def test_different_beginnings_share_no_block() -> None:
    one, other = prompt_key(request("a" + 3 * BLOCK)), prompt_key(request("b" + 3 * BLOCK))

    assert not {*one.blocks} & {*other.blocks}


def test_turns_of_a_chat_share_their_beginning() -> None:
    tools = ToolUse((Tool("look", "Looks.", {"type": "object"}),))
    turns = (
        Message("system", BLOCK),
        Message("user", BLOCK),
        Message("assistant", BLOCK),
        Message("user", "on"),
    )

    def of(n: int) -> tuple[int, ...]:
        return prompt_key(GenerateRequest(ChatPrompt(turns[:n], tools), SamplingParams())).blocks

    assert of(2) == of(4)[:2]
    assert len(of(4)) == 3


def test_keys_of_two_scopes_share_nothing() -> None:
    one, other = (prompt_key(request(3 * BLOCK, cache_scope=scope, thread_id="t")) for scope in "ab")

    assert not {*one.blocks} & {*other.blocks}
    assert one.conversation != other.conversation


def test_token_ids_are_compared_in_blocks_too() -> None:
    tokens = tuple(range(3 * BLOCK_TOKENS + 5))
    made = prompt_key(GenerateRequest(TokensPrompt(tokens), SamplingParams()))

    assert (len(made.blocks), made.n_tokens) == (3, len(tokens) + 1)


def test_request_that_uses_no_cache_has_a_length_only() -> None:
    made = prompt_key(request(3 * BLOCK, use_cache=False, thread_id="t"))

    assert made == PromptKey(n_tokens=3 * BLOCK_TOKENS + 1)
