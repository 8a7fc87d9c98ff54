"""H8: parameters out of every range, together. Each alone is in tests/routes/test_bounds.py, which has the marks of this row too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kolosal.schema import GenerateRequest
from tests.fakes import AsgiRequest, FakeEngine, app_with, says
from tests.routes.test_bounds import INPUTS, OPERATIONS, as_json

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]
Body = dict[str, Any]

GENERATING = (
    "/v1/chat/completions", "/v1/completions", "/v1/infill", "/v1/responses", "/v1/messages", "/api/generate", "/api/chat",
    "/stream", "/chat/blocking",
)  # fmt: skip

FAR = (2**31, 2**32, 2**63, 2**64, 10**9, 10**30, -(2**31) - 1, -(2**63), -(10**30), 1e300, -1e300)
"""Numbers that some native type cannot hold. 1e999 is no JSON number here, see H7."""

_request: TypeAdapter[GenerateRequest] = TypeAdapter(GenerateRequest)


def body_of(path: str) -> Body:
    """The example of a route, to the engine of these tests."""
    operation = OPERATIONS["POST", path]
    assert operation is not None
    assert operation.example is not None
    return {**operation.example, "model": "fake"}


async def sent(path: str, body: Body) -> tuple[AsgiRequest, FakeEngine]:
    engine = FakeEngine("fake", says("Hi"))
    request = AsgiRequest(path)
    request._body = as_json(body)
    await request.start(app_with(engine))
    return request, engine


def heard_in_range(engine: FakeEngine) -> None:
    """What came so far as the engine has only values that its own types allow; they are checked again on their way."""
    for request in engine.requests:
        _request.validate_json(_request.dump_json(request), strict=True)


def nested(levels: int) -> Body:
    schema: Body = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.fault("H8")
@pytest.mark.parametrize("fields", [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": nested(100)}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["x" * 300_000]}}}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(100)}}]},
], ids=lambda fields: next(iter(fields)))  # fmt: skip
async def test_schemas_without_end_are_refused(fields: Body) -> None:
    path = "/v1/chat/completions"
    request, engine = await sent(path, body_of(path) | fields)
    assert request.status == 400, request.content[:300]
    assert engine.requests == []


_ANY = st.one_of(
    st.sampled_from(FAR), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20), st.none(),
    st.booleans(), st.lists(st.integers() | st.text(max_size=5), max_size=5),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5),
)  # fmt: skip


@pytest.mark.fault("H8")
async def test_whatever_comes_nothing_out_of_range_is_heard(sized: Sized, seen: Seen) -> None:
    """Any values for any fields, several at a time: they may be accepted, and then they are in range."""
    names = {path: sorted({place.path[0] for place in INPUTS[f"POST {path}"].places}) for path in GENERATING}
    cases: list[tuple[str, Body]] = []

    @given(data=st.data(), path=st.sampled_from(GENERATING))
    @settings(max_examples=sized(150, 5000), database=None, suppress_health_check=list(HealthCheck))
    def made_up(data: st.DataObject, path: str) -> None:
        fields = data.draw(st.dictionaries(st.sampled_from(names[path]), _ANY, min_size=1, max_size=4))
        cases.append((path, fields))

    made_up()
    accepted = 0
    for path, fields in cases:
        request, engine = await sent(path, body_of(path) | fields)
        assert request.status is not None
        assert request.status < 500, (path, fields, request.content[:300])
        heard_in_range(engine)
        accepted += bool(engine.requests)
    bounded = sum(len(each.places) for each in INPUTS.values())
    seen(f"{bounded} fields refuse all beyond; {len(cases)} requests made up, {accepted} accepted in range")
