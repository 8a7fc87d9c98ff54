"""Preprocessor: frames in → sequences for the engine loop, and calls for `UnaryCalls`.

Runs on the worker's main thread, beside the engine thread: templates are rendered and prompts tokenised while the model
computes. A request that is at fault fails here, before it costs the engine anything.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import TypeVar

from kolosal.chat.formats import ToolFormat, thought_closing
from kolosal.chat.grammar import TurnFacts
from kolosal.chat.reasoning import reasoning_budget
from kolosal.engines.ipc.messages import (
    Abort,
    Compiling,
    FrameError,
    FromWorker,
    Hello,
    Ping,
    SequenceOutput,
    Shutdown,
    StepOutputs,
    Submit,
    UnaryCall,
)
from kolosal.engines.worker.backend import Backend, BackendError, Sampler
from kolosal.engines.worker.constraint import (
    Constraint,
    ConstraintCompiler,
    ConstraintFailed,
    Wanted,
    WantedTurn,
)
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.grammars.checker import GrammarChecker
from kolosal.engines.worker.grammars.compile_queue import CompileQueue
from kolosal.engines.worker.infill import infill_tokens
from kolosal.engines.worker.input_checks import begins_with_bos, check_chars, check_tokens
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.pipes import read_frame
from kolosal.engines.worker.result_frames import failed
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.speculative import PromptLookup, Speculator
from kolosal.engines.worker.templates.renderer import TemplateFailed
from kolosal.engines.worker.templates.template import ChatTemplate, n_chars
from kolosal.engines.worker.thought_budget import ThoughtBudget
from kolosal.engines.worker.unary_calls import UnaryCalls
from kolosal.errors import (
    ContextLengthExceeded,
    GenerationFailed,
    InvalidRequest,
    UnsupportedFeature,
)
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    InfillPrompt,
    Prompt,
    TextPrompt,
    TokenDelta,
    TokensPrompt,
    Usage,
)

T = TypeVar("T")

_SEED_STRIDE = 1009
"""How far each generated token moves the seed of a generation that is resumed: further than the choices of one request are
apart."""


class Preprocessor:
    """Turns submitted requests into sequences."""

    def __init__(
        self,
        backend: Backend,
        template: ChatTemplate,
        loop: EngineLoop,
        emit: Callable[[FromWorker], None],
        *,
        speculation: bool,
    ) -> None:
        """`emit` sends a frame and may be called from any thread."""
        self._backend = backend
        self._constraints = ConstraintCompiler(backend.constraint_tokenizer)
        self._compiles = CompileQueue(lambda: GrammarChecker(self._constraints.vocabulary), self._cancelled)
        self._speculates = speculation and backend.can_trim  # rejected draft tokens are cut off again
        self._template = template
        self._loop = loop
        self._emit = emit
        self._unary_calls = UnaryCalls(backend, self._written, emit)

    def serve(self, pipe: io.BufferedReader) -> bool:
        """Handle frames until told to shut down (True) or the daemon is gone (False).

        Raises:
            FrameError: the daemon sent what is no frame.
        """
        while (frame := read_frame(pipe)) is not None:
            match frame:
                case Submit():
                    self._submit(frame)
                case UnaryCall(request_id=request_id, call=call):
                    self._unary_calls.start(request_id, call)
                case Abort(request_id=request_id):
                    self._unary_calls.cancel(request_id)
                    if not self._compiles.cancel(request_id):
                        self._loop.abort(request_id)
                case Ping():
                    self._loop.ping(frame)
                case Shutdown():
                    return True
                case Hello():
                    raise FrameError("a second hello")
        return False

    def close(self, timeout_s: float) -> bool:
        """Free what calls and grammars have needed; False when that takes longer than it may. Nothing is served any more."""
        closed = [self._unary_calls.close(timeout_s), self._compiles.close(timeout_s)]
        return all(closed)

    def _submit(self, submit: Submit) -> None:
        request_id, generated = submit.request_id, submit.generated
        submit = replace(submit, request=_told(submit.request))
        request = submit.request
        try:
            prompt = self._prompt(request)
            wants_prompt_rows = request.prompt_logprobs and not generated
            if len(prompt) + len(generated) >= self._max_length(prompt, request) and not wants_prompt_rows:
                # `max_tokens` is 0, or the worker before this one died with the last token: nothing is left but its end
                text = self._detokenizer(request, prompt, generated).flush()
                usage = Usage(len(prompt), len(generated))
                end = TokenDelta(text, finish_reason=FinishReason.LENGTH, usage=usage)
                self._emit(StepOutputs((SequenceOutput(request_id, end),)))
                return
            wanted = self._wanted(request, prompt)
            constraint = None if wanted is None else self._constraints.ready(wanted)
            if wanted is None or constraint is not None:
                self._loop.submit(self._sequence(submit, prompt, constraint))
            else:
                job = functools.partial(self._compiled, submit, prompt, wanted)
                self._compiles.put(request_id, _size(wanted), job)
        except Exception as exc:  # noqa: BLE001 - a defect of ours must cost one request, and not the engine
            self._emit(failed(request_id, exc))

    def _compiled(
        self, submit: Submit, prompt: list[int], wanted: Wanted, checker: GrammarChecker
    ) -> Callable[[], None]:
        """What is to be done with a request once its grammar was compiled. Called on a thread of the compile queue.

        The daemon hears of it before and after: a request whose grammar ends the worker is not begun again.
        """
        self._emit(Compiling(submit.request_id, begins=True))
        try:
            constraint = self._constraints.compile(wanted, checker.check)
            sequence = self._sequence(submit, prompt, constraint)
        except Exception as exc:  # noqa: BLE001 - as above
            return functools.partial(self._emit, failed(submit.request_id, exc))
        self._emit(Compiling(submit.request_id, begins=False))
        return functools.partial(self._loop.submit, sequence)

    def _cancelled(self, request_id: int) -> None:
        self._emit(failed(request_id, GenerationFailed("Nobody waits for this text any more")))

    # --- the prompt ---

    def _prompt(self, request: GenerateRequest) -> list[int]:
        """The tokens of a prompt that leaves room for an answer."""
        if not self._backend.info.can_generate:
            raise UnsupportedFeature("This model makes embeddings and cannot generate text", param="model")
        max_context = self._max_context(request)
        prompt = self._tokenize(request.prompt, request.sampling.max_tokens, max_context)
        if not prompt:
            raise InvalidRequest("The prompt is empty", param="prompt")
        if len(prompt) >= max_context:
            raise ContextLengthExceeded.of(len(prompt), max_context)
        return prompt

    def _max_context(self, request: GenerateRequest) -> int:
        """Tokens that the prompt and the answer may have together."""
        n_ctx = self._backend.info.n_ctx
        return n_ctx if request.max_context is None else min(n_ctx, request.max_context)

    def _max_length(self, prompt: list[int], request: GenerateRequest) -> int:
        """Tokens at which a generation ends: with what was asked for, or with the context."""
        max_context, max_tokens = self._max_context(request), request.sampling.max_tokens
        return max_context if max_tokens is None else min(max_context, len(prompt) + max_tokens)

    def _tokenize(
        self, prompt: Prompt, max_tokens: int | None = None, max_context: int | None = None
    ) -> list[int]:
        """The tokens of a prompt. The limits say how much of other files goes into one that fills in the middle."""
        n_ctx = self._backend.info.n_ctx
        match prompt:
            case TextPrompt(text=text):
                check_chars(len(text), n_ctx)
                add_special = not begins_with_bos(text, self._backend)
                return self._backend.tokenize(text, add_special=add_special, parse_special=True)
            case TokensPrompt(tokens=tokens):
                check_tokens(tokens, self._backend.info.n_vocab, "prompt")
                return list(tokens)
            case InfillPrompt():
                return self._infill(prompt, max_tokens, n_ctx if max_context is None else max_context)
            case ChatPrompt():
                return self._through_template(prompt, self._template.tokenize)

    def _through_template(self, prompt: ChatPrompt, work: Callable[[ChatPrompt], T]) -> T:
        check_chars(sum(map(n_chars, prompt.messages)), self._backend.info.n_ctx)
        try:
            return work(prompt)
        except TemplateFailed as exc:
            raise InvalidRequest(str(exc), param="messages") from exc

    def _written(self, prompt: Prompt) -> tuple[str, list[int]]:
        """A prompt as text and as tokens."""
        if isinstance(prompt, ChatPrompt):
            return self._through_template(prompt, self._template.written)
        tokens = self._tokenize(prompt)
        return b"".join(map(self._backend.written, tokens)).decode(errors="replace"), tokens

    def _infill(self, prompt: InfillPrompt, max_tokens: int | None, max_context: int) -> list[int]:
        texts = (
            prompt.prefix,
            prompt.suffix,
            prompt.prompt,
            *(part for file in prompt.extra for part in file),
        )
        check_chars(sum(map(len, texts)), self._backend.info.n_ctx)
        tokenize = functools.partial(self._backend.tokenize, parse_special=False)
        begin = tokenize("", add_special=True)
        room = max_context - min(max_context if max_tokens is None else max_tokens, max_context // 2)
        return infill_tokens(
            prompt, self._backend.fim, begin, functools.partial(tokenize, add_special=False), room
        )

    # --- the sequence ---

    def _sequence(self, submit: Submit, prompt: list[int], constraint: Constraint | None) -> Sequence:
        """A new sequence. What a worker before this one generated is replayed to all that depends on it."""
        request, generated = submit.request, submit.generated
        params = request.sampling
        check_tokens([token for token, _ in params.logit_bias], self._backend.info.n_vocab, "logit_bias")
        check_tokens(generated, self._backend.info.n_vocab, "generated")
        tokens = [*prompt, *generated]
        if constraint is not None:
            try:
                for token in generated:
                    constraint.accept(token)
            except ConstraintFailed as exc:
                raise exc.error from exc
        return Sequence(
            submit.request_id,
            tokens,
            len(prompt),
            max_length=self._max_length(prompt, request),
            sampler=self._sampler(params, prompt, generated),
            text=self._detokenizer(request, prompt, generated),
            ignore_eos=params.ignore_eos,
            priority=request.priority,
            use_cache=request.use_cache,
            cache_scope=request.cache_scope,
            client=request.client,
            speculator=None if constraint is not None else self._speculator(tokens),
            constraint=constraint,
            thoughts=self._thoughts(request, prompt, generated),
            n_top=params.logprobs,
            reports_shown=isinstance(request.prompt, ChatPrompt),
            prompt_logprobs=request.prompt_logprobs,
            n_logged=submit.n_logged,
        )

    def _thoughts(
        self, request: GenerateRequest, prompt: list[int], generated: Seq[int]
    ) -> ThoughtBudget | None:
        """How long a chat's model may think; None where it has no bound, or no thoughts."""
        tags, chat = self._template.thinking_tags, request.prompt
        if tags is None or not isinstance(chat, ChatPrompt):
            return None
        budget = reasoning_budget(request.sampling.reasoning_budget, chat.template_kwargs)
        if budget is None:
            return None
        closing = thought_closing(tags, calls=bool(chat.tool_use.callable))
        thoughts = ThoughtBudget(
            budget,
            tags,
            self._backend.tokenize(closing, add_special=False, parse_special=True),
            in_thoughts=self._template.ends_in_thoughts(chat, prompt),
            channels=self._template.tool_format is ToolFormat.GPT_OSS,
        )
        markers = self._template.markers(chat)
        for token in generated:
            thoughts.push(token, markers.get(token) or self._backend.token_bytes(token))
        return thoughts

    def _detokenizer(self, request: GenerateRequest, prompt: list[int], generated: Seq[int]) -> Detokenizer:
        """The text of an answer; a chat's with what tells thoughts and calls apart from it.

        What was shown of the tokens is not shown again; what was held back still is.
        """
        stops = request.sampling.stop
        if isinstance(request.prompt, ChatPrompt):
            tags = self._template.thinking_tags
            in_thoughts = self._template.ends_in_thoughts(request.prompt, prompt)
            front = tags[0] if in_thoughts and tags is not None else ""
            text = Detokenizer(stops, front=front, markers=self._template.markers(request.prompt))
        else:
            text = Detokenizer(stops)
        for token in generated:
            text.push(text.markers.get(token) or self._backend.token_bytes(token))
        return text

    def _sampler(self, params: SamplingParams, prompt: list[int], generated: Seq[int]) -> Sampler:
        """Draws that were made cannot be made again: their generator is gone, so the seed moves on with the tokens."""
        offset = params.seed_offset + _SEED_STRIDE * len(generated)
        try:
            sampler = self._backend.new_sampler(replace(params, seed_offset=offset), prompt)
        except BackendError as exc:
            raise GenerationFailed(str(exc)) from exc
        for token in generated:
            sampler.accept(token)
        return sampler

    def _wanted(self, request: GenerateRequest, prompt: list[int]) -> Wanted | None:
        """What the text must conform to: a chat's thoughts never to anything, its calls to their tools."""
        template = self._template
        if isinstance(request.prompt, ChatPrompt):
            tool_use = request.prompt.tool_use
            if tool_use.callable or (request.grammar is not None and template.thinking_tags is not None):
                in_thoughts = template.ends_in_thoughts(request.prompt, prompt)
                several_calls = template.shows_several_calls if tool_use.callable else True
                facts = TurnFacts(
                    template.tool_format, template.thinking_tags, in_thoughts, several_calls=several_calls
                )
                return WantedTurn(tool_use, request.grammar, facts)
        return request.grammar

    def _speculator(self, tokens: list[int]) -> Speculator | None:
        if not self._speculates:
            return None
        draft = self._backend.new_draft()
        return Speculator([PromptLookup()] if draft is None else [PromptLookup(), draft], tokens)


def _told(request: GenerateRequest) -> GenerateRequest:
    """The request with a template that is told, where the model may not think at all."""
    chat = request.prompt
    if not isinstance(chat, ChatPrompt) or request.sampling.reasoning_budget != 0:
        return request
    return replace(
        request, prompt=replace(chat, template_kwargs={"enable_thinking": False} | chat.template_kwargs)
    )


def _size(wanted: Wanted) -> int:
    """How long compiling it may take, compared with others: its characters."""
    match wanted:
        case WantedTurn(tool_use=tool_use, answer=answer):
            of_answer = 0 if answer is None else len(answer.source)
            return of_answer + sum(len(str(tool.parameters)) for tool in tool_use.callable)
        case _:
            return len(wanted.source)
