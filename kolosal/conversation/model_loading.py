"""Loading a model: in a worker process of our own, or from a running daemon. Nothing is ever downloaded."""

from __future__ import annotations

import weakref
from pathlib import Path

from pydantic import TypeAdapter

from kolosal.conversation.local import LocalHost
from kolosal.conversation.model import Model
from kolosal.conversation.parameters import GenerationParameters, loading_parameters
from kolosal.conversation.remote import DaemonHost
from kolosal.conversation.tokenizer import Tokenizer
from kolosal.conversation.yaml_loading import load_model_config
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.errors import ModelFileError
from kolosal.paths import Anywhere, engine_config

_SUFFIX = ".gguf"


def initialize(
    device: str | int = "auto",
    model_id: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    models_dir: str | Path = "models",
    loading: LoadingParameters | None = None,
    command: WorkerCommand | None = None,
) -> tuple[Tokenizer, Model]:
    """Load a model and wait for it. How it generates is said by the `parameters` of `model_config.yaml`.

    `model_id` is the path of a GGUF file or a name in `models_dir`. With `base_url` it is the id of an engine of the daemon
    there, or the path of a file on the daemon's machine, which is added as an engine named after it. `device` is `auto`,
    `cpu`, `cuda`, `cuda:N` or the number of a GPU. `loading` are further loading parameters, `command` another worker program.

    Raises:
        ValueError: `device` or a parameter of `model_config.yaml` is none that can be used.
        ModelFileError: there is no such model.
        KolosalError: it cannot be loaded, or the daemon does not answer.
    """
    if not model_id:
        raise ModelFileError(
            "model_id is empty: give the path of a .gguf file, or set model.id in model_config.yaml",
            param="model_id",
        )
    parameters = GenerationParameters().changed(load_model_config().get("parameters") or {})
    load = loading_parameters(device, loading)
    if base_url is not None:
        host: DaemonHost | LocalHost = _from_daemon(base_url, api_key, model_id, load)
    else:
        host = LocalHost(_config(model_id, Path(models_dir), load), command)
    return Tokenizer(host), Model(host, device=str(device), parameters=parameters)


class AutoModelForCausalLM:
    """Loads a model by the call that users of transformers know."""

    @staticmethod
    def from_pretrained(model_id: str, *, device_map: str | int = "auto", **_options: object) -> Model:
        """The model of a GGUF file, see `initialize`; the one that the tokenizer of the same file already uses.

        Further options, such as `torch_dtype`, change nothing: a GGUF file says its own precision.
        """
        return _open(model_id, device_map)[1]


class AutoTokenizer:
    """Loads a tokenizer by the call that users of transformers know."""

    @staticmethod
    def from_pretrained(model_id: str, **_options: object) -> Tokenizer:
        """The tokenizer of a GGUF file; it needs the model loaded, which is loaded once for both."""
        return _open(model_id, "auto")[0]


_opened: weakref.WeakValueDictionary[str, LocalHost] = weakref.WeakValueDictionary()
"""Models in use, by their files, so that a tokenizer and its model share one. One that nobody uses any more is forgotten."""


def _open(model_id: str, device: str | int) -> tuple[Tokenizer, Model]:
    host = _opened.get(model_id)
    if host is None or host.closed:
        tok, model = initialize(device, model_id)
        assert isinstance(model.host, LocalHost)  # noqa: S101 - no daemon was named
        _opened[model_id] = model.host
        return tok, model
    parameters = GenerationParameters().changed(load_model_config().get("parameters") or {})
    return Tokenizer(host), Model(host, device=str(device), parameters=parameters)


def _config(model_id: str, models_dir: Path, parameters: LoadingParameters) -> EngineConfig:
    """The engine of a file: `model_id` itself, or what has that name in `models_dir`."""
    named = models_dir / model_id
    candidates = (Path(model_id), named, named.with_name(named.name + _SUFFIX))
    path = next((path for path in candidates if path.exists()), None)
    if path is None:
        raise ModelFileError(
            f"model_id is {model_id[-100:]!r}, which is neither a file nor a model in {str(models_dir)!r}; nothing is downloaded",
            param="model_id",
            code="model_path_not_found",
        )
    return engine_config(path.stem, str(path), parameters, roots=Anywhere.AT_ALL)


def _from_daemon(base_url: str, api_key: str | None, model_id: str, load: LoadingParameters) -> DaemonHost:
    """An engine of a daemon: the one of that id, else a new one for that file."""
    is_path = model_id.lower().endswith(_SUFFIX)
    host = DaemonHost(base_url, Path(model_id).stem if is_path else model_id, api_key=api_key)
    try:
        if not host.exists():
            if not is_path:
                raise ModelFileError(f"The daemon at {base_url} has no engine {model_id!r}", param="model_id")
            given = TypeAdapter(LoadingParameters).dump_python(load, mode="json", exclude_defaults=True)
            host.add(model_id, given)
    except BaseException:
        host.close()
        raise
    return host
