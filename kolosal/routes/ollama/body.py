"""The request fields that `/api/generate` and `/api/chat` share, and what they mean to an engine.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

import orjson
from pydantic import Field

from kolosal.engines.engine import Engine
from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.routes.common.body import NeutralValues, OpenBody
from kolosal.routes.common.fields import BOOLEAN, OBJECT, STRING, ModelName, by_kind
from kolosal.routes.common.json_schema import ANY_OBJECT, JsonSchema, schema_grammar
from kolosal.routes.ollama.keep_alive import KeepAlive
from kolosal.routes.ollama.options import Options
from kolosal.sampling import MAX_LOGPROBS
from kolosal.schema import GenerateRequest, Grammar, Prompt

IGNORED_FIELDS = ("shift",)
"""Context windows are never shifted: an answer ends where its window does."""


Format: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[JsonSchema, OBJECT],
    by_kind('"json" or a JSON schema, an object'),
]


Think: TypeAlias = Annotated[
    Annotated[bool, BOOLEAN] | Annotated[Literal["low", "medium", "high", "max"], STRING],
    by_kind('true, false, "low", "medium", "high" or "max"'),
]


class OllamaBody(OpenBody):
    """Fields of both endpoints. Null is as good as leaving a field out."""

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "images": ([],),
        "width": (0,),
        "height": (0,),
        "steps": (0,),
        "_debug_render_only": (False,),
    }

    model: ModelName | None = None
    """An `engine_id`, perhaps with `:latest`; may be left out only where a default engine is configured."""
    stream: bool | None = None
    """Whether the answer comes in pieces, one JSON object a line; true unless given."""
    format: Format | None = None
    """What the answer must conform to: `json` for any object, or a JSON schema."""
    options: Options | None = None
    """How tokens are chosen."""
    keep_alive: KeepAlive | None = None
    """How long the model stays in memory: seconds, or a duration such as `5m`; 0 frees it after the answer."""
    think: Think | None = None
    """Whether, or how much, the model thinks before it answers, where its chat template can tell it to."""
    logprobs: bool | None = None
    """Whether to report log-probabilities of the answer's tokens."""
    top_logprobs: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    """How many of the most probable tokens to report in each place, up to 20; needs `logprobs`."""
    truncate: bool | None = None
    """Whether a chat that is too long is shortened by its oldest turns; true unless given."""

    @property
    def streams(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.stream is not False

    def to_request(self, prompt: Prompt) -> GenerateRequest:
        """The request as engines know it."""
        self.refuse_unsupported()
        options = self.options or Options()
        sampling = options.to_sampling(self._logprobs())
        return GenerateRequest(prompt, sampling, grammar=self._grammar(), max_context=options.max_context)

    def template_kwargs(self) -> dict[str, bool | int | float | str]:
        """What `think` says, by the names that chat templates know."""
        if self.think is None:
            return {}
        if isinstance(self.think, bool):
            return {"enable_thinking": self.think}
        return {"enable_thinking": True, "reasoning_effort": self.think}

    def check_model(self, engine: Engine, name: str, purpose: str) -> None:
        """Refuse what a loaded model cannot do; `purpose` is what the endpoint is for."""
        info = engine.info
        if info is None:
            return
        if not info.can_generate:
            raise UnsupportedFeature(f'"{name}" does not support {purpose}', param="model")
        if self.think and info.thinking_tags is None:
            raise UnsupportedFeature(f'"{name}" does not support thinking', param="think")

    def _logprobs(self) -> int | None:
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MAX_LOGPROBS:
            raise InvalidRequest(
                f"top_logprobs must be between 0 and {MAX_LOGPROBS}, not {self.top_logprobs}",
                param="top_logprobs",
            )
        return (self.top_logprobs or 0) if self.logprobs else None

    def _grammar(self) -> Grammar | None:
        match self.format:
            case None | "":
                return None
            case "json":
                return schema_grammar(ANY_OBJECT, "format")
            case str():
                shown = orjson.dumps(self.format[:60]).decode()
                raise InvalidRequest(
                    f'invalid format: {shown}; expected "json" or a valid JSON Schema object', param="format"
                )
        return schema_grammar(self.format, "format")
