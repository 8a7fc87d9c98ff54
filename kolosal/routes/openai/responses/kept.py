"""KeptResponses: responses that can be read again and followed up. They are in the store, and those that run here.

Bounded for each API key by number, bytes and age: what was kept or followed up least recently goes first. A response that can be read can
be followed up too, because the conversation before it stays for as long as it does. Nobody finds what is another's, although
clients choose ids of items themselves. Used on the event loop only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import orjson

from kolosal.config.responses import ResponseSettings
from kolosal.errors import InvalidRequest, KolosalError, NotFound, StoreUnavailable
from kolosal.http.disconnect import end_tasks
from kolosal.http.large import in_thread_if_large
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.items import Item
from kolosal.store.store import ObjectStore

if TYPE_CHECKING:  # heavy
    from kolosal.store.responses import ResponseTurn

log = logging.getLogger(__name__)

UNASKED_WAIT_S = 10.0
"""How long the end of a response that nobody asked to keep waits for the store."""

RETRY_S = 15.0
"""After the store failed: how long what nobody asked to keep is not kept, and waits for nothing."""

CLOSE_WAIT_S = 5.0
"""How long the daemon's end waits for what is being kept."""

MAX_REFERRED_BYTES = 64 * 1024 * 1024
"""JSON of turns that is read for the items that one request refers to."""

_MAX_QUOTED_CHARS = 100
"""Characters of an id that an error message repeats."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response, and what its request added to the conversation."""

    response: ResponseObject
    input_items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class EarlierTurns:
    """What a request goes on with. Instructions are no part of it."""

    items: tuple[Item, ...] = ()
    turn: int | None = None
    """The last turn of it in the store."""
    n_bytes: int = 0
    """What it takes there."""


class RunningResponse(Protocol):
    """A response that is being generated, or is not kept yet."""

    def snapshot(self) -> StoredResponse:
        """What there is of it."""

    def cancel(self) -> None:
        """Stop it; it is kept as it is then. Idempotent."""


_Key: TypeAlias = tuple[str | None, str]
"""The API key whose it is, None where no keys are used, and its id."""


class KeptResponses:
    """Kept responses by id, and those that run. `clock` gives Unix time."""

    def __init__(
        self, store: ObjectStore, limits: ResponseSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._running: dict[_Key, RunningResponse] = {}
        self._keeping: dict[_Key, asyncio.Task[bool]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._failed_at: float | None = None
        """On the clock that never jumps."""

    # --- keeping ---

    async def prepare(self, *, asked: bool) -> None:
        """A response begins that is to be kept.

        Raises:
            StoreUnavailable: nothing can be kept now, and its client `asked` to keep it.
        """
        if asked:
            await self._store.open()
        elif not (self._store.is_open or self._failed_lately() or self._is_opening):
            self._opening = asyncio.create_task(self._open_if_possible())

    def start(self, owner: str | None, response_id: str, running: RunningResponse) -> None:
        """Note a response that begins, so that other requests can read and cancel it."""
        self._running[owner, response_id] = running

    def keep(
        self, owner: str | None, stored: StoredResponse, earlier: EarlierTurns, *, asked: bool
    ) -> asyncio.Task[bool]:
        """Keep a response that has ended, whoever waits for it; whether it is kept then: one that is larger than all that its key may
        have is not. What the store fails with is raised where its client `asked` to keep it."""
        key = (owner, stored.response["id"])
        task = asyncio.create_task(self._keep(key, stored, earlier, asked=asked))
        self._keeping[key] = task
        task.add_done_callback(partial(self._kept, key))
        return task

    async def close(self) -> None:
        """Wait for what is being kept, but not for long."""
        tasks = [*self._keeping.values(), *([] if self._opening is None else [self._opening])]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WAIT_S)
        await end_tasks(*tasks)

    # --- reading ---

    async def show(self, owner: str | None, response_id: str) -> StoredResponse:
        """A kept response, or what there is of a running one.

        Raises:
            NotFound: there is no such response (any more).
            StoreUnavailable: it cannot be looked for now.
        """
        running = self._running.get((owner, response_id))
        if running is not None:
            return running.snapshot()
        async with self._store.reading(owner) as session:
            row = await session.responses.find(response_id, int(self._clock()))
        if row is None:
            raise _not_found(response_id)
        return await in_thread_if_large(len(row.input) + len(row.output), partial(_stored, row))

    def running(self, owner: str | None, response_id: str) -> RunningResponse | None:
        """A response that is being generated."""
        return self._running.get((owner, response_id))

    async def conversation(self, owner: str | None, response_id: str) -> EarlierTurns:
        """What a follow-up of a response goes on with.

        Raises:
            NotFound: there is no such response (any more).
            InvalidRequest: it has not ended.
            StoreUnavailable: it cannot be looked for now.
        """
        await self.settled(owner, response_id)
        if (owner, response_id) in self._running:
            raise InvalidRequest(
                f"previous_response_id must be that of a response that has ended, but '{response_id}' is in progress",
                param="previous_response_id",
            )
        async with self._store.reading(owner) as session:
            rows = await session.responses.conversation(response_id, int(self._clock()))
        if not rows:
            raise _not_found(response_id)
        parts = [part for row in rows for part in (row.input, row.output)]
        n_bytes = sum(map(len, parts))
        items = await in_thread_if_large(n_bytes, partial(_items_of, parts))
        return EarlierTurns(items, rows[-1].seq, n_bytes)

    async def items(self, owner: str | None, ids: Iterable[str]) -> Mapping[str, Item]:
        """Items of kept responses: those of these that there are. Of two with the same id it is the first one.

        Raises:
            StoreUnavailable: they cannot be looked for now.
        """
        wanted, found, n_bytes = set(ids), dict[str, Item](), 0
        if not wanted:
            return found
        async with self._store.reading(owner) as session:
            for seq in await session.responses.turns_with(wanted, int(self._clock())):
                row = await session.responses.turn(seq)
                if row is None:
                    continue
                n_bytes += len(row.input) + len(row.output)
                if n_bytes > MAX_REFERRED_BYTES:
                    break
                items = await in_thread_if_large(
                    len(row.input) + len(row.output), partial(_items_of, (row.input, row.output))
                )
                for item in items:
                    if item["id"] in wanted:
                        found.setdefault(item["id"], item)
        return found

    # --- forgetting ---

    async def delete(self, owner: str | None, response_id: str) -> None:
        """Forget a response; one that runs is cancelled.

        Raises:
            NotFound: there is no such response (any more).
            StoreUnavailable: the store cannot be used now.
        """
        running = self._running.get((owner, response_id))
        if running is not None:
            running.cancel()
            await self.settled(owner, response_id)
        async with self._store.writing(owner) as session:
            there = await session.responses.delete(response_id, int(self._clock()))
        if not there and running is None:
            raise _not_found(response_id)

    async def settled(self, owner: str | None, response_id: str) -> None:
        """Wait until a response that has ended is kept, or cannot be."""
        task = self._keeping.get((owner, response_id))
        if task is not None:
            await asyncio.wait((task,))

    # --- inside ---

    async def _keep(self, key: _Key, stored: StoredResponse, earlier: EarlierTurns, *, asked: bool) -> bool:
        if asked:
            return await self._put(key[0], stored, earlier)
        if self._failed_lately():
            return False
        try:
            async with asyncio.timeout(UNASKED_WAIT_S):
                return await self._put(key[0], stored, earlier)
        except (KolosalError, TimeoutError) as exc:
            log.warning("response.not_kept", extra={"reason": str(exc) or type(exc).__name__})
            if not isinstance(exc, KolosalError) or isinstance(exc, StoreUnavailable):
                self._failed_at = time.monotonic()
            return False

    async def _put(self, owner: str | None, stored: StoredResponse, earlier: EarlierTurns) -> bool:
        limits = self._limits
        if limits.max_count == 0:
            return False
        async with self._store.writing(owner) as session:
            turn = _turn_of(stored, int(self._clock() + limits.ttl_s))
            session.is_bounded = False  # room is made for it
            rows = session.responses
            count, size, used = await rows.usage()
            room = min(limits.max_bytes, session.max_bytes - (used - size))
            if turn.size + earlier.n_bytes > room:
                return False
            size += await rows.keep(turn, earlier.turn, lambda: orjson.dumps(earlier.items))
            await rows.forget(count + 1 - limits.max_count, size - room)
        return True

    def _kept(self, key: _Key, task: asyncio.Task[bool]) -> None:
        del self._keeping[key]
        self._running.pop(key, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, KolosalError):
            log.error("response.lost", exc_info=error, extra={"response_id": key[1]})

    async def _open_if_possible(self) -> None:
        try:
            await self._store.open()
        except KolosalError:  # the log says why
            self._failed_at = time.monotonic()

    @property
    def _is_opening(self) -> bool:
        return self._opening is not None and not self._opening.done()

    def _failed_lately(self) -> bool:
        return self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_S


@dataclass(frozen=True, slots=True)
class ResponseKeeper:
    """Keeps one response."""

    kept: KeptResponses
    owner: str | None
    response_id: str
    earlier: EarlierTurns
    asked: bool
    """Whether its client asked to keep it; else it is kept if that can be."""

    def start(self, running: RunningResponse) -> None:
        """It begins: from now on others can read it."""
        self.kept.start(self.owner, self.response_id, running)

    def keep(self, stored: StoredResponse) -> asyncio.Task[bool]:
        """It has ended. As `KeptResponses.keep`."""
        return self.kept.keep(self.owner, stored, self.earlier, asked=self.asked)


def _turn_of(stored: StoredResponse, expires_at: int) -> ResponseTurn:
    from kolosal.store.responses import ResponseTurn  # noqa: PLC0415 - there once the store is open

    head = {name: value for name, value in stored.response.items() if name != "output"}
    output = stored.response["output"]
    return ResponseTurn(
        stored.response["id"],
        orjson.dumps(head),
        orjson.dumps(stored.input_items),
        orjson.dumps(output),
        [item["id"] for item in (*stored.input_items, *output)],
        expires_at,
    )


def _stored(row: Any) -> StoredResponse:
    response = {**orjson.loads(row.data), "output": orjson.loads(row.output)}
    return StoredResponse(cast("ResponseObject", response), _items_of([row.input]))


def _items_of(parts: Iterable[str]) -> tuple[Item, ...]:
    return tuple(item for part in parts for item in orjson.loads(part))


def _not_found(response_id: str) -> NotFound:
    return NotFound(
        f"Response with id '{response_id[:_MAX_QUOTED_CHARS]}' not found",
        param="response_id",
        code="response_not_found",
    )
