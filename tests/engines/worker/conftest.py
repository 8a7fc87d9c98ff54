"""The process that renders chat templates is shared, because each takes a moment to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kolosal.engines.worker.templates.renderer import TemplateRenderer
from tests.engines.worker.helpers import RENDERER


@pytest.fixture(scope="session", autouse=True)
def renderer() -> Iterator[TemplateRenderer]:
    """The shared one. Tests that let it end start their own."""
    RENDERER.start()
    yield RENDERER
    RENDERER.close()
