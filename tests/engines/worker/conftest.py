"""The process that renders chat templates is shared, because each takes a moment to start; those that compile grammars are ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kolosal.engines.worker.templates.renderer import TemplateRenderer
from tests.engines.worker.helpers import OPEN_WORKERS, RENDERER


@pytest.fixture(scope="session", autouse=True)
def renderer() -> Iterator[TemplateRenderer]:
    """The shared one. Tests that let it end start their own."""
    RENDERER.start()
    yield RENDERER
    RENDERER.close()


@pytest.fixture(autouse=True)
def closed_workers() -> Iterator[None]:
    """Ends what grammars of a test have started."""
    yield
    while OPEN_WORKERS:
        assert OPEN_WORKERS.pop().close(10.0)
