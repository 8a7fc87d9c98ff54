"""Ollama's words for the settings of a model: parameters and Modelfiles, read and written. Pure.

https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from kolosal.models.models_file import NamedModel
from kolosal.models.settings import LoadingDefaults, ModelSettings, SamplingDefaults

LOADING = {
    "num_ctx": "n_ctx", "num_batch": "n_batch", "num_gpu": "n_gpu_layers", "main_gpu": "main_gpu_id", "num_thread": "n_threads",
    "use_mmap": "use_mmap",
}  # fmt: skip
"""Loading parameters, by Ollama's names."""

SAMPLING = {
    "num_predict": "max_tokens", "stop": "stop", "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "typical_p": "typical_p", "seed": "seed", "repeat_last_n": "repeat_last_n", "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty", "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta",
}  # fmt: skip
"""Fields of `SamplingParams`, by Ollama's names."""

WITHOUT_EFFECT = frozenset({
    "num_keep", "numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "embedding_only", "use_mlock", "draft_num_predict", "tfs_z",
    "penalize_newline", "num_gqa", "rope_frequency_base", "rope_frequency_scale",
})  # fmt: skip
"""Parameters that Ollama has, or had, and that change nothing here."""

MAX_MODELFILE_CHARS = 1_048_576
"""Characters of a Modelfile."""

_KNOWN_KEYWORDS = frozenset({"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "MESSAGE", "ADAPTER", "LICENSE", "REQUIRES", "RENDERER", "PARSER"})  # fmt: skip

_INTEGERS = frozenset({"top_k", "seed", "repeat_last_n", "mirostat", "num_predict", *LOADING}) - {"use_mmap"}

_GO_TEMPLATE = re.compile(
    r"\{\{-?\s*(\.|\$|if\b|range\b|end\b|else\b|with\b|define\b|template\b|block\b|/\*|(eq|ne|and|or|not|len|slice|json|index)\b[^}]*\.[A-Z])"
)

_loading: TypeAdapter[dict[str, Any]] = TypeAdapter(LoadingDefaults, config=ConfigDict(defer_build=True))
_sampling: TypeAdapter[dict[str, Any]] = TypeAdapter(SamplingDefaults, config=ConfigDict(defer_build=True))


def is_go_template(text: str) -> bool:
    """Whether a template is written in Go's language, as those of Ollama are, and not in Jinja."""
    return "{%" not in text and _GO_TEMPLATE.search(text) is not None


@dataclass(frozen=True, slots=True)
class OllamaParameters:
    """Parameters as they are said here."""

    loading: dict[str, Any]
    sampling: dict[str, Any]
    without_effect: tuple[str, ...]
    """Those that change nothing here."""


def parameters_of(given: Mapping[str, Any]) -> OllamaParameters:
    """Parameters by Ollama's names.

    Raises:
        ValueError: one is unknown, mistyped or out of range; the message is a sentence that names it.
    """
    loading: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    ignored = []
    for name, value in given.items():
        if value is None:
            continue
        if name in LOADING:
            loading[LOADING[name]] = _checked(_loading, name, LOADING[name], value)
        elif name in SAMPLING:
            if name == "num_predict" and isinstance(value, int) and value < 1:
                continue  # to the end of the context window, which is what holds without it
            plain = [value] if name == "stop" and isinstance(value, str) else value
            sampling[SAMPLING[name]] = _checked(_sampling, name, SAMPLING[name], plain)
        elif name in WITHOUT_EFFECT:
            ignored.append(name)
        else:
            known = ", ".join(sorted({*LOADING, *SAMPLING}))
            raise ValueError(f"the parameter {name[:60]!r} is unknown: known are {known}")
    return OllamaParameters(loading, sampling, tuple(ignored))


def _checked(adapter: TypeAdapter[dict[str, Any]], theirs: str, ours: str, value: object) -> Any:
    try:
        return adapter.validate_python({ours: value})[ours]
    except ValidationError as exc:
        said = re.sub(r"^(Value error, )?(Input )?should ", "must ", exc.errors(include_url=False)[0]["msg"])
        raise ValueError(f"the parameter {theirs} {said}, not {value!r:.60}") from None


@dataclass(slots=True)
class Modelfile:
    """What a Modelfile says."""

    base: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    """By Ollama's names."""
    template: str | None = None
    system: str | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)
    adapter: str | None = None
    license: list[str] = field(default_factory=list)


def read_modelfile(text: str) -> Modelfile:
    """A Modelfile.

    Raises:
        ValueError: it cannot be understood; the message says on which line.
    """
    if len(text) > MAX_MODELFILE_CHARS:
        raise ValueError(
            f"the Modelfile has {len(text)} characters, at most {MAX_MODELFILE_CHARS} are allowed"
        )
    read = Modelfile()
    for number, keyword, value in _commands(text):
        try:
            _take(read, keyword, value)
        except ValueError as exc:
            raise ValueError(f"line {number} of the Modelfile: {exc}") from None
    if read.base is None:
        raise ValueError("the Modelfile has no FROM line")
    return read


def _take(read: Modelfile, keyword: str, value: str) -> None:
    match keyword:
        case "FROM":
            read.base = value
        case "PARAMETER":
            name, _, text = value.partition(" ")
            _take_parameter(read.parameters, name.lower(), _unquoted(text.strip()))
        case "TEMPLATE":
            read.template = value
        case "SYSTEM":
            read.system = value
        case "ADAPTER":
            read.adapter = value
        case "LICENSE":
            read.license.append(value)
        case "MESSAGE":
            role, _, content = value.partition(" ")
            if role not in ("system", "user", "assistant"):
                raise ValueError(
                    f"the role of a MESSAGE must be system, user or assistant, not {role[:60]!r}"
                )
            read.messages.append((role, _unquoted(content.strip())))
        case _:
            pass  # REQUIRES, RENDERER and PARSER are for Ollama's own runners


def _take_parameter(parameters: dict[str, Any], name: str, text: str) -> None:
    if name == "stop":
        parameters.setdefault("stop", []).append(text)
        return
    parameters[name] = _value(name, text)


def _value(name: str, text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if name in _INTEGERS else float(text)
    except ValueError:
        if name in LOADING or name in SAMPLING:
            raise ValueError(f"the parameter {name} must be a number, not {text[:60]!r}") from None
        return text


def _commands(text: str) -> Iterable[tuple[int, str, str]]:
    """Line, keyword and value of each command; a value in three quotes may have several lines."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        keyword, _, value = stripped.partition(" ")
        if keyword.upper() not in _KNOWN_KEYWORDS:
            raise ValueError(f"line {number} of the Modelfile: {keyword[:60]!r} is no command of a Modelfile")
        head, quotes, rest = value.strip().partition('"""')
        if quotes and rest.count('"""') == 0:
            parts = [rest]
            for _, more in lines:
                parts.append(more)
                if '"""' in more:
                    break
            else:
                raise ValueError(f'line {number} of the Modelfile: the """ is never closed')
            rest = "\n".join(parts)
        whole = head + rest.rpartition('"""')[0] if quotes else _unquoted(value.strip())
        yield number, keyword.upper(), whole


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' and not text.startswith('"""') else text


# --- writing ---


def written_parameters(model: NamedModel | None, n_ctx: int) -> list[tuple[str, str]]:
    """Names and values of what holds for a model, in Ollama's words."""
    loading = {} if model is None else model.loading
    sampling = {} if model is None else model.sampling
    rows = [("num_ctx", str(n_ctx))]
    rows += [
        (theirs, str(loading[ours]))
        for theirs, ours in LOADING.items()
        if ours in loading and theirs != "num_ctx"
    ]
    for theirs, ours in SAMPLING.items():
        values = sampling.get(ours, ())
        rows += [(theirs, _quoted(each)) for each in (values if isinstance(values, tuple) else (values,))]
    return [(name, value.lower() if value in ("True", "False") else value) for name, value in rows]


def written_modelfile(source: str, model: NamedModel | None, n_ctx: int) -> str:
    """A Modelfile that makes such a model."""
    lines = [f"FROM {source}"]
    lines += [f"PARAMETER {name} {value}" for name, value in written_parameters(model, n_ctx)]
    if model is not None:
        lines += [f'SYSTEM """{model.system}"""'] if model.system else []
        lines += [f"MESSAGE {turn.role} {_triple(turn.content)}" for turn in model.messages]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _triple(text: str) -> str:
    return f'"""{text}"""' if "\n" in text else text


def settings_of(
    base: str | None,
    parameters: OllamaParameters,
    *,
    system: str | None = None,
    template: str | None = None,
    messages: Sequence[Mapping[str, str]] = (),
) -> ModelSettings:
    """Settings of a model that is made of another one.

    Raises:
        ValidationError: a value is out of bounds.
    """
    given: dict[str, Any] = {
        "from": base, "parameters": parameters.loading, "sampling": parameters.sampling, "system": system, "template": template,
        "messages": tuple(messages),
    }  # fmt: skip
    return ModelSettings.model_validate({name: value for name, value in given.items() if value is not None})
