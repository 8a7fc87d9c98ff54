"""What an engine over another backend than llama.cpp may be given, seen to before a process is started for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from kolosal.backends.registry import ECHO, TRANSFORMERS, check_backend
from kolosal.backends.transformers.folder import check_folder
from kolosal.backends.transformers.options import TransformersOptions, options_of
from kolosal.engines.parameters import AUTO, BackendOptions, EngineConfig, LoadingParameters
from kolosal.errors import InvalidRequest

_PARAMETERS = {
    ECHO: ("n_ctx", "n_parallel", "seed"),
}
"""Loading parameters that mean something to a backend."""

_QUANTIZERS = ("bitsandbytes", "accelerate")

_OF_OTHERS = ("n_ctx", "n_parallel", "seed", "n_threads", "chat_template", "enable_thinking")


def needs_model(backend: str) -> bool:
    """Whether a backend is known to load a model from a path."""
    return backend == TRANSFORMERS


def backend_config(
    engine_id: str,
    model_path: str,
    parameters: LoadingParameters,
    backend: str,
    options: BackendOptions,
    locate: Callable[[str], Path],
) -> EngineConfig:
    """An engine over a backend. `locate` makes a path of what a client gave. Reads the disk.

    Raises:
        InvalidRequest: there is no such backend, or it knows no such parameter.
        ModelFileError: the path names nothing that may be loaded.
    """
    check_backend(backend)
    _check_parameters(backend, parameters)
    if backend == ECHO:
        if options:
            raise InvalidRequest(f"The backend '{backend}' has no options", param="backend_options")
    elif model_path:
        path = locate(model_path)
        model_path = str(path)
        if backend == TRANSFORMERS:
            _check_quantization(options_of(options))
            check_folder(path, lambda file: locate(str(file)))
    return EngineConfig(engine_id, model_path, parameters, backend, options)


def _check_quantization(options: TransformersOptions) -> None:
    """See that what quantises is installed. Imports nothing."""
    missing = [
        name for name in _QUANTIZERS if options.quantization and importlib.util.find_spec(name) is None
    ]
    if missing:
        raise InvalidRequest(
            f"backend_options.quantization '{options.quantization}' needs the packages {' and '.join(_QUANTIZERS)}, and"
            f" {' and '.join(missing)} is not installed",
            param="backend_options.quantization",
        )


def _check_parameters(backend: str, parameters: LoadingParameters) -> None:
    """Refuse what would have no effect."""
    if parameters.n_ctx == AUTO:
        raise InvalidRequest(f"n_ctx must be a number with the backend '{backend}'", param="n_ctx")
    known, usual = _PARAMETERS.get(backend, _OF_OTHERS), LoadingParameters()
    for field in fields(parameters):
        if field.name not in known and getattr(parameters, field.name) != getattr(usual, field.name):
            raise InvalidRequest(
                f"{field.name} has no effect with the backend '{backend}', which takes {', '.join(known)}",
                param=field.name,
            )
