"""H8: parameters beyond every bound, on every route that generates. A 4xx each, and the engine hears nothing out of range."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kolosal.routes import all_routes
from kolosal.routes.openapi.document import build_document
from kolosal.schema import GenerateRequest
from tests.fakes import AsgiRequest, FakeEngine, app_with, says

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]
Body = dict[str, Any]

DOCUMENT = build_document(all_routes())

GENERATING = (
    "/v1/chat/completions", "/v1/completions", "/v1/infill", "/v1/responses", "/v1/messages", "/api/generate", "/api/chat",
    "/stream", "/chat/blocking",
)  # fmt: skip

FAR = (2**31, 2**32, 2**63, 2**64, 10**9, 10**30, -(2**31) - 1, -(2**63), -(10**30), 1e300, -1e300)
"""Numbers that some native type cannot hold. 1e999 is no JSON number here, see H7."""

_request: TypeAdapter[GenerateRequest] = TypeAdapter(GenerateRequest)


def body_of(path: str) -> Body:
    """The example of a route, to the engine of these tests."""
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    example: Body = content.get("example") or schema_of(path)["example"]
    return example | {"model": "fake"}


def schema_of(path: str) -> dict[str, Any]:
    """The schema of what a route reads."""
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return resolved(content["schema"])


def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema and not a reference to it."""
    found = dict(schema)
    while "$ref" in found:
        found = DOCUMENT["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    return found


def numbers(
    schema: Mapping[str, Any], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Each number with bounds in a schema, and where it stands."""
    for name, field in schema.get("properties", {}).items():
        for kind in (resolved(each) for each in field.get("anyOf", (field,))):
            if kind.get("type") in ("integer", "number") and {"minimum", "maximum", "exclusiveMinimum"} & set(
                kind
            ):
                yield (*prefix, name), kind
            elif kind.get("type") == "object" and len(prefix) < 2:
                yield from numbers(kind, (*prefix, name))


def beyond(bounds: Mapping[str, Any]) -> list[int | float]:
    """Numbers that the bounds refuse."""
    least, most = bounds.get("minimum", bounds.get("exclusiveMinimum")), bounds.get("maximum")
    near = [*([] if least is None else [least - 1]), *([] if most is None else [most + 1])]
    return [
        value for value in (*near, *FAR)
        if (most is not None and value > most) or (least is not None and value < least)
    ]  # fmt: skip


def with_value(body: Body, path: tuple[str, ...], value: object) -> Body:
    first, *rest = path
    inner = value if not rest else with_value(body.get(first) or {}, tuple(rest), value)
    return body | {first: inner}


BOUNDED = [(path, where, bounds) for path in GENERATING for where, bounds in numbers(schema_of(path))]


async def sent(path: str, body: Body) -> tuple[AsgiRequest, FakeEngine]:
    engine = FakeEngine("fake", says("Hi"))
    request = AsgiRequest(path)
    request._body = as_json(body)
    await request.start(app_with(engine))
    return request, engine


def as_json(body: Body) -> bytes:
    """A body on the wire. orjson writes integers of 64 bits only, and is quick."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


def heard_in_range(engine: FakeEngine) -> None:
    """What came so far as the engine has only values that its own types allow; they are checked again on their way."""
    for request in engine.requests:
        _request.validate_json(_request.dump_json(request), strict=True)


@pytest.mark.fault("H8")
def test_all_routes_that_generate_have_numbers_with_bounds() -> None:
    assert {path for path, _, _ in BOUNDED} >= set(GENERATING) - {"/chat/blocking"}


@pytest.mark.fault("H8")
@pytest.mark.parametrize(("path", "where", "bounds"), BOUNDED, ids=lambda each: str(each)[:60])
async def test_numbers_beyond_their_bounds_are_refused(
    path: str, where: tuple[str, ...], bounds: dict[str, Any]
) -> None:
    for value in beyond(bounds):
        request, engine = await sent(path, with_value(body_of(path), where, value))
        assert request.status in (400, 422), f"{where}: {value}"
        assert engine.requests == []


@pytest.mark.fault("H8")
@pytest.mark.parametrize(("fields"), [
    {"n": 10**9}, {"n": 0}, {"n": -1}, {"stop": ["x"] * 100_000}, {"stop": "x" * 100_000}, {"stop": [""]},
    {"logit_bias": {str(token): 1 for token in range(10_000)}}, {"logit_bias": {"-1": 1}}, {"logit_bias": {"x": 1}},
    {"logit_bias": {str(2**31): 1}}, {"logit_bias": {"1": 101}}, {"seed": 2**64}, {"seed": 2**32}, {"seed": -1},
    {"top_k": 2**31}, {"top_k": -5}, {"n_keep": -5}, {"dry_allowed_length": -1}, {"dry_sequence_breakers": ["x"] * 10_000},
    {"samplers": ["top_k"] * 100}, {"samplers": ["no_such"]}, {"priority": 10**9}, {"max_tokens": 10**9}, {"mirostat": 3},
    {"metadata": {"a": 2**64}}, {"stop": [1]}, {"stop": [["x"] * 100]}, {"temperature": "NaN"}, {"temperature": [0.5]}, {"temperature": True},
])  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_what_is_too_much_is_refused(path: str, fields: Body) -> None:
    request, engine = await sent(path, body_of(path) | fields)
    if request.status == 200:  # a field that this route does not have
        assert not set(fields) & set(schema_of(path)["properties"])
        heard_in_range(engine)
    else:
        assert request.status == 400
        assert engine.requests == []


def nested(levels: int) -> Body:
    schema: Body = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.fault("H8")
@pytest.mark.parametrize("fields", [
    {"grammar": "x" * 300_000}, {"regex": "(" * 300_000},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": nested(100)}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["x" * 300_000]}}}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(100)}}]},
    {"tools": [{"type": "function", "function": {"name": "f" * 300}}]},
    {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(129)]},
    {"top_logprobs": 10**6, "logprobs": True},
], ids=lambda fields: next(iter(fields)))  # fmt: skip
async def test_grammars_and_tools_without_end_are_refused(fields: Body) -> None:
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
    names = {path: sorted(schema_of(path)["properties"]) for path in GENERATING}
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
    seen(
        f"{len(BOUNDED)} bounded fields refuse all beyond; {len(cases)} requests made up, {accepted} accepted in range"
    )
