"""What request bodies of several dialects share."""

from __future__ import annotations

from typing import Annotated, ClassVar

import orjson
import pytest
from pydantic import Field

from kolosal.errors import ClientError, InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody, decode_body
from kolosal.routes.common.body import ModelBody, NeutralValues, optional_model, requested_model
from kolosal.routes.common.fields import ARRAY, BOOLEAN, NUMBER, OBJECT, STRING, by_kind
from kolosal.routes.common.sampling_fields import SamplingFields, sampling_params
from kolosal.routes.common.tools import distinct_tools, to_tool
from kolosal.sampling import SamplingParams
from tests.fakes import FakeEngine, FakeRegistry


class Inner(RequestBody):
    """An object."""

    n: int


class EveryKind(RequestBody):
    """A field of every kind."""

    value: Annotated[
        Annotated[bool, BOOLEAN]
        | Annotated[float, NUMBER]
        | Annotated[str, Field(max_length=2), STRING]
        | Annotated[tuple[int, ...], ARRAY]
        | Annotated[Inner, OBJECT],
        by_kind("anything but null"),
    ]


class Known(ModelBody):
    """A body with fields that its API has and this daemon has not."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"n": (1, None), "audio": ()}


def body_of(**fields: object) -> Known:
    return decode_body(orjson.dumps(fields), Known)


@pytest.mark.parametrize("value", [True, False, 1.5, "ab", [1, 2], []])
def test_a_value_goes_to_the_member_of_its_kind(value: object) -> None:
    found = decode_body(orjson.dumps({"value": value}), EveryKind).value
    assert (list(found) if isinstance(found, tuple) else found) == value


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        (None, "value", "value must be anything but null, not null"),
        ("abc", "value", "value must have at most 2 characters, not 3"),
        ([1, "x"], "value.1", "value.1 must be an integer"),
        ({"n": "x"}, "value.n", "value.n must be an integer"),
    ],
)
def test_an_error_names_the_field_of_the_member_that_was_meant(value: object, param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode_body(orjson.dumps({"value": value}), EveryKind)
    assert refused.value.param == param
    assert words in refused.value.message


def test_a_request_that_names_no_model_gets_the_default_engine() -> None:
    registry = FakeRegistry(FakeEngine("a"), FakeEngine("b"), default_engine="b")
    assert body_of(model="a").requested_model(registry) == "a"
    assert body_of().requested_model(registry) == body_of(model="").requested_model(registry) == "b"
    assert optional_model(registry, None) == "b"


def test_without_a_default_engine_only_the_only_engine_may_be_meant() -> None:
    none, one = FakeRegistry(), FakeRegistry(FakeEngine("a"))
    two = FakeRegistry(FakeEngine("a"), FakeEngine("b"))
    assert requested_model(one, None) == optional_model(one, None) == "a"
    assert optional_model(none, None) is None
    for registry in (none, two):
        with pytest.raises(InvalidRequest, match=r"^model is required$"):
            requested_model(registry, None, "model is required")
    with pytest.raises(InvalidRequest, match="there are several engines"):
        optional_model(two, None)


@pytest.mark.parametrize("fields", [{}, {"n": 1}, {"n": None}, {"audio": None}, {"unknown": 5}])
def test_a_field_that_asks_for_nothing_passes(fields: dict[str, object]) -> None:
    body_of(**fields).refuse_unsupported()


@pytest.mark.parametrize("fields", [{"n": 2}, {"n": True}, {"n": 1.0}, {"audio": {}}])
def test_a_field_that_asks_for_what_there_is_not_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UnsupportedFeature) as refused:
        body_of(**fields).refuse_unsupported("messages.0.")
    assert refused.value.param == f"messages.0.{next(iter(fields))}"


def test_a_dialects_own_sampling_fields_win() -> None:
    body = SamplingFields(top_p=0.5, top_k=3, seed=7)
    made = sampling_params(body, {"top_k": 4, "seed": None, "max_tokens": 9})
    assert made == SamplingParams(top_p=0.5, top_k=4, max_tokens=9)


def test_a_sampling_field_out_of_range_is_named_where_it_stands() -> None:
    with pytest.raises(ClientError) as refused:
        sampling_params(SamplingFields(top_p=2.0), {}, prefix="options.")
    assert refused.value.param == "options.top_p"


def test_of_tools_with_one_name_the_later_is_refused() -> None:
    tools = [to_tool(name, None, {}, f"tools.{index}.parameters") for index, name in enumerate("aba")]
    assert distinct_tools(tools[:2]) == tuple(tools[:2])
    with pytest.raises(InvalidRequest) as refused:
        distinct_tools(tools)
    assert refused.value.param == "tools.2.name"
