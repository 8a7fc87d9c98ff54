"""`POST /infill`: fill in the middle of a file, for editor plug-ins that were written for llama-server.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request

from kolosal.http.decode import RequestBody, decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.generation import start_generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.stream_answer import stream_generation
from kolosal.routes.llama_server.native_body import NativeBody
from kolosal.routes.llama_server.native_encode import NativeAnswer
from kolosal.routes.llama_server.native_generation import NativeRun
from kolosal.routes.openai.encode import error_frame
from kolosal.schema import GenerateRequest, InfillPrompt

MAX_FILES = 1024
"""Other files of one request."""

_MAX_NAME_CHARS = 1024

_UNNAMED = "tmp"
"""The name of a file that has none: llama-server's."""


class ExtraFile(RequestBody):
    """Another file, as context."""

    text: str
    filename: Annotated[str, Field(max_length=_MAX_NAME_CHARS)] | None = None


class InfillBody(NativeBody):
    """A request to fill in the middle. `model` may be left out: then the default engine is asked, or the first."""

    input_prefix: str
    """The text before the gap."""
    input_suffix: str
    """The text after it."""
    input_extra: Annotated[tuple[ExtraFile, ...], Field(max_length=MAX_FILES)] | None = None
    """Other files; of them as much is used as there is room for, the last ones first."""
    prompt: str | None = None
    """The beginning of what fills the gap."""

    def to_request(self) -> GenerateRequest:
        """The request as engines know it."""
        extra = tuple((file.filename or _UNNAMED, file.text) for file in self.input_extra or ())
        prompt = InfillPrompt(self.input_prefix, self.input_suffix, self.prompt or "", extra, "input_suffix")
        return self.request(prompt, self.max_tokens, logprobs=self.n_probs or None)


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=InfillBody,
    example={"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 16},
    answer="What fills the gap, or its pieces.",
)
async def infill(request: Request) -> JsonResponse[NativeAnswer] | EventStream:
    """Fill in the middle."""
    body = await decode(request, InfillBody)
    prompts, texts = [body.to_request()], [body.prompt or ""]
    if body.stream:
        return await stream_generation(
            request,
            body.model or None,
            prompts,
            lambda started: NativeRun(body, started, prompts, texts).frames(tokens=bool(body.return_tokens)),
            error_frame,
        )
    generation = await start_generation(request, body.model or None, prompts)
    [whole] = await generation.finish(NativeRun(body, generation, prompts, texts).whole())
    return JsonResponse(whole)
