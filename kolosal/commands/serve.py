"""`kolosal serve`: settings, log and conversation engine made ready, then the daemon until it is told to stop."""

from __future__ import annotations

from collections.abc import Callable

from kolosal.cluster.errors import ClusterError
from kolosal.commands.errors import CommandError
from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration, process_environment
from kolosal.conversation.key_vault import KeyVaultError
from kolosal.conversation.startup import load_conversation
from kolosal.daemon import run
from kolosal.log import configure_logging
from kolosal.supervisor import Supervisor


def serve(
    configuration: Configuration, reread: Callable[[], Configuration], supervisor: Supervisor | None = None
) -> int:
    """Serve in the foreground; the exit status. `reread` gives the configuration as it is later; without a `supervisor` signals
    stop it.

    Raises:
        ConfigError: a file that the settings name cannot be used, or other machines could use the daemon without a key.
        CommandError: the vault did not give the key, or the cluster of the settings cannot be joined.
    """
    settings = configuration.settings
    try:
        configure_logging(settings.logging)
    except OSError as exc:
        origin, reason = configuration.origins["logging.file"], exc.strerror or str(exc)
        raise ConfigError(f"{origin}: cannot log to {settings.logging.file}: {reason}") from exc
    environ = process_environment()
    try:
        conversation = load_conversation(environ)
    except KeyVaultError as exc:
        raise CommandError(str(exc)) from exc
    try:
        return run(
            settings,
            environ,
            conversation=conversation,
            supervisor=supervisor,
            reread=lambda: reread().settings,
            models_file=configuration.models_file,
        )
    except ClusterError as exc:
        raise CommandError(str(exc)) from exc
