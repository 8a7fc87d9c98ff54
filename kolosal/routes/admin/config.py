"""`POST /v1/config/reload`: the configuration read again, without a restart where that is possible."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from kolosal.errors import UnsupportedFeature
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import Reloaded, services_of


def routes() -> list[Route]:
    """The path of this module."""
    return [Route("/v1/config/reload", reload_config, methods=["POST"])]


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    answer="What holds now, what needs a restart, and which engines could not be changed.",
)
async def reload_config(request: Request) -> JsonResponse[Reloaded]:
    """Read the file, the environment and the flags of the start again. A configuration that is wrong changes nothing."""
    reload = services_of(request).reload
    if reload is None:
        raise UnsupportedFeature("This daemon was started without a configuration that can be read again")
    return JsonResponse(await reload())
