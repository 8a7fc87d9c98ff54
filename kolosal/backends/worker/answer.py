"""BackendAnswer: one generation of a backend, from a `Submit` frame to its last delta.

Owns what no backend has to: refusals, the context window, `max_tokens`, stop strings, and going on where a worker before this one
died. Writes no frames.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from kolosal.backends.arguments import arguments_of, check_prompt, refuse_unsupported
from kolosal.backends.interface import BackendInterfaceBase, Finish, Messages, Piece
from kolosal.backends.worker.threads_kept import KeptContexts
from kolosal.engines.ipc.messages import Submit
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.errors import ContextLengthExceeded, EngineDied, GenerationFailed, InvalidRequest
from kolosal.schema import ChatPrompt, FinishReason, Prompt, TokenDelta, Usage


def messages_of(
    prompt: Prompt, interface: BackendInterfaceBase, contexts: KeptContexts, thread_id: str = ""
) -> Messages:
    """What a backend is given of a prompt.

    Raises:
        UnsupportedFeature: it takes no such prompts.
    """
    known = check_prompt(prompt, interface.supports, interface.args.backend)
    if isinstance(known, ChatPrompt):
        return contexts.of(thread_id, known.messages).get_local_messages()
    return known.text


class BackendAnswer:
    """The deltas of one generation."""

    def __init__(
        self, submit: Submit, interface: BackendInterfaceBase, contexts: KeptContexts, n_ctx: int
    ) -> None:
        self._submit = submit
        self._interface = interface
        self._contexts = contexts
        self._n_ctx = n_ctx
        self._n_prompt = self._n_cached = self._n_tokens = 0
        self._text = Detokenizer(submit.request.sampling.stop)

    @property
    def usage(self) -> Usage:
        """The tokens so far, those of the worker before included."""
        return Usage(self._n_prompt, self._n_tokens, self._n_cached)

    async def deltas(self) -> AsyncIterator[TokenDelta]:
        """What a daemon is told, a piece at a time; the last has a `finish_reason`.

        Raises:
            KolosalError: the request is refused, or the backend failed.
        """
        request, backend = self._submit.request, self._interface.args.backend
        refuse_unsupported(request, self._interface.supports, backend)
        messages = messages_of(request.prompt, self._interface, self._contexts, request.thread_id)
        arguments = arguments_of(request, self._interface.supports, seed=self._interface.args.parameters.seed)
        most = self._most_tokens(messages, arguments)
        n_sent = len(self._submit.generated)
        if n_sent >= most:
            self._n_tokens = n_sent
            yield TokenDelta("", finish_reason=FinishReason.LENGTH, usage=self.usage)
            return
        if n_sent and not self._interface.can_resume:
            raise EngineDied(
                f"The process of this answer died, and the backend '{backend}' cannot go on with what another one began"
            )
        async with aclosing(self._items(messages, arguments, most)) as items:
            async for item in items:
                delta = self._delta(item, n_sent, most)
                if delta is not None:
                    yield delta
                    if delta.finish_reason is not None:
                        return
        raise GenerationFailed(f"The backend '{backend}' ended its answer without a Finish")

    def _most_tokens(self, messages: Messages, arguments: dict[str, Any]) -> int:
        """Tokens that the answer may have."""
        request = self._submit.request
        self._n_prompt = self._interface.count_tokens(messages, **arguments)
        if not self._n_prompt:
            raise InvalidRequest("The prompt is empty", param="prompt")
        max_context = min(self._n_ctx, request.max_context or self._n_ctx)
        if self._n_prompt >= max_context:
            raise ContextLengthExceeded.of(self._n_prompt, max_context)
        max_tokens = request.sampling.max_tokens
        return int(min(max_context - self._n_prompt, math.inf if max_tokens is None else max_tokens))

    def _items(self, messages: Messages, arguments: dict[str, Any], most: int) -> AsyncGenerator[str, None]:
        return self._interface.inference(
            messages,
            **arguments,
            max_tokens=most,
            stop=self._submit.request.sampling.stop,
            request_id=self._submit.request.thread_id or f"request-{self._submit.request_id}",
            generated=self._submit.generated,
        )

    def _delta(self, item: str, n_sent: int, most: int) -> TokenDelta | None:
        """What an item adds; None where that is nothing, or was sent before."""
        if isinstance(item, Finish):
            usage = item.usage or self.usage
            return TokenDelta(self._text.flush(), finish_reason=FinishReason(item.finish_reason), usage=usage)
        tokens = item.tokens if isinstance(item, Piece) else (0,) * bool(item)
        is_first = not self._n_tokens
        if isinstance(item, Piece) and item.cached_tokens:
            self._n_cached = item.cached_tokens
        self._n_tokens += len(tokens)
        shown = self._text.push(item.encode(errors="replace"))
        if n_sent and self._n_tokens <= n_sent:
            return None
        if self._text.stop is not None:
            return TokenDelta(shown, tokens, FinishReason.STOP, self.usage, stop=self._text.stop)
        if self._n_tokens >= most:
            return TokenDelta(shown + self._text.flush(), tokens, FinishReason.LENGTH, self.usage)
        if not tokens and not shown:
            return None
        return TokenDelta(shown, tokens, usage=self.usage if is_first and tokens else None)
