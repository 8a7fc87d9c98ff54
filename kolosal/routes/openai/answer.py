"""From a decoded OpenAI request to its response: the steps that both endpoints have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from kolosal.engines.parameters import EngineConfig
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.generation import collect_generation, start_generation
from kolosal.routes.openai.encode import Shape, chunk_frames, error_frame, whole_answer
from kolosal.routes.openai.fields import GenerationBody
from kolosal.routes.services import registry_of
from kolosal.schema import GenerateRequest


async def answer(
    request: Request,
    body: GenerationBody,
    prompts: Sequence[GenerateRequest],
    shape_for: Callable[[EngineConfig], Shape],
) -> Response:
    """Generate, and answer whole or as a stream.

    Raises:
        KolosalError: before anything was sent.
        ClientDisconnect: the client left before anything was sent.
    """
    registry = registry_of(request)
    name = body.checked_model(registry.default_engine)
    generation = await start_generation(request, registry, name, prompts)
    config = generation.engine.config
    shape, model = shape_for(config), name or config.engine_id
    if not body.stream:
        return JsonResponse(whole_answer(shape, model, await collect_generation(request, generation)))
    frames = chunk_frames(
        shape, model, generation.deltas(), choices=len(prompts), include_usage=body.include_usage
    )
    return EventStream(frames, generation.abort, error_frame)
