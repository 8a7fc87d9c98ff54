"""The document tells every route, as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from openapi_spec_validator import validate
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from kolosal.http.decode import decode_body
from kolosal.models.settings_file import SettingsFile
from kolosal.routes import all_routes
from kolosal.routes.common.operation import Operation, operation_of
from kolosal.routes.openapi.document import answer_types, build_document, responses_of
from kolosal.sampling import SamplingParams
from tests.fakes import FakeCluster, FakeEngine, app_with, http_client, says

DOCUMENT = orjson.loads(orjson.dumps(build_document(all_routes())))
ROUTES = [route for route in all_routes() if isinstance(route, Route)]
ENDPOINTS = [*{id(route.endpoint): route.endpoint for route in ROUTES}.values()]
OPERATIONS = {each.__name__: operation for each in ENDPOINTS if (operation := operation_of(each))}
BODIES = {name: each for name, each in OPERATIONS.items() if each.body is not None}


def operations() -> Iterable[tuple[str, dict[str, Any]]]:
    for path, verbs in DOCUMENT["paths"].items():
        for verb, operation in verbs.items():
            yield f"{verb.upper()} {path}", operation


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["schemas"][name] if name else schema


def body_fields(path: str) -> dict[str, Any]:
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    fields: dict[str, Any] = resolved(content["schema"])["properties"]
    return fields


def example_of(path: str) -> Any:
    """The example of a `POST` with a JSON answer, but for those that want a file, a process, what was kept before or another machine."""
    operation = DOCUMENT["paths"][path].get("post", {})
    if (
        "/engines/" in path
        or path == "/api/pull"
        or "application/json" not in operation.get("responses", {}).get("200", {}).get("content", {})
    ):
        return None
    example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    return None if "_id}" in path or "abc123" in str(example) else example


def refs_in(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        if isinstance(ref := value.get("$ref"), str):
            yield ref
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from refs_in(part)


def not_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return next(kind for kind in kinds if kind.get("type") != "null")


def test_every_route_says_what_it_takes_and_gives() -> None:
    assert [each.__name__ for each in ENDPOINTS if operation_of(each) is None] == []  # no @Operation(…)
    assert [each.__name__ for each in ENDPOINTS if not each.__doc__] == []


def test_every_json_answer_has_a_type() -> None:
    """That it is answered with is checked by mypy, unless the endpoint may return a `Response` of any kind."""
    json_answers = {
        each.__name__: each
        for each in ENDPOINTS
        if OPERATIONS[each.__name__].media_type == "application/json"
    }
    del json_answers["show_openapi"]
    assert {each.__name__ for each in ENDPOINTS if answer_types(each)} == set(json_answers)
    assert [name for name, each in json_answers.items() if Response in responses_of(each)] == []


def test_every_body_has_an_example_that_can_be_decoded() -> None:
    assert [name for name, operation in BODIES.items() if operation.example is None] == []
    for operation in BODIES.values():
        assert operation.body is not None
        decode_body(orjson.dumps(operation.example), operation.body)


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if example_of(path) is not None])
async def test_an_example_works_on_an_engine_named_tiny(path: str, tmp_path: Path) -> None:
    app = app_with(FakeEngine("tiny", says("Hel", "lo")), store_url=f"sqlite:///{tmp_path / 'kolosal.db'}")
    app.state.services.model_settings = SettingsFile(tmp_path / "models.yaml")
    app.state.services.cluster = FakeCluster()
    async with http_client(app) as client:
        response = await client.post(path, json=example_of(path))
    await app.state.services.indexer.close()
    await app.state.services.store.close()
    assert response.is_success, response.text


def test_it_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_every_path_and_verb_is_there() -> None:
    told = {(path, verb.upper()) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}
    paths = [(re.sub(r":\w+}", "}", route.path), route.methods or ()) for route in ROUTES]
    assert told == {(path, verb) for path, verbs in paths for verb in verbs if verb != "HEAD"}


def test_every_reference_leads_somewhere() -> None:
    for ref in refs_in(DOCUMENT):
        target = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            target = target[step]


def test_every_operation_has_words_and_errors() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    wrong = [
        name
        for name, operation in operations()
        if not operation["summary"]
        or "\n" in operation["summary"]
        or not {"4XX", "5XX"} < set(operation["responses"])
        or operation["tags"][0] not in tags
    ]
    assert wrong == []


def test_it_says_how_a_key_is_carried() -> None:
    paths = DOCUMENT["paths"]
    assert paths["/health"]["get"]["security"] == []
    assert paths["/v1/chat/completions"]["post"]["security"] == [{}, {"bearer": []}, {"x_api_key": []}]
    assert {"x_api_key_in_query": []} in paths["/ping"]["get"]["security"]


def test_errors_are_told_in_the_words_of_the_dialect() -> None:
    responses = DOCUMENT["components"]["responses"]
    assert "429 `queue_full`" in responses["OpenAIClientError"]["description"]
    assert "529 `overloaded_error`" in responses["AnthropicServerError"]["description"]
    messages = DOCUMENT["paths"]["/v1/messages"]["post"]["responses"]
    assert messages["5XX"] == {"$ref": "#/components/responses/AnthropicServerError"}


def test_an_alias_names_the_path_it_stands_for() -> None:
    assert DOCUMENT["paths"]["/chat/completions"]["post"]["x-alias-of"] == "/v1/chat/completions"
    assert "x-alias-of" not in DOCUMENT["paths"]["/v1/chat/completions"]["post"]


def test_path_parameters_have_their_bounds() -> None:
    (parameter,) = DOCUMENT["paths"]["/engines/{engine_id}"]["delete"]["parameters"]
    assert parameter["schema"]["maxLength"] == 256


@pytest.mark.parametrize("name", ["top_p", "top_k", "repeat_penalty", "seed", "min_p"])
def test_a_sampling_field_has_the_bounds_of_the_sampler(name: str) -> None:
    # what SamplingParams says of a number, told where the body leaves the check to it
    field = not_null(body_fields("/v1/chat/completions")[name])
    assert {"minimum", "exclusiveMinimum"} & set(field)
    assert "maximum" in field


def test_what_the_body_says_itself_wins() -> None:
    fields = body_fields("/v1/chat/completions")
    assert not_null(fields["temperature"])["maximum"] == 2
    assert fields["max_tokens"]["default"] == 128
    assert fields["top_k"]["default"] == SamplingParams().top_k


def test_a_docstring_under_a_field_describes_it() -> None:
    assert body_fields("/engines")["load_immediately"]["description"].startswith("Not given: true.")


def test_loading_parameters_are_fields_of_a_new_engine() -> None:
    assert body_fields("/engines")["n_parallel"]["maximum"] == 256


def test_no_default_is_null() -> None:
    """Null is as good as leaving a field out, so it says nothing."""
    schemas = DOCUMENT["components"]["schemas"].values()
    fields = [field for schema in schemas for field in schema.get("properties", {}).values()]
    assert [field for field in fields if field.get("default", "") is None] == []


@Operation(group=next(iter(OPERATIONS.values())).group, answer="Nothing.", query=SamplingParams)
async def documented(_request: Request) -> Response:
    """First sentence. Second one,
    on two lines.

    Raises:
        KeyError: never.

    Last paragraph.
    """
    return Response()


async def undocumented(_request: Request) -> Response:
    return Response()


def test_words_come_from_the_docstring() -> None:
    operation = build_document([Route("/x", documented)])["paths"]["/x"]["get"]
    assert operation["summary"] == "First sentence"
    assert operation["description"] == "Second one, on two lines.\n\nLast paragraph."


def test_query_parameters_are_the_fields_of_their_type() -> None:
    parameters = build_document([Route("/x", documented)])["paths"]["/x"]["get"]["parameters"]
    top_k = next(parameter for parameter in parameters if parameter["name"] == "top_k")
    assert top_k["in"] == "query"
    assert top_k["required"] is False
    assert top_k["schema"]["maximum"] == 1_000_000


def test_a_route_that_says_nothing_does_not_hide_the_others() -> None:
    document = build_document(
        [Route("/x/{name:path}", undocumented), Mount("/other", routes=[]), Route("/y", documented)]
    )
    validate(document)
    assert set(document["paths"]) == {"/x/{name}", "/y"}
