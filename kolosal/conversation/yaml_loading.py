"""The four YAML files: where they are found, and what each holds.

`model_config.yaml`, `server_config.yaml`, `azure_config.yaml` and `system_prompt_config.yaml` come with the package; a file of
the same name in the folder `$LLM_SERVER_CONFIG_DIR` takes its place. Files are read when they are asked for, never at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kolosal.config.load import process_environment
from kolosal.conversation.placeholders import resolve
from kolosal.files.regular import FileTooLong, is_regular, read_regular

CONFIG_DIR_VARIABLE = "LLM_SERVER_CONFIG_DIR"
"""The folder whose files take the place of the package's."""

MAX_YAML_BYTES = 1024 * 1024
"""Bytes of one file; bounds what a wrong path can cost."""

MODEL_CONFIG = "model_config.yaml"
SERVER_CONFIG = "server_config.yaml"
AZURE_CONFIG = "azure_config.yaml"
SYSTEM_PROMPTS = "system_prompt_config.yaml"

_PACKAGE_FOLDER = Path(__file__).parent / "yaml_files"


def load_yaml(name: str | Path, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A file's values, placeholders replaced.

    An absolute path is taken as it is. Any other is looked for in `$LLM_SERVER_CONFIG_DIR`, among the package's own files
    and in the current folder, in this order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too long, not YAML, or its root is no mapping.
    """
    environ = process_environment() if environ is None else environ
    path = _find(Path(name), environ)
    try:
        content = read_regular(path, MAX_YAML_BYTES)
    except FileTooLong:
        raise ValueError(
            f"{path} is longer than {MAX_YAML_BYTES} bytes, so it is no configuration file"
        ) from None
    try:
        values = yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError) as exc:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(values, dict):
        raise ValueError(f"{path} must be a mapping of keys to values")  # noqa: TRY004 - a wrong file, not a wrong call
    return resolve(values, environ)


def given_file(name: str, environ: Mapping[str, str]) -> Path | None:
    """The file of that name in `$LLM_SERVER_CONFIG_DIR`; None where there is none."""
    folder = environ.get(CONFIG_DIR_VARIABLE)
    path = Path(folder, name) if folder else None
    return path if path is not None and is_regular(path) else None


def load_model_config(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The section `model` of `model_config.yaml`: `id`, `device` and `parameters`.

    Raises:
        ValueError: the file has no such section.
    """
    return _section(MODEL_CONFIG, "model", environ, required=True)


def load_system_prompt(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The section `system_prompts` of `system_prompt_config.yaml`: a text for each role.

    Raises:
        ValueError: the file has no such section, or a prompt is no text.
    """
    prompts = _section(SYSTEM_PROMPTS, "system_prompts", environ, required=True)
    wrong = next((role for role, prompt in prompts.items() if not isinstance(prompt, str)), None)
    if wrong is not None:
        raise ValueError(f"{SYSTEM_PROMPTS}: system_prompts.{wrong} must be text")
    return prompts


def load_chat_server_config(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The section `server` of `server_config.yaml`: `host`, `port` and `api_key`, as far as they are set."""
    return _section(SERVER_CONFIG, "server", environ)


def load_azure_config(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The section `azure` of `azure_config.yaml`: `key_vault_url` and `api_key_secret_name`, as far as they are set."""
    return _section(AZURE_CONFIG, "azure", environ)


def _section(
    name: str, section: str, environ: Mapping[str, str] | None, *, required: bool = False
) -> dict[str, Any]:
    value = load_yaml(name, environ).get(section)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name}: {section} must be a mapping of keys to values")  # noqa: TRY004 - as above
    return value


def _find(path: Path, environ: Mapping[str, str]) -> Path:
    if path.is_absolute():
        return path
    folder = environ.get(CONFIG_DIR_VARIABLE)
    candidates = [Path(folder, path)] if folder else []
    candidates += [_PACKAGE_FOLDER / path, path]
    found = next((candidate for candidate in candidates if is_regular(candidate)), None)
    if found is None:
        raise FileNotFoundError(f"{path} is in none of {', '.join(str(each.parent) for each in candidates)}")
    return found
