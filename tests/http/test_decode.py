"""From bytes to typed values: whatever comes, a value or one clear sentence."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Discriminator, Field, Tag, TypeAdapter

from kolosal.engines.parameters import FlashAttention, LoadingParameters
from kolosal.errors import InvalidRequest
from kolosal.http.decode import UNION_ERROR, RequestBody, decode_body, decode_fields


class Part(RequestBody):
    type: Literal["text"]
    text: str


def _kind(value: object) -> str | None:
    return "<text>" if isinstance(value, str) else "<list>" if isinstance(value, list) else None


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[tuple[Part, ...], Tag("<list>")],
    Discriminator(_kind, custom_error_type=UNION_ERROR, custom_error_message="a string or an array of parts"),
]


class Body(RequestBody):
    MISSING = "Missing required fields (name)"

    name: Annotated[str, Field(min_length=1, max_length=200)]
    count: Annotated[int, Field(ge=1, le=10)] | None = None
    rate: Annotated[float, Field(gt=0, le=2)] | None = None
    on: bool | None = None
    content: Content | None = None
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=2)] | None = None
    options: dict[str, Any] | None = None
    flash: FlashAttention | None = None


def decode(**fields: object) -> Body:
    return decode_body(orjson.dumps({"name": "x"} | fields), Body)


def test_values_arrive_typed() -> None:
    body = decode(count=5, rate=1, on=True, content=[{"type": "text", "text": "a"}], flash="on", unknown=1)
    assert (body.count, body.rate, body.on, body.flash) == (5, 1.0, True, FlashAttention.ON)
    assert body.content == (Part(type="text", text="a"),)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"count": "5"}, "count", 'count must be an integer, not "5"'),
        ({"count": True}, "count", "count must be an integer, not true"),
        ({"count": 5.5}, "count", "count must be an integer, not 5.5"),
        ({"count": [1, 2]}, "count", "count must be an integer, not an array"),
        ({"count": 0}, "count", "count must be at least 1, not 0"),
        ({"count": 11}, "count", "count must be at most 10, not 11"),
        ({"rate": False}, "rate", "rate must be a number, not false"),
        ({"rate": "1"}, "rate", 'rate must be a number, not "1"'),
        ({"rate": 0}, "rate", "rate must be greater than 0, not 0"),
        ({"rate": 2.5}, "rate", "rate must be at most 2, not 2.5"),
        ({"on": 1}, "on", "on must be true or false, not 1"),
        ({"on": "true"}, "on", 'on must be true or false, not "true"'),
        ({"name": None}, "name", "name must be a string, not null"),
        ({"name": ""}, "name", 'name must have at least 1 character(s), not ""'),
        ({"name": "x" * 300}, "name", "name must have at most 200 characters, not 300"),
        ({"content": 5}, "content", "content must be a string or an array of parts, not 5"),
        ({"content": {}}, "content", "content must be a string or an array of parts, not an object"),
        ({"content": [{"type": "text"}]}, "content.0.text", "Missing required field: content.0.text"),
        (
            {"content": [{"type": "image", "text": ""}]},
            "content.0.type",
            "content.0.type must be 'text', not \"image\"",
        ),
        ({"parts": []}, "parts", "parts must have at least 1 element(s), not 0"),
        ({"parts": [{"type": "text", "text": ""}] * 3}, "parts", "parts must have at most 2 elements, not 3"),
        ({"flash": "maybe"}, "flash", "flash must be 'auto', 'on' or 'off', not \"maybe\""),
    ],
)
def test_one_sentence_says_what_was_given_and_what_is_allowed(
    fields: dict[str, object], param: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)
    assert (caught.value.message, caught.value.param) == (message, param)


@pytest.mark.parametrize(("fields", "param"), [
    ({"parts": "x"}, "parts"), ({"parts": ["x"]}, "parts.0"), ({"options": "x"}, "options"), ({"content": ["x"]}, "content.0"),
])  # fmt: skip
def test_a_string_where_structure_belongs_hints_at_powershells_depth(
    fields: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequest, match="-Depth 10") as caught:
        decode(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(("given", "count"), [(5.0, 5), (1e1, 10), (5, 5)])
def test_a_whole_number_is_an_integer_however_it_is_written(given: float, count: int) -> None:
    body = decode(count=given, parts=[{"type": "text", "text": "a"}], options={"n": 1.0})
    assert (body.count, type(body.count)) == (count, int)
    assert type((body.options or {})["n"]) is float  # where no integer is wanted it stays as it was
    adapter = TypeAdapter(LoadingParameters)
    assert decode_fields(adapter, {"n_ctx": 512.0, "tensor_split": [1.0]}) == LoadingParameters(
        n_ctx=512, tensor_split=(1.0,)
    )


@pytest.mark.parametrize(("given", "shown"), [(11.0, "11"), (0.0, "0"), (1e300, r"1e\+300"), (-0.5, "-0.5")])
def test_a_whole_number_has_the_bounds_of_integers(given: float, shown: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^count must .*, not {shown}$"):
        decode(count=given)


def test_a_missing_field_has_the_protocols_own_sentence() -> None:
    with pytest.raises(InvalidRequest, match=r"^Missing required fields \(name\)$") as caught:
        decode_body(b"{}", Body)
    assert caught.value.param == "name"


@pytest.mark.parametrize("body", [
    b'{"name":' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"name":"x","count":' + b"1" * 300 + b"}",
    b'{"name":"x","rate":' + b"1" * 300 + b"}",
    orjson.dumps({"name": "x" * 100_000}),
    orjson.dumps({"name": "x", "count": "y" * 100_000}),
])  # fmt: skip
def test_input_is_not_repeated_at_length(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_body(body, Body)
    assert len(caught.value.message) < 200


def test_unknown_loading_parameters_are_named_with_their_place() -> None:
    adapter = TypeAdapter(LoadingParameters)
    with pytest.raises(InvalidRequest, match=r"Unknown field: loading_parameters\.n_ctxx") as caught:
        decode_fields(adapter, {"n_ctxx": 1}, prefix="loading_parameters.")
    assert caught.value.param == "loading_parameters.n_ctxx"
    assert decode_fields(adapter, {"tensor_split": [1, 2.5]}).tensor_split == (1.0, 2.5)
    with pytest.raises(InvalidRequest, match="cont_batching must be true, not false"):
        decode_fields(adapter, {"cont_batching": False})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELD_NAMES = st.sampled_from([*Body.model_fields, "other"])


@given(st.binary())
def test_any_bytes_give_a_value_or_an_invalid_request(body: bytes) -> None:
    _decode_or_refuse(body)


@given(st.dictionaries(FIELD_NAMES, JSON))
def test_any_json_gives_a_value_or_an_invalid_request(value: dict[str, Any]) -> None:
    _decode_or_refuse(json.dumps(value).encode("utf-8", "surrogatepass"))


def _decode_or_refuse(body: bytes) -> None:
    try:
        decode_body(body, Body)
    except InvalidRequest as exc:
        message = exc.message
    else:
        return
    assert 0 < len(message.encode()) < 1000
