"""Requests made up from our own document: none is a 5xx, and every answer is one of those the document tells."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import settings
from schemathesis import BaseSchema, Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.applications import Starlette
from starlette.types import ASGIApp

from kolosal.routes import all_routes
from kolosal.routes.openapi.document import build_document
from tests.fakes import FakeEngine, app_with, http_client, says

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]

KNOWN = {name: {"enum": ["tiny"]} for name in ("model", "engine_id")}
"""Fields and parameters with the values that lead to an engine."""

LEFT_OUT = {"grammar", "regex", "lark", "json_schema", "previous_response_id"}
"""Fields that exclude each other or refer to something: with values made up for all of them nothing gets far."""


def for_fuzzing(document: dict[str, Any]) -> dict[str, Any]:
    """The document without aliases, which are the same endpoints again, and without what has every request refused, as a 501."""
    paths = {
        path: {
            verb: each
            for verb, each in verbs.items()
            if "x-alias-of" not in each and "501" not in each["responses"] and not _is_endless(each)
        }
        for path, verbs in document["paths"].items()
    }
    schemas = {name: _narrowed(each) for name, each in document["components"]["schemas"].items()}
    return {
        **document,
        "paths": {path: verbs for path, verbs in paths.items() if verbs},
        "components": {**document["components"], "schemas": schemas},
    }


def _is_endless(operation: dict[str, Any]) -> bool:
    """Whether its answer goes on until the client has had enough; tests/routes/test_bounds.py has their queries."""
    return any(each["name"] == "follow" for each in operation.get("parameters", ()))


def _narrowed(component: dict[str, Any]) -> dict[str, Any]:
    fields = component.get("properties", {}).items()
    kept = {name: KNOWN.get(name, each) for name, each in fields if name not in LEFT_OUT}
    return {**component, "properties": kept} if fields else component


DOCUMENT = for_fuzzing(build_document(all_routes()))
OPERATIONS = [f"{verb.upper()} {path}" for path, verbs in DOCUMENT["paths"].items() for verb in verbs]


CHANGING = ("POST /api/", "DELETE /", "POST /engines/{engine_id}/")
"""Operations that remove and unload engines, so that each request is to an application of its own."""


def application(folder: Path) -> Starlette:
    url = f"sqlite:///{folder / 'kolosal.db'}"
    return app_with(
        FakeEngine("tiny", says("Hello")), default_engine="tiny", store_url=url, downloads_offline=True
    )


async def close(app: Starlette) -> None:
    await app.state.services.runs.close()
    await app.state.services.indexer.close()
    await app.state.services.store.close()


async def sent_to_its_own(folder: Path, case: Case[Any]) -> httpx.Response:
    app = application(folder)
    try:
        return await sent(app, case)
    finally:
        await close(app)


async def sent(app: ASGIApp, case: Case[Any]) -> httpx.Response:
    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
    async with http_client(app) as client:
        assert prepared.body is None or isinstance(prepared.body, bytes | str)
        headers = {name: str(value) for name, value in prepared.headers.items()}
        return await client.request(
            str(prepared.method), str(prepared.url), headers=headers, content=prepared.body
        )


@cache
def loaded(tour: bool) -> BaseSchema:
    """The document as the maker of requests reads it. Its tour takes each field at a time, to all its values and beyond its bounds."""
    coverage = {"enabled": tour, "generation": {"mode": "all"}}
    config = schemathesis.Config.from_dict({"seed": 1, "phases": {"coverage": coverage}})
    return schemathesis.openapi.from_dict(DOCUMENT, config=config)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_is_a_server_error(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Two requests each; with `--thorough` many, and a tour of all fields. Their bounds are in tests/routes/test_bounds.py.

    The requests are made up here, not when tests are collected: that takes seconds.
    """
    thorough = request.config.getoption("--thorough")
    shared = None if name.startswith(CHANGING) else application(tmp_path)

    def check(case: Case[Any]) -> None:
        response = runner.run(sent_to_its_own(tmp_path, case) if shared is None else sent(shared, case))
        case.validate_response(response, checks=CHECKS)

    examples = settings(max_examples=50 if thorough else 2, derandomize=True, database=None, deadline=None)
    schema = loaded(thorough).include(name=name)
    (made,) = get_all_tests(schema=schema, test_func=check, settings=examples, given_kwargs=None)
    assert isinstance(made, Ok)
    _, test = made.ok()
    with asyncio.Runner() as runner:
        test()
        if shared is not None:
            runner.run(close(shared))
