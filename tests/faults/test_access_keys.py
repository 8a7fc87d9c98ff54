"""A3, A4: guesses of keys, and requests that a browser was made to send."""

from __future__ import annotations

import math
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from kolosal.routes import all_routes
from kolosal.security.auth import Keyring
from kolosal.security.keys import plain_key
from tests.fakes import FakeEngine, app_with, http_client
from tests.http.test_daemon import daemon

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]

KEY = "a-key-that-nobody-knows-0123456789"

TRIES_A_MINUTE = 10


@pytest.mark.fault("A3")
def test_guesses_are_refused_after_ten(sized: Sized, seen: Seen) -> None:
    n_guesses = sized(200, 10_000)
    with daemon(api_key=KEY, access_log=False) as (_, url), httpx.Client(base_url=url) as http:
        began = time.monotonic()
        statuses = Counter(
            http.get("/v1/models", headers={"x-api-key": f"guess-{number}"}).status_code
            for number in range(n_guesses)
        )
        took_s = time.monotonic() - began
        right = http.get("/v1/models", headers={"x-api-key": KEY})
        assert http.get("/health").status_code == 200
    assert set(statuses) == {401, 429}
    assert statuses[401] <= TRIES_A_MINUTE * math.ceil(took_s / 60 + 1)
    assert (right.status_code, int(right.headers["retry-after"]) <= 60) == (429, True)
    seen(f"of {n_guesses} guesses {statuses[401]} were looked at in {took_s:.0f} s, the others 429")


LAST = len(KEY) - 1

BLOCK = 1000
"""Samples of each kind in a block. Those of a block are not independent of each other, blocks are."""


@pytest.mark.fault("A3")
def test_where_a_key_is_wrong_does_not_show_in_how_long_it_takes(sized: Sized, seen: Seen) -> None:
    """At full size only: in the ordinary run other work shares the machine."""
    n_blocks = sized(2, 100)
    ring = Keyring([plain_key(KEY, "one")])
    chance = random.Random(5)  # noqa: S311 - no secret
    for _ in range(3):  # by chance one in a hundred differs although nothing does
        p = p_value([difference_ns(ring, chance) for _ in range(n_blocks)])
        if p > 0.01:
            break
    if n_blocks == 100:
        assert p > 0.01
        seen(f"first or last character wrong: p = {p:.2f} in {n_blocks * BLOCK} samples of each")


def difference_ns(ring: Keyring, chance: random.Random) -> float:
    """By how much keys with a wrong first character take longer than those with a wrong last one.

    All are made before, in the same way and in any order: where a string lies in memory shows too.
    """
    places = [0, LAST] * BLOCK
    chance.shuffle(places)
    keys = [wrong_at(place, chance) for place in places]
    taken: dict[int, list[int]] = {0: [], LAST: []}
    for place, key in zip(places, keys, strict=True):
        began = time.perf_counter_ns()
        found = ring.find(key)
        elapsed_ns = time.perf_counter_ns() - began  # and not below, where finding the list would count
        taken[place].append(elapsed_ns)
        assert found is None
    return statistics.fmean(without_outliers(taken[0])) - statistics.fmean(without_outliers(taken[LAST]))


def wrong_at(place: int, chance: random.Random) -> str:
    """The key with another character there."""
    characters = list(KEY)
    characters[place] = chance.choice("BCDEFGHIJKLMNOPQRSTUVWXYZ")
    return "".join(characters)


def without_outliers(taken: list[int]) -> list[int]:
    """Less the slowest twentieth, which is what else the machine did."""
    return sorted(taken)[: int(len(taken) * 0.95)]


def p_value(differences: list[float]) -> float:
    """Of a t-test against no difference, with so many blocks that t is as good as normal."""
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    return math.erfc(abs(statistics.fmean(differences) / spread) / math.sqrt(2))


ROUTES = [
    (re.sub(r"\{\w+(:\w+)?\}", "fake", route.path), verb)
    for route in all_routes()
    if isinstance(route, Route)
    for verb in sorted(route.methods or ())
]
CHANGING = [(path, verb) for path, verb in ROUTES if verb not in ("GET", "HEAD")]

FOREIGN = (
    "http://evil.com", "https://evil.com", "null", "http://localhost.evil.com",
    "chrome-extension://abc", "http://127.0.0.1.evil.com", "HTTP://LOCALHOST@evil.com",
)  # fmt: skip
HOSTS = (
    "evil.com",
    "evil.com:80",
    "localhost.evil.com",
    "127.0.0.1.nip.io",
    "localhost@evil.com",
    "[::1].evil.com",
    "0x7f.1",
)


def daemon_app(**settings: Any) -> tuple[Starlette, FakeEngine]:
    engine = FakeEngine("fake")
    return app_with(engine, **settings), engine


@pytest.mark.fault("A4")
async def test_a_page_of_others_gets_nothing_done_on_any_route(seen: Seen) -> None:
    app, engine = daemon_app()
    async with http_client(app) as http:
        for path, verb in CHANGING:
            for origin in FOREIGN:
                headers = {"origin": origin, "content-type": "text/plain"}
                answer = await http.request(verb, path, content=b"{}", headers=headers)
                assert answer.status_code == 403, (verb, path, origin)
                assert "access-control-allow-origin" not in answer.headers
        engines = (await http.get("/engines")).json()["total_count"]
    assert (engine.requests, engines) == ([], 1)
    seen(f"{len(CHANGING)} routes x {len(FOREIGN)} origins: 403")


@pytest.mark.fault("A4")
async def test_a_name_that_was_made_to_mean_this_machine_gets_nothing_at_all(seen: Seen) -> None:
    app, engine = daemon_app()
    async with http_client(app) as http:
        for path, verb in ROUTES:
            for host in HOSTS:
                answer = await http.request(verb, path, content=b"{}", headers={"host": host})
                assert answer.status_code == 403, (verb, path, host)
    assert engine.requests == []
    seen(f"{len(ROUTES)} routes x {len(HOSTS)} hosts: 403")


@pytest.mark.fault("A4")
@pytest.mark.parametrize("allowed", [(), ("https://app.example.com",)])
async def test_no_answer_is_for_everybody(allowed: tuple[str, ...]) -> None:
    """Not even to a preflight for a private network, and not with `*` where some origins are allowed."""
    app, _ = daemon_app(cors_origins=allowed)
    asked = {
        "access-control-request-method": "POST", "access-control-request-private-network": "true",
        "access-control-request-headers": "authorization",
    }  # fmt: skip
    async with http_client(app) as http:
        for path in {path for path, _ in ROUTES if not path.endswith(("/events", "/sse"))}:
            if path.endswith("/logs"):
                continue
            for verb, headers in (("OPTIONS", asked), ("GET", {})):
                answer = await http.request(verb, path, headers={"origin": "http://evil.com", **headers})
                assert "access-control-allow-origin" not in answer.headers
                assert "access-control-allow-private-network" not in answer.headers
                assert "access-control-allow-credentials" not in answer.headers
