"""The OpenAPI 3.1 document of a list of routes. Pure: from routes and their `Operation`s to one JSON value."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from starlette.routing import BaseRoute, Route

from kolosal import __version__
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.operation import GROUP_NOTES, Access, Group, Operation, operation_of
from kolosal.routes.openapi.errors import error_references, error_responses, error_types
from kolosal.routes.openapi.notes import one_line
from kolosal.routes.openapi.schemas import Mode, Schema, Schemas, complete

_DESCRIPTION = (
    "A model-manager daemon over llama.cpp: many GGUF models at once, one process each, behind the APIs that clients "
    "already speak. Null is as good as leaving a field out. Every answer has an `X-Request-Id`, which a request may "
    "choose. Where there is a `GET` there is a `HEAD`."
)

_EVENTS = "text/event-stream"

_FILE_FIELD = {
    "type": "object",
    "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
    "required": ["file"],
}

_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "x_api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "x_api_key_in_query": {"type": "apiKey", "in": "query", "name": "x_api_key"},
}
"""How a request carries its API key, where the daemon has keys."""

_UNDOCUMENTED = Operation(group=Group.DAEMON, answer="The answer.")
"""Stands for what an endpoint does not say, so that the rest can still be served."""


@dataclass(frozen=True, slots=True)
class _PathOperation:
    """One verb of one path: https://spec.openapis.org/oas/v3.1.0#path-item-object."""

    path: str
    verb: str
    endpoint: Any
    operation: Operation
    alias_of: str | None
    """The path that was declared first for the same endpoint, where this is another one."""


def build_document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The document of all routes, in the order of their groups."""
    entries = sorted(_entries(routes), key=lambda entry: list(Group).index(entry.operation.group))
    schemas = Schemas((*_types(entries), *error_types()))
    # types of bounds are no types of the API, so they are made apart
    bodies = [entry.operation.body for entry in entries if entry.operation.body is not None]
    bounds = Schemas((body.BOUNDS, "validation") for body in bodies if body.BOUNDS is not None)
    for operation in {id(entry.operation): entry.operation for entry in entries}.values():
        _complete_body(operation, schemas, bounds)
    paths: dict[str, dict[str, Any]] = {}
    for entry in entries:
        paths.setdefault(entry.path, {})[entry.verb] = _operation_object(entry, schemas)
    used = {entry.operation.group for entry in entries}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kolosal",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": GROUP_NOTES[tag]} for tag in Group if tag in used],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": error_responses(schemas),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _entries(routes: Sequence[BaseRoute]) -> Iterable[_PathOperation]:
    first: dict[tuple[object, str], str] = {}
    for route in routes:
        if not isinstance(route, Route):
            continue
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for verb in sorted((route.methods or set()) - {"HEAD"}):
            main = first.setdefault((route.endpoint, verb), path)
            operation = operation_of(route.endpoint) or _UNDOCUMENTED
            yield _PathOperation(
                path, verb.lower(), route.endpoint, operation, main if main != path else None
            )


def _types(entries: Sequence[_PathOperation]) -> Iterable[tuple[Any, Mode]]:
    for entry in entries:
        operation = entry.operation
        for kind in (
            operation.body,
            operation.form,
            operation.more,
            operation.query,
            *operation.path.values(),
        ):
            if kind is not None:
                yield kind, "validation"
        for answer in answer_types(entry.endpoint):
            yield answer, "serialization"


def responses_of(endpoint: Any) -> tuple[Any, ...]:
    """The responses that an endpoint's return type names."""
    returned = get_type_hints(endpoint).get("return")
    return get_args(returned) if get_origin(returned) in (Union, UnionType) else (returned,)


def answer_types(endpoint: Any) -> tuple[Any, ...]:
    """The types that an endpoint's JSON answers have."""
    return tuple(get_args(each)[0] for each in responses_of(endpoint) if get_origin(each) is JsonResponse)


def _complete_body(operation: Operation, schemas: Schemas, bounds: Schemas) -> None:
    """Add to a body what its type leaves to others."""
    if operation.body is None:
        return
    body = schemas.resolved(schemas.of(operation.body))
    if operation.more is not None:
        more = schemas.resolved(schemas.of(operation.more))
        body["properties"] |= {name: dict(schema) for name, schema in more["properties"].items()}
        body["additionalProperties"] = more.get("additionalProperties", True)
    kind = operation.body
    others = {} if kind.BOUNDS is None else bounds.resolved(bounds.of(kind.BOUNDS))
    complete(body, others, kind.DEFAULTS)


def _operation_object(entry: _PathOperation, schemas: Schemas) -> dict[str, Any]:
    operation = entry.operation
    summary, description = _summary_and_description(entry.endpoint)
    made: dict[str, Any] = {
        "tags": [operation.group],
        "operationId": _operation_id(entry),
        "summary": summary,
    }
    if entry.alias_of is not None:
        made["x-alias-of"] = entry.alias_of
        description = f"The same as `{entry.verb.upper()} {entry.alias_of}`. {description}".rstrip()
    if description:
        made["description"] = description
    made["security"] = _security(operation)
    if parameters := [*_path_parameters(entry, schemas), *_query_parameters(operation, schemas)]:
        made["parameters"] = parameters
    if operation.body is not None:
        content: dict[str, Any] = {"schema": schemas.of(operation.body)}
        if operation.example is not None:
            content["example"] = dict(operation.example)
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    if operation.form is not None:
        whole = {"allOf": [schemas.of(operation.form), _FILE_FIELD]}
        made["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": whole}}}
    empty = {str(status): {"description": words} for status, words in operation.empty_statuses.items()}
    answers = {str(operation.status): _answer(entry, schemas), **empty}
    made["responses"] = {**answers, **error_references(operation.group)}
    return made


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    """Ways to be let in, of which one is enough; the empty one is that of a daemon without keys."""
    if operation.scope is Access.OPEN:
        return []
    names = ["bearer", "x_api_key", *(["x_api_key_in_query"] if operation.key_in_query else [])]
    ways: list[dict[str, list[str]]] = [{name: []} for name in names]
    return [{}, *ways]


def _answer(entry: _PathOperation, schemas: Schemas) -> dict[str, Any]:
    operation = entry.operation
    schema: Schema = {"type": "object" if operation.media_type == "application/json" else "string"}
    answers = [schemas.of(answer, "serialization") for answer in answer_types(entry.endpoint)]
    if answers:
        schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
    content: dict[str, Any] = {operation.media_type: {"schema": schema}}
    if answers and EventStream in responses_of(entry.endpoint):
        content[operation.stream_media_type] = {}  # no schema says what a sequence of events is
    elif operation.media_type == _EVENTS:
        content[_EVENTS] = {}
    return {"description": operation.answer, "content": content}


def _path_parameters(entry: _PathOperation, schemas: Schemas) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", entry.path):
        kind = entry.operation.path.get(name)
        schema = {"type": "string"} if kind is None else dict(schemas.of(kind))
        yield _parameter(name, "path", schema, required=True)


def _query_parameters(operation: Operation, schemas: Schemas) -> Iterable[dict[str, Any]]:
    if operation.query is None:
        return
    whole = schemas.resolved(schemas.of(operation.query))
    for name, schema in whole.get("properties", {}).items():
        yield _parameter(name, "query", dict(schema), required=name in whole.get("required", ()))


def _parameter(name: str, place: str, schema: Schema, *, required: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "in": place, "required": required}
    if description := schema.pop("description", None):
        made["description"] = description
    return {**made, "schema": schema}


def _operation_id(entry: _PathOperation) -> str:
    """The endpoint's name; an alias adds its path, because ids are unique."""
    name: str = entry.endpoint.__name__
    return name if entry.alias_of is None else f"{name}_{'_'.join(re.findall(r'[A-Za-z0-9]+', entry.path))}"


def _summary_and_description(endpoint: Any) -> tuple[str, str]:
    """Summary and description of an endpoint: the first sentence of its docstring, and the rest but `Raises:`."""
    paragraphs = (inspect.getdoc(endpoint) or endpoint.__name__).split("\n\n")
    texts = [one_line(paragraph) for paragraph in paragraphs if not paragraph.startswith("Raises:")]
    summary, _, rest = texts[0].partition(". ")
    return summary.removesuffix("."), "\n\n".join(filter(None, (rest, *texts[1:])))
