"""DaemonHost: a model of a running daemon, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from kolosal.errors import (
    AuthenticationFailed,
    Conflict,
    ContextLengthExceeded,
    EngineDied,
    Forbidden,
    InvalidRequest,
    KolosalError,
    LoadFailed,
    NotFound,
    QueueFull,
)
from kolosal.event_source import PLAIN, EventStreamError, iter_events
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, TokensPrompt

CONNECT_TIMEOUT_S = 10.0
"""Until the connection is there. For the answer there is no limit: a model may be loaded first."""


class DaemonHost:
    """An engine of a daemon. What the daemon refuses is raised as in an engine of ours; `EngineDied` where it does not answer."""

    def __init__(
        self,
        base_url: str,
        engine_id: str,
        *,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = PLAIN | ({"authorization": f"Bearer {api_key}"} if api_key else {})
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout, transport=transport)
        self._engine_id = engine_id

    @property
    def name(self) -> str:
        return self._engine_id

    def exists(self) -> bool:
        """Whether the daemon has this engine, loaded or not."""
        try:
            self._request("GET", f"/engines/{quote(self._engine_id, safe='')}")
        except NotFound:
            return False
        return True

    def add(self, model_path: str, parameters: dict[str, object]) -> None:
        """Add the engine and wait until it is loaded."""
        body = {"engine_id": self._engine_id, "model_path": model_path, "loading_parameters": parameters}
        self._request("POST", "/engines", body)

    def stream(
        self, prompt: ChatPrompt | TokensPrompt, sampling: SamplingParams
    ) -> Generator[str, None, None]:
        path, body = self._generation(prompt, sampling)
        try:
            with self._http.stream("POST", path, json={**body, "stream": True}) as response:
                if response.is_error:
                    raise _error(response.status_code, response.read())
                for event in iter_events(response):
                    if event.data == "[DONE]":
                        return
                    if text := _piece(_object(event.data)):
                        yield text
        except EventStreamError as exc:
            raise EngineDied(str(exc)) from exc
        except httpx.HTTPError as exc:
            raise self._unreachable(exc) from exc
        raise EngineDied("The daemon ended the answer early")

    def generate(self, prompt: TokensPrompt, sampling: SamplingParams) -> tuple[int, ...]:
        """The daemon tells text and not tokens, so the text is read as tokens again: they may be other ones of the same text."""
        text = "".join(self.stream(prompt, sampling))
        return self.tokenize(text, add_special=False, parse_special=True)

    def render(self, prompt: ChatPrompt) -> str:
        return str(
            self._request("POST", "/apply-template", self._with_model(messages=_messages(prompt)))["prompt"]
        )

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        body = self._with_model(content=text, add_special=add_special, parse_special=parse_special)
        return tuple(map(int, self._request("POST", "/tokenize", body)["tokens"]))

    def detokenize(self, tokens: Sequence[int]) -> str:
        return str(self._request("POST", "/detokenize", self._with_model(tokens=[*tokens]))["content"])

    def close(self) -> None:
        self._http.close()

    def _with_model(self, **fields: object) -> dict[str, Any]:
        return {"model": self._engine_id, **fields}

    def _generation(
        self, prompt: ChatPrompt | TokensPrompt, sampling: SamplingParams
    ) -> tuple[str, dict[str, Any]]:
        body = self._with_model(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            repeat_penalty=sampling.repeat_penalty,
        )
        if isinstance(prompt, TokensPrompt):
            return "/v1/completions", {**body, "prompt": [*prompt.tokens]}
        return "/v1/chat/completions", {**body, "messages": _messages(prompt)}

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as exc:
            raise self._unreachable(exc) from exc
        if response.is_error:
            raise _error(response.status_code, response.content)
        return _object(response.content)

    def _unreachable(self, exc: httpx.HTTPError) -> EngineDied:
        reason = str(exc) or type(exc).__name__
        return EngineDied(f"The daemon at {self._http.base_url} does not answer: {reason}")


def _messages(prompt: ChatPrompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _object(content: str | bytes) -> dict[str, Any]:
    """The JSON object in an answer."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EngineDied("What answers at this address is no daemon")
    return value


def _piece(event: dict[str, Any]) -> str:
    """The text of one event."""
    if "error" in event:
        raise EngineDied(str(event["error"].get("message")))
    choice: dict[str, Any] = next(iter(event.get("choices", ())), {})
    return str(choice.get("text") or choice.get("delta", {}).get("content") or "")


_KINDS: dict[int, type[KolosalError]] = {
    401: AuthenticationFailed,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: QueueFull,
}
"""What a status means; other ones below 500 are an `InvalidRequest`, from there on an `EngineDied`."""


def _error(status: int, content: bytes) -> KolosalError:
    """An error in the daemon's own words."""
    try:
        error = json.loads(content)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"The daemon answered HTTP {status}", None
    if code == "context_length_exceeded":
        return ContextLengthExceeded(message)
    if code == "model_loading_failed":
        return LoadFailed(message)
    server_side = status >= httpx.codes.INTERNAL_SERVER_ERROR
    return _KINDS.get(status, EngineDied if server_side else InvalidRequest)(message)
