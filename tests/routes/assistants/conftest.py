"""The official client of a daemon with a store, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette

from kolosal.routes.common.services import Services
from tests.fakes import FakeEngine, app_with, eventually, says
from tests.openai_client import openai_client
from tests.store.postgres import emptied, postgres_url

__all__ = ["postgres_url"]


@dataclass(slots=True)
class Assistants:
    """A daemon whose one engine, `fake`, says what its script gives."""

    app: Starlette
    engine: FakeEngine
    sdk: openai.AsyncOpenAI
    http: httpx.AsyncClient

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def idle(self) -> None:
        """Wait until all runs are kept."""
        await eventually(lambda: not self.services.runs._tasks)

    async def stop(self) -> None:
        """As the daemon ends."""
        await self.services.runs.close()
        await self.services.store.close()
        await self.sdk.close()
        await self.http.aclose()


Begin = Callable[..., Assistants]


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    """Starts a daemon over this test's database, as one after the other has it; all are stopped in the end."""
    started: list[Assistants] = []

    def make(engine: FakeEngine | None = None, **settings: Any) -> Assistants:
        engine = engine or FakeEngine(script=says("Hel", "lo"))
        url = {"store_url": f"sqlite:///{tmp_path / 'kolosal.db'}"}
        app = app_with(engine, **{**url, **settings})
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://localhost/v1",
        )
        started.append(Assistants(app, engine, openai_client(app), http))
        return started[-1]

    yield make
    for each in started:
        await each.stop()


@pytest.fixture
def daemon(begin: Begin) -> Assistants:
    """A daemon whose model says `Hello`."""
    return begin()


@pytest.fixture
def empty_postgres(postgres_url: str) -> str:
    """The URL of a PostgreSQL with nothing in it."""
    return emptied(postgres_url)
