"""Intake: frames in → sequences for the engine loop.

Runs on the worker's main thread, beside the engine thread: templates are rendered and prompts tokenised while the model
computes. A request that is at fault fails here, before it costs the engine anything.
"""

from __future__ import annotations

import io

from kolosal.engines.messages import (
    MAX_FRAME_BYTES,
    Abort,
    Failed,
    FrameError,
    Hello,
    SequenceOutput,
    Shutdown,
    StepOutputs,
    Submit,
    ToWorker,
    decode_to_worker,
)
from kolosal.engines.worker.backend import Backend, BackendError
from kolosal.engines.worker.constraint import ConstraintCompiler
from kolosal.engines.worker.detokenize import TextStream
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.outbox import Outbox
from kolosal.engines.worker.sequence import Sequence
from kolosal.engines.worker.speculative import PromptLookup, Speculator
from kolosal.engines.worker.template import ChatTemplate, TemplateFailed
from kolosal.errors import ContextLengthExceeded, GenerationFailed, InvalidRequest, KolosalError
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    TextPrompt,
    TokenDelta,
    Usage,
)

_MAX_BYTES_PER_TOKEN = 1024
"""No token of any vocabulary is longer: a prompt of more bytes than this per cell need not be tokenised to be refused."""


def read_frame(pipe: io.BufferedReader) -> ToWorker | None:
    """The next frame; None at the end of the pipe, which means that the daemon is gone.

    Raises:
        FrameError: the line is no frame.
    """
    line = pipe.readline(MAX_FRAME_BYTES + 1)
    return decode_to_worker(line) if line else None


class Intake:
    """Turns submitted requests into sequences."""

    def __init__(
        self, backend: Backend, template: ChatTemplate, loop: EngineLoop, outbox: Outbox, *, speculation: bool
    ) -> None:
        self._backend = backend
        self._constraints = ConstraintCompiler(backend.constraint_tokenizer)
        self._speculates = speculation and backend.can_trim  # wrong guesses are cut off again
        self._template = template
        self._loop = loop
        self._outbox = outbox

    def serve(self, pipe: io.BufferedReader) -> bool:
        """Handle frames until told to shut down (True) or the daemon is gone (False).

        Raises:
            FrameError: the daemon sent what is no frame.
        """
        while (frame := read_frame(pipe)) is not None:
            match frame:
                case Submit(request_id=request_id, request=request):
                    self._submit(request_id, request)
                case Abort(request_id=request_id):
                    self._loop.abort(request_id)
                case Shutdown():
                    return True
                case Hello():
                    raise FrameError("a second hello")
        return False

    def _submit(self, request_id: int, request: GenerateRequest) -> None:
        try:
            prompt = self._prompt(request)
            if request.sampling.max_tokens == 0:
                self._outbox.put(_nothing_to_generate(request_id, prompt))
            else:
                self._loop.submit(self._sequence(request_id, prompt, request))
        except KolosalError as exc:
            self._outbox.put(Failed(request_id, type(exc).__name__, exc.message, exc.param))

    def _prompt(self, request: GenerateRequest) -> list[int]:
        """The tokens of a prompt that leaves room for an answer."""
        prompt = self._tokenize(request)
        n_ctx = self._backend.info.n_ctx
        if not prompt:
            raise InvalidRequest("The prompt is empty", param="prompt")
        if len(prompt) >= n_ctx:
            raise _too_long(f"{len(prompt)} tokens", n_ctx)
        return prompt

    def _sequence(self, request_id: int, prompt: list[int], request: GenerateRequest) -> Sequence:
        params = request.sampling
        n_ctx = self._backend.info.n_ctx
        max_length = n_ctx if params.max_tokens is None else min(n_ctx, len(prompt) + params.max_tokens)
        constraint = None if request.grammar is None else self._constraints.compile(request.grammar)
        try:
            sampler = self._backend.new_sampler(params, prompt)
        except BackendError as exc:
            raise GenerationFailed(str(exc)) from exc
        return Sequence(
            request_id,
            prompt,
            max_length=max_length,
            sampler=sampler,
            text=TextStream(params.stop),
            ignore_eos=params.ignore_eos,
            priority=request.priority,
            use_cache=request.use_cache,
            cache_scope=request.cache_scope,
            speculator=None if constraint is not None else self._speculator(prompt),
            constraint=constraint,
        )

    def _speculator(self, prompt: list[int]) -> Speculator | None:
        if not self._speculates:
            return None
        draft = self._backend.new_draft()
        return Speculator([PromptLookup()] if draft is None else [PromptLookup(), draft], prompt)

    def _tokenize(self, request: GenerateRequest) -> list[int]:
        n_ctx = self._backend.info.n_ctx
        match request.prompt:
            case TextPrompt(text=text):
                self._check_size(len(text), n_ctx)
                return self._backend.tokenize(text, add_special=True, parse_special=True)
            case ChatPrompt(messages=messages):
                self._check_size(sum(len(message.content) for message in messages), n_ctx)
                try:
                    return self._template.tokenize(messages)
                except TemplateFailed as exc:
                    raise InvalidRequest(str(exc), param="messages") from exc

    @staticmethod
    def _check_size(n_chars: int, n_ctx: int) -> None:
        if n_chars > n_ctx * _MAX_BYTES_PER_TOKEN:
            raise _too_long(f"{n_chars} characters", n_ctx)


def _nothing_to_generate(request_id: int, prompt: list[int]) -> StepOutputs:
    """The answer to `max_tokens` 0: its end, with the size of the prompt."""
    delta = TokenDelta("", finish_reason=FinishReason.LENGTH, usage=Usage(len(prompt), 0))
    return StepOutputs((SequenceOutput(request_id, delta),))


def _too_long(length: str, n_ctx: int) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"The prompt has {length}, but the context window of this engine is {n_ctx} tokens and must hold the answer too"
    )
