"""API keys over HTTP: the file of `kolosal keys`, for those who look after a daemon from elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.config.errors import ConfigError
from kolosal.errors import Conflict, InvalidRequest, NotFound, UnsupportedFeature
from kolosal.files.in_thread import in_thread
from kolosal.http.decode import RequestBody, decode
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.access import key_of
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import services_of
from kolosal.security.keys import ALL_SCOPES, KEY_NAME, ApiKey, KeyFile, KeyLimits, Scope


class KeyBody(RequestBody):
    """The key to make."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=64, pattern=KEY_NAME)]
    """What it is called, e.g. for whom it is."""
    scopes: Annotated[tuple[Annotated[Scope, Field(strict=False)], ...], Field(min_length=1, max_length=2)] = (
        Scope.INFERENCE,
    )  # fmt: skip
    """What it allows."""
    limits: KeyLimits | None = None
    """What it may use within a minute and a day. Not given: what the configuration says."""


class KeyEntry(TypedDict):
    """A key, without the key itself."""

    id: str
    name: str
    scopes: list[Scope]
    created: str | None
    """UTC; null for a key of the configuration."""
    limits: KeyLimits | None
    """Its own quotas; null: those of the configuration."""
    from_configuration: bool
    """Whether it stands in the configuration, where only its operator can take it back."""


class KeyList(TypedDict):
    """All keys that are valid now."""

    keys: list[KeyEntry]
    needed: bool
    """Whether requests need one."""


class KeyMade(KeyEntry):
    """A new key."""

    key: str
    """The key itself: it cannot be shown again."""


class KeyRevoked(TypedDict):
    """A key that is no longer valid."""

    id: str
    name: str


class Self(TypedDict):
    """Who asks."""

    needed: bool
    """Whether requests need a key."""
    name: str | None
    """The name of the key that this request has; null where none is needed."""
    scopes: list[Scope]
    """What it may do."""


def routes() -> list[Route]:
    """The paths of this module."""
    return [
        Route("/v1/keys", list_keys),
        Route("/v1/keys", create_key, methods=["POST"]),
        Route("/v1/keys/self", show_self),
        Route("/v1/keys/{name}", revoke_key, methods=["DELETE"]),
    ]


@Operation(group=Group.DAEMON, scope=Access.ADMIN, answer="`keys`, without the keys themselves.")
async def list_keys(request: Request) -> JsonResponse[KeyList]:
    """All API keys: those of the configuration, and those that were made."""
    authenticator = services_of(request).authenticator
    configured = set(authenticator.configured)
    entries = [_entry(key, from_configuration=key in configured) for key in authenticator.keys]
    return JsonResponse({"keys": entries, "needed": authenticator.needed})


@Operation(
    group=Group.DAEMON, scope=Access.ANY_KEY, answer="The name of the key that asks, and what it may do."
)
async def show_self(request: Request) -> JsonResponse[Self]:
    """Who asks, and what is allowed: for pages that show what their key may do."""
    key = key_of(request.scope)
    scopes = sorted(ALL_SCOPES if key is None else key.scopes)
    return JsonResponse(
        {"needed": key is not None, "name": None if key is None else key.name, "scopes": scopes}
    )


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    body=KeyBody,
    example={"name": "laptop", "scopes": ["inference"]},
    status=201,
    answer="The key, once: only its digest is kept.",
)
async def create_key(request: Request) -> JsonResponse[KeyMade]:
    """Make a key. Where there was none, every request needs one from now on."""
    body = await decode(request, KeyBody)
    authenticator = services_of(request).authenticator
    file = _file(request)
    if not authenticator.needed and Scope.ADMIN not in body.scopes:
        raise InvalidRequest(
            "The first key must have the scope 'admin': every request needs a key from then on, and without one of"
            " that scope nobody could look after this daemon over HTTP",
            param="scopes",
        )
    try:
        made, key = await in_thread(file.create, body.name, body.scopes, body.limits)
    except ConfigError as exc:
        raise Conflict(str(exc), param="name") from exc
    return JsonResponse({**_entry(made), "key": key}, status=201)


@Operation(group=Group.DAEMON, scope=Access.ADMIN, answer="Which key was taken back.")
async def revoke_key(request: Request) -> JsonResponse[KeyRevoked]:
    """Take a key back, by its name or id: the next request with it is refused."""
    authenticator = services_of(request).authenticator
    name = request.path_params["name"]
    found = next((key for key in authenticator.keys if name in (key.name, key.id)), None)
    if found is None:
        raise NotFound(f"No key has the name or id {name[:80]!r}", param="name")
    if found in authenticator.configured:
        raise Conflict(
            f"The key {found.name!r} stands in the configuration: take it out there, and restart the daemon",
            param="name",
        )
    others = (key for key in authenticator.keys if key != found)
    if Scope.ADMIN in found.scopes and not any(Scope.ADMIN in key.scopes for key in others):
        raise Conflict(
            f"The key {found.name!r} is the last with the scope 'admin': make another first, or use"
            " `kolosal keys revoke` on the daemon's machine",
            param="name",
        )
    try:
        await in_thread(_file(request).revoke, found.id)
    except ConfigError as exc:
        raise Conflict(str(exc), param="name") from exc
    return JsonResponse({"id": found.id, "name": found.name})


def _file(request: Request) -> KeyFile:
    file = services_of(request).authenticator.file
    if file is None:
        raise UnsupportedFeature(
            "There is no place for keys: set auth.keys_file, because the environment does not tell where home is"
        )
    return file


def _entry(key: ApiKey, *, from_configuration: bool = False) -> KeyEntry:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created": None if key.created is None else key.created.isoformat(),
        "limits": key.limits,
        "from_configuration": from_configuration,
    }
