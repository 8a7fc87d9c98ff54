"""Models made of others: `/api/create`, `/api/copy` and `/api/blobs`. What is made is an entry of `models.yaml`, and no second load."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

import orjson
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from typing_extensions import TypedDict

from kolosal.engines.memory.model_files import read_headers
from kolosal.engines.names import plain
from kolosal.engines.parameters import EngineId
from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.files.atomic import make_folder
from kolosal.files.in_thread import in_thread
from kolosal.http.decode import RequestBody, complaint
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import NDJSON, EventStream
from kolosal.models.blobs import BlobStore
from kolosal.models.ollama_settings import (
    MAX_MODELFILE_CHARS,
    OllamaParameters,
    is_go_template,
    parameters_of,
    read_modelfile,
    settings_of,
)
from kolosal.models.settings import MAX_MESSAGES, MAX_TEXT_CHARS, ModelSettings, ModelTurn
from kolosal.models.settings_file import Change, add_alias, drop_alias, in_turn, put_model
from kolosal.routes.common.fields import ModelName, StringOrStrings
from kolosal.routes.common.model_settings import change_models
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import Services, services_of
from kolosal.routes.ollama.errors import error_line
from kolosal.routes.ollama.names import decode_ollama, not_found, without_latest

BLOB_PATHS = "/api/blobs/"
MAX_BLOB_BYTES = 1 << 46
"""Bytes of a file that is sent: the disk is the limit."""

MAX_FILES = 64
MAX_PARAMETERS = 64

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class CreateBody(RequestBody):
    """A model to be made of another one, or of a file that was sent."""

    model: EngineId | None = None
    """The name of the new model; `:latest` is cut off."""
    name: EngineId | None = None
    """The older name of `model`, which wins."""
    base: ModelName | None = Field(None, alias="from")
    """The model that it is made of."""
    files: Annotated[dict[str, Annotated[str, Field(max_length=80)]], Field(max_length=MAX_FILES)] | None = (
        None
    )
    """In place of `from`: one GGUF file by the digest that it was sent under."""
    adapters: (
        Annotated[dict[str, Annotated[str, Field(max_length=80)]], Field(max_length=MAX_FILES)] | None
    ) = None
    """Must be empty."""
    quantize: Annotated[str, Field(max_length=64)] | None = None
    """Must be empty: files stay as they are."""
    system: Text | None = None
    """What the model is told first."""
    template: Text | None = None
    """A chat template in Jinja. One in Go's language is not used, and the answer says so."""
    license: StringOrStrings | None = None
    """Not kept."""
    parameters: Annotated[dict[str, Any], Field(max_length=MAX_PARAMETERS)] | None = None
    """By the names of a Modelfile."""
    messages: Annotated[tuple[ModelTurn, ...], Field(max_length=MAX_MESSAGES)] | None = None
    """Turns that stand before those of every chat."""
    modelfile: Annotated[str, Field(max_length=MAX_MODELFILE_CHARS)] | None = None
    """All of it as a Modelfile, as older clients send it; fields beside it win."""
    stream: bool | None = None
    """Whether the answer comes in pieces; true unless given."""


class CopyBody(RequestBody):
    """Another name for a model."""

    source: Annotated[ModelName, Field(min_length=1)]
    """A model, perhaps with `:latest`."""
    destination: EngineId
    """Its other name; `:latest` is cut off."""


class CreateStatus(TypedDict):
    """How far the model is made."""

    status: str
    notes: NotRequired[list[str]]
    """What was done, of an answer that does not stream."""


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    body=CreateBody,
    example={"model": "mario", "from": "tiny", "system": "You are Mario.", "stream": False},
    stream_media_type=NDJSON,
    answer="`status`: `success`; of a stream what was done, one JSON object a line.",
)
async def create(request: Request) -> JsonResponse[CreateStatus] | EventStream:
    """Make a model of another one: with a system prompt, parameters, turns and a template of its own. Its weights are not copied."""
    body = _with_modelfile(await decode_ollama(request, CreateBody))
    said = await _create(services_of(request), body)
    if body.stream is False:
        return JsonResponse({"status": "success", "notes": said})

    async def lines() -> AsyncGenerator[bytes, None]:
        for status in (*said, "success"):
            yield orjson.dumps({"status": status}) + b"\n"

    return EventStream(lines(), lambda: None, error_line, ping=None, media_type=NDJSON)


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    body=CopyBody,
    example={"source": "tiny", "destination": "tiny-two"},
    answer="Nothing.",
    media_type="text/plain",
)
async def copy(request: Request) -> PlainTextResponse:
    """Give a model another name, an alias in `models.yaml`: nothing is copied, and nothing loaded twice."""
    body = await decode_ollama(request, CopyBody)
    services, alias = services_of(request), without_latest(body.destination)
    await change_models(services, await _copied(services, without_latest(body.source), alias))
    return PlainTextResponse("")


@Operation(
    group=Group.OLLAMA,
    scope=Access.ADMIN,
    answer="Nothing: 200 where the file was sent, 404 where it was not.",
    media_type="text/plain",
)
async def has_blob(request: Request) -> Response:
    """Whether a file of this digest was sent, and no model made of it yet."""
    found = await _blobs(services_of(request)).has(request.path_params["digest"])
    return PlainTextResponse("", 200 if found else 404)


@Operation(group=Group.OLLAMA, scope=Access.ADMIN, answer="Nothing.", media_type="text/plain", status=201)
async def take_blob(request: Request) -> PlainTextResponse:
    """Take in a file, the body, for `/api/create`. It counts only when all of it came and has the digest of the path."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isascii() and length.isdigit() else 0
    await _blobs(services_of(request)).take(request.path_params["digest"], request.stream(), announced)
    return PlainTextResponse("", 201)


def _with_modelfile(body: CreateBody) -> CreateBody:
    """A body with what its Modelfile says."""
    if not body.modelfile:
        return body
    try:
        read = read_modelfile(body.modelfile)
    except ValueError as exc:
        raise InvalidRequest(str(exc), param="modelfile") from None
    if read.adapter is not None:
        raise _unsupported("adapters")
    messages = tuple(
        ModelTurn.model_validate({"role": role, "content": text}) for role, text in read.messages
    )
    said: dict[str, Any] = {
        "base": None if body.files else read.base, "system": read.system, "template": read.template, "messages": messages or None,
        "license": tuple(read.license) or None,
    }  # fmt: skip
    update = {name: value for name, value in said.items() if getattr(body, name) is None}
    return body.model_copy(update=update | {"parameters": {**read.parameters, **(body.parameters or {})}})


async def _create(services: Services, body: CreateBody) -> list[str]:
    """Make a model; what was done."""
    name = without_latest(body.model or body.name or "")
    if not name:
        raise InvalidRequest("Missing required field: model", param="model")
    if body.adapters:
        raise _unsupported("adapters")
    if body.quantize:
        raise _unsupported("quantize")
    try:
        parameters = parameters_of(body.parameters or {})
    except ValueError as exc:
        raise InvalidRequest(str(exc), param="parameters") from None
    said = []
    if body.files:
        base = await _from_file(services, name, body.files)
        said.append(f"taking in the file of {base}")
    elif body.base:
        base = await _known(services, without_latest(body.base))
        said.append(f"using {base}")
    else:
        raise InvalidRequest("Missing required field: from, or files", param="from")
    template = body.template or None
    if template is not None and is_go_template(template):
        await _check_own_template(services, base)
        said.append(
            "the template is written in Go's language and not used: the chat template of the model's file is"
        )
        template = None
    said += [f"the parameter {each} has no effect here" for each in parameters.without_effect]
    said += ["the license is not kept"] if body.license else []
    settings = _settings(base, parameters, body, template)
    await change_models(services, _made(services, name, base, settings))
    return [*said, "writing models.yaml"]


def _settings(
    base: str, parameters: OllamaParameters, body: CreateBody, template: str | None
) -> ModelSettings:
    try:
        return settings_of(
            base,
            parameters,
            system=body.system,
            template=template,
            messages=[turn.model_dump() for turn in body.messages or ()],
        )
    except ValidationError as exc:
        raise complaint(exc.errors(include_url=False)[0]) from None


def _made(services: Services, name: str, base: str, settings: ModelSettings) -> Change:
    """The change that makes a model; of itself it is the model with what is said anew."""
    models = services.model_settings.said.settings.models
    if plain(name) != plain(base):
        return in_turn(drop_alias(name), put_model(name, settings))
    old = models.get(name) or ModelSettings.model_validate({})
    said = {each: getattr(settings, each) for each in settings.model_fields_set - {"base"}}
    for each in ("parameters", "sampling"):
        said[each] = {**getattr(old, each), **said.get(each, {})}
    return put_model(name, old.model_copy(update=said))


async def _copied(services: Services, source: str, alias: str) -> Change:
    said = services.model_settings.said
    known = await _known(services, source)
    if plain(known) == plain(alias):
        raise InvalidRequest(f"'{alias}' is the name of that model already", param="destination")
    found = said.find(source)
    if found is not None and "profiles" in found.layers[0].key:
        layer = found.layers[0]
        fields = {name: getattr(layer.settings, name) for name in layer.settings.model_fields_set}
        made = ModelSettings.model_validate({"from": str(layer.key[1])}).model_copy(update=fields)
        return in_turn(drop_alias(alias), put_model(alias, made))
    return add_alias(known if found is None else str(found.layers[0].key[1]), alias)


async def _known(services: Services, name: str) -> str:
    """The name of a model that there is: an entry of the file, an engine, or a model of the library."""
    registry, library = services.registry, services.library
    if (found := services.model_settings.said.find(name)) is not None:
        root = registry.find(found.root) or await library.look_up(found.root)
        if root is not None:
            return name if "profiles" in found.layers[0].key else str(found.layers[0].key[1])
    elif (engine := registry.find(name)) is not None:
        return engine.engine_id
    elif (model := await library.look_up(name)) is not None:
        return model.name
    raise not_found(registry, name)


async def _check_own_template(services: Services, base: str) -> None:
    """Refuse a Go template where the model's file has no chat template to be used in its place."""
    engine = services.registry.find(base)
    model = (
        None if engine is not None else services.library.find(services.model_settings.said.engine_id_of(base))
    )
    path = Path(engine.config.model_path) if engine is not None else None if model is None else model.path
    if path is None:
        return
    _, card = await services.cards.of(path, services.file_checks()(str(path))) or (None, None)
    if card is not None and not card.chat_template:
        raise UnsupportedFeature(
            "template is written in Go's language, which is not read here, and the model's file has no chat template of its own:"
            " give one in Jinja",
            param="template",
        )


def _blobs(services: Services) -> BlobStore:
    folder = _models_folder(services) / "blobs"
    if services.blobs is None or services.blobs.folder != folder:
        services.blobs = BlobStore(folder)
    return services.blobs


def _models_folder(services: Services) -> Path:
    folders = services.library.folders
    if not folders:
        raise InvalidRequest("there is no folder for models: set library.folders", code="no_models_folder")
    return folders[0]


async def _from_file(services: Services, name: str, files: dict[str, str]) -> str:
    """The name of the model that a sent file becomes."""
    if len(files) != 1:
        raise UnsupportedFeature(f"files must have one GGUF file, not {len(files)}", param="files")
    [digest] = files.values()
    folder, blob = _models_folder(services), _blobs(services).path(digest)
    if not await in_thread(blob.is_file):
        raise InvalidRequest(
            f"the file {digest[:80]} was not sent: POST /api/blobs/{digest[:80]}", param="files"
        )
    path = await in_thread(_place, folder, name, blob)
    await services.library.refresh()
    found = next((model for model in services.library.models if model.path == path), None)
    if found is None:
        raise InvalidRequest(f"the model's file {path.name} cannot be found in {folder}", param="files")
    return found.name


def _place(folder: Path, name: str, blob: Path) -> Path:
    """Move a file to where the library finds it. Blocks."""
    read_headers(blob)  # a damaged one stays where it is
    stem = "-".join(part for part in name.replace(":", "/").split("/") if part)
    candidates: Sequence[Path] = [folder / f"{stem}.gguf", folder / f"{stem}-{blob.name[-12:]}.gguf"]
    path = next((each for each in candidates if not each.exists()), candidates[-1])
    make_folder(folder)
    blob.replace(path)
    return path


def _unsupported(field: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"{field} must be left out: this server makes models of whole files only", param=field
    )
