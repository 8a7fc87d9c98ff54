"""DaemonClient: the daemon's HTTP API as the command line needs it.

Owns the requests and their deadlines. Knows nothing of terminals. Asynchronous, because only a cancelled task closes a
connection at once on every operating system, and that is how an answer stops.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import httpx

from kolosal.commands.address import Address
from kolosal.commands.answers import (
    Body,
    EngineView,
    api_error,
    items,
    json_object,
    piece_of,
)
from kolosal.commands.errors import ApiError, CommandError, DaemonUnreachable
from kolosal.event_source import PLAIN, EventStreamError, aiter_events

if TYPE_CHECKING:
    from httpx_sse import ServerSentEvent

CONNECT_TIMEOUT_S = 5.0
"""Until the daemon's address accepts a connection."""
ANSWER_TIMEOUT_S = 30.0
"""Until a question about state is answered; loading and generating may take as long as they need."""
PROGRESS_INTERVAL_S = 0.2
"""Between two looks at the progress of a load."""

_NO_ADDRESS = "is no address of a daemon: it must look like http://127.0.0.1:8080"


_PIECE_BYTES = 1 << 20
"""Of a file that is sent."""


class DaemonClient:
    """One daemon at one address. Use as an async context manager, within one event loop.

    Every method raises CommandError: `DaemonUnreachable` where nothing answers, `ApiError` with the daemon's own words.
    """

    def __init__(self, address: Address, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Raises CommandError where there cannot be such an address."""
        self.url = address.url.rstrip("/")
        key = {} if address.api_key is None else {"authorization": f"Bearer {address.api_key}"}
        try:
            # trust_env: a proxy meant for the internet must not get what is meant for this machine
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=PLAIN | key,
                transport=transport,
                trust_env=False,
                verify=_trust(address.certificate),
            )
        except httpx.InvalidURL:
            raise CommandError(f"'{self.url}' {_NO_ADDRESS}") from None

    async def __aenter__(self) -> DaemonClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def health(self) -> Body:
        """What `GET /v1/health` answers."""
        return await self._ask("GET", "/v1/health")

    async def cluster(self) -> Body:
        """What `GET /cluster` answers. Raises ApiError where the daemon is in none."""
        return await self._ask("GET", "/cluster")

    async def drain_node(self, node: str) -> Body:
        """What `POST /cluster/drain` answers, once the node has no replicas. Raises ApiError where there is none of that name."""
        return await self._ask("POST", "/cluster/drain", json_body={"node": node}, read_s=None)

    async def engines(self) -> list[EngineView]:
        """All engines with everything the daemon says of each."""
        listed = (await self._ask("GET", "/engines")).get("engines")
        views = []
        for item in items(listed):
            try:
                views.append(await self.engine(EngineView.parse(item).engine_id))
            except ApiError as exc:
                if exc.status != httpx.codes.NOT_FOUND:  # removed since the list was made
                    raise
        return views

    async def engine(self, engine_id: str) -> EngineView:
        """One engine. Raises ApiError where there is none of that id."""
        return EngineView.parse(await self.engine_facts(engine_id))

    async def engine_facts(self, engine_id: str) -> Body:
        """What `GET /engines/{id}` answers."""
        return await self._ask("GET", _path(engine_id))

    async def remove_engine(self, engine_id: str) -> None:
        """Remove an engine; returns when its running answers have finished and its memory is free."""
        await self._ask("DELETE", _path(engine_id), read_s=None)

    async def unload_engine(self, engine_id: str) -> None:
        """Free an engine's memory; it keeps its name."""
        await self._ask("POST", f"{_path(engine_id)}/unload", read_s=None)

    async def add_engine(self, body: Body, on_progress: Callable[[float], None] = lambda _: None) -> Body:
        """Add an engine and wait until it is loaded. `on_progress` is told the fraction, 0…1, meanwhile."""
        engine_id = str(body["engine_id"])
        loading = asyncio.create_task(self._ask("POST", "/engines", json_body=body, read_s=None))
        try:
            while not (await asyncio.wait([loading], timeout=PROGRESS_INTERVAL_S))[0]:
                await self._report_progress(engine_id, on_progress)
            return loading.result()
        finally:
            loading.cancel()
            await asyncio.wait([loading])

    async def plan_download(self, source: str, quant: str | None) -> Body:
        """What `POST /v1/downloads` would fetch."""
        body: Body = {"source": source, "quant": quant, "dry_run": True}
        return await self._ask("POST", "/v1/downloads", json_body=body)

    async def begin_download(self, source: str, *, force: bool) -> Body:
        """Have a model fetched; the download as it begins."""
        return await self._ask("POST", "/v1/downloads", json_body={"source": source, "force": force})

    async def download(self, download_id: str) -> Body:
        """How far a download is."""
        return await self._ask("GET", f"/v1/downloads/{quote(download_id)}")

    async def pause_download(self, download_id: str) -> Body:
        """Stop a download and keep what is there."""
        return await self._ask("POST", f"/v1/downloads/{quote(download_id)}/pause")

    async def models(self) -> list[str]:
        """Names that chats may have."""
        rows = items((await self._ask("GET", "/v1/models")).get("data"))
        return [str(row.get("id", "")) for row in rows if not _is_fetched(row)]

    async def chat(
        self, model: str, messages: Sequence[Body], options: Body | None = None
    ) -> AsyncGenerator[str, None]:
        """The pieces of an answer as they are made. Closing the iterator stops the daemon's work."""
        body: Body = {"model": model, "messages": [*messages], "stream": True, **(options or {})}
        async with aclosing(self._events("POST", "/v1/chat/completions", body)) as events:
            async for event in events:
                if event.data == "[DONE]":
                    return
                if piece := piece_of(event.data):
                    yield piece
        raise CommandError("The daemon ended the answer early")

    def events(self) -> AsyncGenerator[tuple[str, Body], None]:
        """What happens in the daemon from now on, by kind: first `hello`, once the daemon listens. Ends with the daemon."""
        return self._follow("/v1/events")

    async def reload(self) -> Body:
        """What `POST /v1/config/reload` answers."""
        return await self._ask("POST", "/v1/config/reload", read_s=None)

    async def create_model(self, body: Body) -> Body:
        """What `POST /api/create` answers."""
        given: Body = {name: value for name, value in body.items() if value not in (None, [], {})}
        return await self._ask("POST", "/api/create", json_body=given, read_s=None)

    async def model_settings(self, model: str) -> Body:
        """What holds for a model, and where each value came from."""
        return await self._ask("GET", f"/v1/model-settings/{quote(model, safe='')}")

    async def copy_model(self, source: str, alias: str) -> None:
        """Give a model another name."""
        await self._ask("POST", "/api/copy", json_body={"source": source, "destination": alias})

    async def send_blob(self, path: Path, digest: str) -> None:
        """Have the daemon take a file in, unless it has it."""
        where, timeout = f"/api/blobs/{digest}", httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)

        async def pieces() -> AsyncGenerator[bytes, None]:
            with path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece

        try:
            if (await self._http.head(where, timeout=timeout)).is_success:
                return
            length = {"content-length": str(path.stat().st_size)}  # noqa: ASYNC240
            response = await self._http.post(where, content=pieces(), headers=length, timeout=timeout)
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc
        if response.is_error:
            raise api_error(response.status_code, response.content)

    async def activity(self, limit: int, filters: Mapping[str, str]) -> Body:
        """What `GET /v1/activity` answers: requests that go on, and the last that ended."""
        return await self._ask("GET", f"/v1/activity?{urlencode({'limit': limit, **filters})}")

    def follow_activity(
        self, after: str, filters: Mapping[str, str]
    ) -> AsyncGenerator[tuple[str, Body], None]:
        """Requests as they end, after the one of that id. Ends with the daemon."""
        return self._follow(f"/v1/activity?{urlencode({'follow': 'true', 'after': after, **filters})}")

    async def library(self) -> Body:
        """What `GET /v1/library` answers, after a look at the disk."""
        return await self._ask("GET", "/v1/library?refresh=true", read_s=None)

    async def library_model(self, name: str) -> Body:
        """One model of the library. Raises ApiError where there is none of that name."""
        return await self._ask("GET", _in_library(name))

    async def remove_library_model(self, name: str) -> Body:
        """Remove a model with its files; what was freed."""
        return await self._ask("DELETE", _in_library(name), read_s=None)

    async def knows_model(self, name: str) -> bool:
        """Whether a request may name it: an engine, or a model of the library."""
        try:
            await self._ask("GET", f"/v1/models/{quote(name, safe='')}")
        except ApiError as exc:
            if exc.status != httpx.codes.NOT_FOUND:
                raise
            return False
        return True

    async def logs(self, engine_id: str, tail: int) -> list[str]:
        """The last lines of an engine's worker."""
        answer = await self._ask("GET", f"{_path(engine_id)}/logs?tail={tail}")
        lines = answer.get("lines")
        return [str(line) for line in lines] if isinstance(lines, list) else []

    async def follow_logs(self, engine_id: str, tail: int) -> AsyncGenerator[str, None]:
        """The last lines of an engine's worker, and those that come. Ends with the engine."""
        path = f"{_path(engine_id)}/logs?follow=true&tail={tail}"
        async with aclosing(self._follow(path)) as events:
            async for kind, data in events:
                if kind == "line":
                    yield str(data.get("line", ""))
                elif kind == "lines.lost":
                    yield f"({data.get('lost')} lines were lost)"

    async def _follow(self, path: str) -> AsyncGenerator[tuple[str, Body], None]:
        async with aclosing(self._events("GET", path)) as events:
            async for event in events:
                yield event.event, json_object(event.data)

    async def _events(
        self, method: str, path: str, body: Body | None = None
    ) -> AsyncGenerator[ServerSentEvent, None]:
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        try:
            async with self._http.stream(method, path, json=body, timeout=timeout) as response:
                if response.is_error:
                    raise api_error(response.status_code, await response.aread())
                async for event in aiter_events(response):
                    yield event
        except EventStreamError as exc:
            raise CommandError(str(exc)) from exc
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc

    async def _report_progress(self, engine_id: str, on_progress: Callable[[float], None]) -> None:
        try:
            view = await self.engine(engine_id)
        except CommandError:
            return  # not registered yet, or gone again: the load itself will tell why
        if view.load_progress is not None:
            on_progress(view.load_progress)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        json_body: Body | None = None,
        read_s: float | None = ANSWER_TIMEOUT_S,
    ) -> Body:
        timeout = httpx.Timeout(read_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._http.request(method, path, json=json_body, timeout=timeout)
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc
        if response.is_error:
            raise api_error(response.status_code, response.content)
        return json_object(response.content) if response.content else {}

    def _unreachable(self, exc: httpx.TransportError) -> CommandError:
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return DaemonUnreachable(self.url)
        if isinstance(exc, httpx.UnsupportedProtocol):
            return CommandError(f"'{self.url}' {_NO_ADDRESS}")
        reason = str(exc) or type(exc).__name__
        return CommandError(f"The connection to the daemon at {self.url} broke: {reason}")


def _path(engine_id: str) -> str:
    return f"/engines/{quote(engine_id, safe='')}"


def _in_library(name: str) -> str:
    return f"/v1/library/{quote(name, safe='')}"


def _trust(certificate: str | None) -> ssl.SSLContext | bool:
    """What servers are believed: those that the system's authorities know, and the owner of this certificate."""
    if certificate is None:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(Path(certificate).expanduser())
    except OSError as exc:  # ssl.SSLError is one
        raise CommandError(
            f"server.tls_certificate: {certificate}: cannot be read: {exc.strerror or exc}"
        ) from exc
    return context


def _is_fetched(model: Body) -> bool:
    """Whether a row of `/v1/models` is of a model that is not there yet."""
    status = model.get("status")
    return isinstance(status, dict) and status.get("value") == "downloading"
