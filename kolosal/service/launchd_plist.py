"""A service as a property list of launchd. Pure: bytes."""

from __future__ import annotations

import plistlib
from pathlib import PurePath

from kolosal.service.definition import ServiceDefinition

LABEL_PREFIX = "ai.kolosal."


def label_of(name: str) -> str:
    """What launchd calls it."""
    return f"{LABEL_PREFIX}{name}"


def plist_bytes(
    service: ServiceDefinition, state: PurePath | None, config: PurePath | None, log: PurePath
) -> bytes:
    """The property list: an agent of the user who installs it, or with an account a daemon of the system.

    `state` and `config` are folders; None: the user's own.
    """
    environment = {} if state is None else {"KOLOSAL_STATE_DIR": str(state), "HOME": str(state)}
    keys: dict[str, object] = {
        "Label": label_of(service.name),
        "ProgramArguments": [*service.argv],
        "EnvironmentVariables": environment,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": service.stop_s,
        "ProcessType": "Interactive",
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
        "SoftResourceLimits": {"NumberOfFiles": 65536},
    }
    if config is not None:
        keys["WorkingDirectory"] = str(config)
    if service.account is not None:
        keys["UserName"] = service.account
        keys["Umask"] = 0o077
    return plistlib.dumps(keys)
