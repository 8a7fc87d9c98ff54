"""How conversations are generated: the `parameters` of `model_config.yaml`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from pydantic import TypeAdapter, ValidationError

from kolosal.engines.parameters import LoadingParameters, SplitMode
from kolosal.sampling import ReasoningBudget, RepeatPenalty, SamplingParams, Temperature, TokenLimit, TopP

IGNORED_PARAMETERS = frozenset({"use_cache", "return_dict_in_generate"})
"""Accepted without effect: the KV cache is always used, and what `generate` returns does not vary."""

_MAX_GPU = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParameters:
    """How an answer is sampled, by the names of `model_config.yaml`."""

    max_new_tokens: TokenLimit = 4096
    """Tokens of one generation at most; it also ends where the context window does."""
    temperature: Temperature = 0.7
    top_p: TopP = 0.9
    do_sample: bool = True
    """False takes the most probable token, whatever the temperature."""
    repetition_penalty: RepeatPenalty = 1.0
    """1 is off."""
    reasoning_budget: ReasoningBudget = -1
    """Tokens that the model may think before it answers; 0 none, -1 without a bound."""
    given: tuple[str, ...] = ()
    """Names of those that were given: a model's own defaults take the place of the others."""

    def sampling(self) -> SamplingParams:
        """The same for an engine."""
        return SamplingParams(
            given=tuple(_OF_SAMPLING.get(name, name) for name in self.given),
            temperature=self.temperature if self.do_sample else 0.0,
            top_p=self.top_p,
            repeat_penalty=self.repetition_penalty,
            max_tokens=self.max_new_tokens,
            reasoning_budget=self.reasoning_budget,
        )

    def changed(self, options: Mapping[str, object]) -> GenerationParameters:
        """These with some of them changed; None changes nothing.

        Raises:
            ValueError: an option is unknown, mistyped or out of range; the message names it.
        """
        known = {field.name for field in fields(self)} - {"given"}
        unknown = sorted(options.keys() - known - IGNORED_PARAMETERS)
        if unknown:
            raise ValueError(f"{unknown[0]} is no generation parameter: known are {', '.join(sorted(known))}")
        given = {name: value for name, value in options.items() if name in known and value is not None}
        try:
            checked = _ADAPTER.validate_python(given)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}, not {first['input']!r:.80}") from None
        values = {name: getattr(checked, name) for name in given}
        return replace(self, **values, given=(*self.given, *given))


_OF_SAMPLING = {
    "max_new_tokens": "max_tokens",
    "do_sample": "temperature",
    "repetition_penalty": "repeat_penalty",
}
"""Names of `SamplingParams`, where they are others."""

_ADAPTER = TypeAdapter(GenerationParameters)


def loading_parameters(device: str | int, base: LoadingParameters | None = None) -> LoadingParameters:
    """Loading parameters for a device: `auto`, `cpu`, `cuda`, `cuda:N` or the number of a GPU."""
    base = base or LoadingParameters()
    match str(device).strip().lower().removeprefix("cuda:"):
        case "auto":
            return base
        case "cpu":
            return replace(base, n_gpu_layers=0)
        case "cuda":
            return replace(base, n_gpu_layers=-1, main_gpu_id=0)
        case number if number.isascii() and number.isdigit() and int(number) <= _MAX_GPU:
            return replace(base, n_gpu_layers=-1, main_gpu_id=int(number), split_mode=SplitMode.NONE)
        case _:
            allowed = f"'auto', 'cpu', 'cuda', 'cuda:N' or the number of a GPU up to {_MAX_GPU}"
            raise ValueError(f"device must be {allowed}, not {device!r}")
