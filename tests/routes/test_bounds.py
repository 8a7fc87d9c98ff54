"""H8, and every field of every body and query: what is just outside of its bounds is refused by name, what is inside is not.

The bounds are those that the OpenAPI document tells. golden/bounds.txt lists them, so that a field that is new, gone or
bounded otherwise is seen; after a change that is meant: `python -m tests.routes.test_bounds`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.routing import Route

from kolosal.errors import ClientError
from kolosal.http.decode import RequestBody, decode_body, decode_fields
from kolosal.routes import all_routes
from kolosal.routes.common.operation import Operation, operation_of
from kolosal.routes.openapi.document import build_document
from kolosal.routes.websocket.params import GenerateParams, ToolResultParams
from kolosal.sampling import SamplingParams
from tests.bounds import ABSENT, Bounds, Place
from tests.fakes import AsgiRequest, FakeEngine, app_with, says

GOLDEN = Path(__file__).parent / "golden" / "bounds.txt"

DOCUMENT = orjson.loads(orjson.dumps(build_document(all_routes())))

OPERATIONS: dict[tuple[str, str], Operation | None] = {
    (verb, re.sub(r":\w+}", "}", route.path)): operation_of(route.endpoint)
    for route in all_routes() if isinstance(route, Route) for verb in route.methods or ()
}  # fmt: skip

_TEXT = "a text; the size of a body bounds it"
_JSON = "JSON of the client's; the size of a body bounds it, and where it becomes a grammar the tests of each dialect"
_WORD = "one of the words that the daemon knows, or refused by name"
_UNREAD = "accepted and not looked at"

UNBOUNDED = {
    **dict.fromkeys(("content", "error", "error_message", "input", "input_prefix", "input_suffix", "instructions", "message"), _TEXT),
    **dict.fromkeys(("output", "prompt", "reasoning_content", "refusal", "suffix", "system", "text", "thinking"), _TEXT),
    **dict.fromkeys(("tool_error", "description", "encrypted_content"), _TEXT),
    **dict.fromkeys(("arguments", "format", "inputSchema", "input_examples", "input_schema", "json_schema", "parameters"), _JSON),
    **dict.fromkeys(("result", "schema", "json", "guided_json", "tool_result", "action", "operation"), _JSON),
    **dict.fromkeys(("allowed_callers", "samplers", "task_budget", "type"), _WORD),
    **dict.fromkeys(("inference_engine", "license", "model_type"), _UNREAD),
    "backend_options": "of a backend, which decodes them in its own process; its members are bounded in number",
    "messages": "of `/tokenize`: a chat, which is decoded as one: test_tokens_in_vllms_shape",
    "options": "of embeddings, accepted and not looked at; other options each have a bound",
    "chat_template_kwargs": "what a value may be is told by test_what_is_wrong_is_named",
    "filters": "what a filter may be: test_filter_that_is_none_is_refused_by_name",
    "id": "of JSON-RPC, which may be of 256 characters: test_R04_every_fault_has_its_code_and_status",
    "keep_alive": "a number of any size is a time: test_every_form_is_read",
    "loading_parameters": "the same fields as beside it: test_a_bad_body_is_a_400_that_says_why",
    "stop": "a text alone has the bounds of one in an array: test_a_bad_value_is_a_400_that_names_it",
}  # fmt: skip
"""Fields that the document tells no bound of, by their names, and why."""

SAID_OTHERWISE = {
    "jsonrpc": "Invalid JSON-RPC version", "method": "Method 'no such value' not found",
    "input.0<item_reference>.id": "Missing required field: input.0.role",
}  # fmt: skip
"""Fields that some errors do not name, and what they say."""

MAX_MESSAGE_CHARS = 300
"""A message repeats a value in part only."""

TOO_MUCH = "Invalid JSON: the body holds too much"
"""What is said of arrays so long that their bound is never reached: `kolosal/http/bulk.py`."""

MORE_RULES = {
    "prompt": "an empty array is one of texts, which has at least one",
    "kv_pool_tokens": "as many as n_ctx", "parameters.kv_pool_tokens": "as many as n_ctx",
    **dict.fromkeys(("keep_alive", "profiles.*.keep_alive"), "a number or a duration: test_every_form_is_read"),
    "profiles.*.parameters.kv_pool_tokens": "as many as n_ctx",
    "stream": "refused by name", "starting_after": "refused by name", "include": "one value only",
    "role": "a prompt of the settings",
}  # fmt: skip
"""Fields of which some values inside the bounds are refused too, and why."""


NOT_LOOKED_AT = {
    # nothing is sampled, so only what the body itself bounds is checked
    **dict.fromkeys(
        ("POST /apply-template", "POST /v1/chat/completions/input_tokens"),
        {field.name for field in dataclasses.fields(SamplingParams)} - {"temperature", "max_tokens"},
    ),
    "GET /ping?": {"x_api_key"},  # a key that is too long is a wrong key
}
"""Fields that an endpoint reads and does not use."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came of a value."""

    status: int
    named: str = ""
    """The field that an error names."""
    text: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """What one endpoint reads: its body, its query, or the parameters of a method."""

    name: str
    places: tuple[Place, ...]
    send: Callable[[Starlette, Any], Awaitable[Answer]]
    """Have it answered, as by a client."""
    decode: Callable[[Any], object] | None
    """Only decode it; None where there is no other way than to send it."""

    def outside(self) -> Iterator[tuple[Place, object]]:
        """Values to be refused."""
        for place in self.places:
            for value in place.outside():
                if self.is_query and _means_another(value, place):
                    continue
                if (
                    value is None and "/engines" in self.name
                ):  # as good as leaving the field out, whatever it is
                    continue
                yield place, value

    def inside(self) -> Iterator[tuple[Place, object]]:
        """Values to be accepted."""
        for place in self.places:
            for value in place.inside():
                if not (self.is_query and value is None) and place.path != ("follow",):  # which has no end
                    yield place, value

    @property
    def is_query(self) -> bool:
        return self.name.endswith("?")


def _means_another(value: object, place: Place) -> bool:
    """Whether a value is another one in a query, where all is text."""
    types = {kind.type for kind in place.kinds if kind.values is None}
    match value:
        case None | dict():
            return True
        case list():
            return "array" not in types
        case str():
            return False
    return bool(types & {"string", "array"})


def inputs() -> Iterator[Input]:
    """All there are."""
    bounds = Bounds(DOCUMENT["components"]["schemas"] | {"Options": options()})
    for path, verbs in DOCUMENT["paths"].items():
        for verb, told in verbs.items():
            operation = OPERATIONS[verb.upper(), path]
            if "x-alias-of" in told or operation is None:
                continue
            content = told.get("requestBody", {}).get("content", {})
            if (
                "application/json" in content
            ):  # a form has a test of its own: tests/routes/documents/test_files.py
                yield body_of(f"{verb.upper()} {path}", operation, content["application/json"], bounds)
            if query := [each for each in told.get("parameters", ()) if each["in"] == "query"]:
                yield query_of(f"{verb.upper()} {path}", query, bounds)
    yield message_of("generate", GenerateParams, {"message": "Hello"})
    yield message_of("tool_result", ToolResultParams, {"task_id": "1", "results": [{}]})


def options() -> dict[str, Any]:
    """Ollama's options as they are held to: what they say in pydantic's words, and else the bounds of sampling."""
    told: dict[str, Any] = DOCUMENT["components"]["schemas"]["Options"]
    sampling = TypeAdapter(SamplingParams).json_schema()["properties"]
    fields: dict[str, Any] = {}
    for name, schema in told["properties"].items():
        number, null = schema["anyOf"]
        keywords = {"ge": "minimum", "le": "maximum", "lt": "exclusiveMaximum"}
        number = {keywords.get(key, key): each for key, each in number.items()}
        if name in sampling and number.get("type") in ("integer", "number"):
            number = sampling[name].get("anyOf", [sampling[name]])[0] | number
        fields[name] = {"anyOf": [number, null]}
    return {**told, "properties": fields}


def body_of(name: str, operation: Operation, content: Mapping[str, Any], bounds: Bounds) -> Input:
    whole = {**(operation.example or {})}
    if "model" in whole:
        whole["model"] = "fake"

    async def send(app: Starlette, body: Any) -> Answer:
        return await answer_to(app, name, as_json(body))

    more: TypeAdapter[Any] | None = None if operation.more is None else TypeAdapter(operation.more)
    names = frozenset(() if more is None else more.json_schema()["properties"])

    def decode(body: dict[str, Any]) -> None:
        assert operation.body is not None
        decode_body(as_json(body), operation.body)
        if more is not None:
            decode_fields(
                more, {key: each for key, each in body.items() if key in names and each is not None}
            )

    return Input(name, tuple(bounds.places(content["schema"], whole)), send, decode)


def query_of(name: str, parameters: list[dict[str, Any]], bounds: Bounds) -> Input:
    fields = {each["name"]: each["schema"] for each in parameters}
    required = [each["name"] for each in parameters if each["required"]]
    whole = dict.fromkeys(required, "a") | ({"follow": False} if "follow" in fields else {})

    async def send(app: Starlette, values: dict[str, Any]) -> Answer:
        words = {
            key: str(value).lower() if isinstance(value, bool) else value for key, value in values.items()
        }
        return await answer_to(app, name, b"", urlencode(words, doseq=True))

    schema = {"type": "object", "properties": fields, "required": required}
    return Input(f"{name}?", tuple(bounds.places(schema, whole)), send, None)


def message_of(method: str, kind: type[RequestBody], whole: dict[str, Any]) -> Input:
    adapter = TypeAdapter(kind)
    schema = adapter.json_schema()

    def decode(params: Any) -> object:
        return decode_fields(adapter, params)

    async def send(_app: Starlette, params: Any) -> Answer:
        try:
            decode(params)
        except ClientError as exc:
            return Answer(400, exc.param or "", exc.message)
        return Answer(200)

    bounds = Bounds(schema.get("$defs", {}))
    return Input(f"/ws {method}", tuple(bounds.places(schema, whole)), send, decode)


def as_json(body: Any) -> bytes:
    """A body on the wire. orjson writes integers of 64 bits only, and is quick."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


async def answer_to(app: Starlette, name: str, body: bytes, query: str = "") -> Answer:
    verb, _, path = name.partition(" ")
    request = AsgiRequest(re.sub(r"\{\w+\}", "fake", path), method=verb)
    request.scope["query_string"] = query.encode()
    request._body = body
    await request.start(app)
    assert request.status is not None
    if request.status < 400 and path != "/rpc":
        return Answer(request.status)
    return error_in(request.status, orjson.loads(request.content))


def error_in(status: int, body: Any) -> Answer:
    """An error in the shape of any dialect."""
    match body:
        case {"error": {"code": int(), "message": str(text), "data": {"param": str(param)}}}:
            return Answer(400, f"params.{param}", text)
        case {"error": {"message": str(text), "param": str(param)}}:
            return Answer(status, param, text)
        case {"detail": [{"loc": [_, *where], "msg": str(text)}]}:
            return Answer(status, ".".join(map(str, where)), text)
        case (
            {"error": {"message": str(text)}}
            | {"error": str(text)}
            | {"reason": str(text)}
            | {"detail": str(text)}
        ):
            said = re.sub(
                r"^((Missing required|Unknown) field: |Invalid Request: |Invalid parameters for \w+: )",
                "",
                text,
            )
            return Answer(400 if "jsonrpc" in body else status, said.split()[0].rstrip(":,"), text)
    return Answer(status)


INPUTS = {each.name: each for each in inputs()}

by_name = pytest.mark.parametrize("name", INPUTS)


@pytest.mark.fault("H8")
@by_name
async def test_what_is_outside_is_refused_by_name(name: str) -> None:
    engine = FakeEngine("fake", says("Hi"))
    app = app_with(engine, default_engine="fake", downloads_offline=True)
    wrong = []
    for place, value in INPUTS[name].outside():
        if place.path[0] in NOT_LOOKED_AT.get(name, ()):
            continue
        answer = await INPUTS[name].send(app, place.put(value))
        if (
            answer.status not in (400, 422)
            or not _names(place, answer)
            or len(answer.text) > MAX_MESSAGE_CHARS
        ):
            wrong.append((place.label, "left out" if value is ABSENT else str(value)[:60], answer))
    assert wrong == []
    assert (engine.requests, engine.calls) == ([], [])


def _names(place: Place, answer: Answer) -> bool:
    """Whether an error is about a place; one of an array's item may be about the kinds of arrays there are."""
    field = ".".join(place.path)
    words = (TOO_MUCH, SAID_OTHERWISE.get(place.label, TOO_MUCH))
    told = answer.named.removeprefix("params.") in answer.text
    return (answer.named in (field, field.removesuffix(".0")) and told) or answer.text.startswith(words)


@by_name
async def test_what_is_inside_is_accepted(name: str) -> None:
    given = INPUTS[name]
    app = app_with(FakeEngine("fake", says("Hi")), default_engine="fake", downloads_offline=True)
    wrong: list[tuple[str, str, str]] = []
    for place, value in given.inside():
        if place.label in MORE_RULES:
            continue
        if given.decode is None:
            answer = await given.send(app, place.put(value))
            wrong += [(place.label, str(value), answer.text)] if answer.named == place.label else []
            continue
        try:
            given.decode(place.put(value))
        except ClientError as exc:
            wrong.append((place.label, str(value)[:60], exc.message))
    assert wrong == []


@by_name
def test_null_is_as_good_as_leaving_a_field_out(name: str) -> None:
    """id-null, arguments-null and all others: wherever a field may be left out, at any depth."""
    given = INPUTS[name]
    if given.decode is None:
        return  # a query, where all is text
    wrong = []
    for place in given.places:
        if place.kinds and not place.required and not place.label.endswith((".0", "*")):
            said = [_complaint(given.decode, place.put(value)) for value in (None, ABSENT)]
            wrong += [(place.label, *said)] if said[0] != said[1] else []
    assert wrong == []


def _complaint(decode: Callable[[Any], object], body: Any) -> str | None:
    try:
        decode(body)
    except ClientError as exc:
        return exc.message
    return None


def test_what_has_no_bound_has_a_reason() -> None:
    names = {re.sub(r"(\.[0*])+$", "", place.label).rpartition(".")[2]
             for each in INPUTS.values() for place in each.places if place.unbounded}  # fmt: skip
    assert names == UNBOUNDED.keys()


def test_the_bounds_are_these() -> None:
    assert table() == GOLDEN.read_text(encoding="utf-8"), "meant? python -m tests.routes.test_bounds"


def table() -> str:
    """All places and their bounds, each with the endpoints that have it."""
    having: dict[str, set[str]] = {}
    for each in INPUTS.values():
        for line in map(str, each.places):
            having.setdefault(line, set()).add(each.name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for line in sorted(having):
        groups.setdefault(tuple(sorted(having[line])), []).append(line)
    return "\n".join("\n".join((f"# {', '.join(names)}", *groups[names], "")) for names in sorted(groups))


if __name__ == "__main__":
    GOLDEN.write_text(table(), encoding="utf-8")
