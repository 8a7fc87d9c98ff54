"""What the daemon takes from the four YAML files when it starts: address, model, prompts, sampling and key.

Blocks on files and, where a vault is configured, on the network, so it runs before the event loop does. A file that cannot be
used is a `ConfigError`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kolosal.config.errors import ConfigError
from kolosal.config.models import ModelEntry
from kolosal.config.server import ServerSettings
from kolosal.config.sources import SettingsSource
from kolosal.conversation.key_vault import load_api_key
from kolosal.conversation.parameters import GenerationParameters, loading_parameters
from kolosal.conversation.yaml_loading import (
    CONFIG_DIR_VARIABLE,
    MODEL_CONFIG,
    SERVER_CONFIG,
    given_file,
    load_azure_config,
    load_chat_server_config,
    load_model_config,
    load_system_prompt,
)

log = logging.getLogger(__name__)

KeySource = Callable[[str, str], str]
"""From the URL of a vault and the name of a secret to its value."""


@dataclass(frozen=True, slots=True)
class ConversationSettings:
    """What the daemon's conversation routes are set to; the package's own files where nothing else is said."""

    system_prompts: Mapping[str, str] = field(default_factory=lambda: load_system_prompt({}))
    """A text for each role; `assistant` and `reviser` are always there."""
    parameters: GenerationParameters = field(default_factory=GenerationParameters)
    api_key: str | None = field(default=None, repr=False)
    """One more key of the daemon, with both scopes; None: there is none of these files."""


def load_conversation(
    environ: Mapping[str, str], key_from_vault: KeySource = load_api_key
) -> ConversationSettings:
    """Prompts, sampling and key; where a vault is configured, its key and not the file's.

    Raises:
        KeyVaultError: the vault did not give the key.
    """
    with _config_errors(environ):
        model, azure = load_model_config(environ), load_azure_config(environ)
        prompts = {**ConversationSettings().system_prompts, **load_system_prompt(environ)}
        parameters = GenerationParameters().changed(model.get("parameters") or {})
    url, secret = azure.get("key_vault_url"), azure.get("api_key_secret_name")
    key = key_from_vault(str(url), str(secret)) if url and secret else client_key(environ)
    if key is None and given_file(SERVER_CONFIG, environ) is not None:
        log.warning("conversation.no_key", extra={"reason": "neither a vault nor server.api_key is set"})
    return ConversationSettings(prompts, parameters, key)


def client_key(environ: Mapping[str, str]) -> str | None:
    """The key with which this machine's commands come to a daemon of these files. One in a vault is not fetched."""
    with _config_errors(environ):
        key = load_chat_server_config(environ).get("api_key")
    return str(key) if key else None


def daemon_source(environ: Mapping[str, str]) -> SettingsSource | None:
    """Settings of the daemon itself: host, port and engine. None where the files say nothing of them."""
    with _config_errors(environ):
        return _source(environ, load_model_config(environ), load_chat_server_config(environ))


@contextlib.contextmanager
def _config_errors(environ: Mapping[str, str]) -> Iterator[None]:
    """What is wrong with a file, as the daemon says that its configuration is wrong."""
    try:
        yield
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{environ.get(CONFIG_DIR_VARIABLE, 'the package')}: {exc}") from exc


def _source(
    environ: Mapping[str, str], model: Mapping[str, Any], server: Mapping[str, Any]
) -> SettingsSource | None:
    """What the files say of the daemon. Those of the package say nothing unless their variables are set."""
    given = {name: server[name] for name in ("host", "port") if server.get(name) is not None}
    try:
        settings = ServerSettings.model_validate(given)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    values = {f"server.{name}": getattr(settings, name) for name in given}
    origins = dict.fromkeys(values, str(given_file(SERVER_CONFIG, environ) or SERVER_CONFIG))
    path = given_file(MODEL_CONFIG, environ)
    if path is None or not str(model.get("id") or "").endswith(".gguf"):
        return SettingsSource(values, origins=origins) if values else None
    file = (
        path.parent / Path(model["id"]).expanduser()
    )  # a relative path starts at the folder of the YAML file
    parameters = loading_parameters(model.get("device") or "auto")
    entry = ModelEntry(id=file.stem, path=str(file), parameters=parameters)
    return SettingsSource(values, (entry,), {**origins, f"models[{entry.id}]": str(path)})
