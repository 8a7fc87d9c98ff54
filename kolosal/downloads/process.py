"""A fetcher seen from the event loop: started, listened to, ended. Ending it at any moment is how a download is paused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
from pydantic import ValidationError

from kolosal.downloads.messages import (
    Fetched,
    FetchFailed,
    FetchRequest,
    FileProgress,
    FoundRepository,
    HubAnswer,
    Planned,
    PlanRequest,
    SearchRequest,
    message_adapter,
)
from kolosal.engines.ipc.system import describe_exit, python_program, spawn_options
from kolosal.errors import (
    DownloadFailed,
    Forbidden,
    InternalError,
    InvalidRequest,
    KolosalError,
    NotFound,
    StorageFull,
)

log = logging.getLogger(__name__)

PLAN_S = 10.0
"""Until it is known what is to be fetched: a hub that is away is told by then."""

_MAX_LINE_BYTES = 8 * 1024 * 1024
_PYTHON, _PYTHON_ENVIRONMENT = python_program()
_ERRORS = {each.__name__: each for each in (DownloadFailed, Forbidden, StorageFull, InvalidRequest, NotFound)}
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def fetcher_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a fetcher: ours, with the hub's token and proxies, and without keys of the daemon."""
    chosen = {name: value for name, value in environ.items() if not name.upper().startswith("KOLOSAL_")}
    return {**chosen, **_QUIET, **_PYTHON_ENVIRONMENT}


@dataclass(frozen=True, slots=True)
class FetcherCommand:
    """How fetchers are started."""

    environment: Mapping[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = (_PYTHON, "-m", "kolosal.downloads.fetcher")

    async def plan(self, request: PlanRequest) -> Planned:
        """What is to be fetched.

        Raises:
            KolosalError: nothing, for a reason that the message says.
        """
        gpus = self.environment.get("CUDA_VISIBLE_DEVICES")
        answer = await self._ask_soon(replace(request, cuda_visible_devices=gpus), request.source)
        if not isinstance(answer, Planned):
            raise InternalError
        return answer

    async def search(self, words: str, limit: int) -> Sequence[FoundRepository]:
        """Repositories of the hub that have models, those that are fetched most first.

        Raises:
            KolosalError: the hub does not answer.
        """
        answer = await self._ask_soon(SearchRequest(words, limit), "What the hub has")
        if not isinstance(answer, HubAnswer):
            raise InternalError
        return answer.repositories

    async def _ask_soon(
        self, request: PlanRequest | SearchRequest, what: str
    ) -> Planned | HubAnswer | Fetched:
        try:
            async with asyncio.timeout(PLAN_S):
                return await self._ask(request)
        except TimeoutError:
            raise DownloadFailed(
                f"{what[:200]} was not found within {PLAN_S:g} seconds: nothing answers where it should be"
            ) from None

    async def fetch(self, request: FetchRequest, on_progress: Callable[[FileProgress], None]) -> None:
        """Have all files on the disk. Cancelling this ends the fetcher, and keeps what is there.

        Raises:
            KolosalError: it cannot be done, for a reason that the message says.
        """
        await self._ask(request, on_progress)

    async def _ask(
        self,
        request: PlanRequest | SearchRequest | FetchRequest,
        on_progress: Callable[[FileProgress], None] = lambda _: None,
    ) -> Planned | HubAnswer | Fetched:
        process = await asyncio.create_subprocess_exec(
            *self.argv,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=dict(self.environment),
            limit=_MAX_LINE_BYTES,
            **spawn_options(),
        )
        try:
            return await _listen(process, request, on_progress)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            if process.stdin is not None:
                process.stdin.close()
            await asyncio.shield(process.wait())


async def _listen(
    process: Process,
    request: PlanRequest | SearchRequest | FetchRequest,
    on_progress: Callable[[FileProgress], None],
) -> Planned | HubAnswer | Fetched:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(orjson.dumps(request) + b"\n")
    while True:
        try:
            line = await process.stdout.readline()
            message = message_adapter().validate_json(line) if line else None
        except ValueError as exc:  # no message of ours, or one that is too long
            reason = "it is not valid" if isinstance(exc, ValidationError) else str(exc)
            log.error("fetcher.message_not_understood", extra={"reason": reason})  # noqa: TRY400
            raise InternalError from None
        match message:
            case FileProgress():
                on_progress(message)
            case FetchFailed():
                raise _error(message)
            case None:
                raise DownloadFailed(f"The process that fetches ended: {describe_exit(await process.wait())}")
            case _:
                return message


def _error(said: FetchFailed) -> KolosalError:
    error = _ERRORS.get(said.error)
    if error is None:
        log.error("fetcher.failed", extra={"reason": said.message})
        return InternalError()
    return error(said.message, param=said.param, code=said.code)
