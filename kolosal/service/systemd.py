"""Services of systemd: of the system, or of the user who asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from kolosal.service.access import chain_of, closed_to_others
from kolosal.service.definition import (
    MARK,
    ServiceDefinition,
    ServicePlace,
    name_in_use,
    not_installed,
    not_ours,
)
from kolosal.service.errors import ServiceError
from kolosal.service.systemd_unit import unit_text
from kolosal.service.tool import must, quoted_command, run_tool, show

_BOOTED = Path("/run/systemd/system")
"""Is there where systemd runs the machine (sd_booted)."""
_SYSTEM_UNITS = Path("/etc/systemd/system")
_START_TIMEOUT_S = 150.0
_STOP_TIMEOUT_S = 3700.0


class Systemd:
    """systemd by its own tools."""

    def __init__(self, *, user: bool) -> None:
        self._user = user
        self._scope = ("--user",) if user else ()
        self._units = _user_units() if user else _SYSTEM_UNITS

    def check_rights(self, command: Sequence[str]) -> None:
        """Root for the system's units, a running manager for either."""
        if not _BOOTED.is_dir():
            raise ServiceError(
                "This machine was not started by systemd: start `kolosal serve` by what runs services here"
            )
        if not self._user and os.geteuid() != 0:
            raise ServiceError(
                f"A service of the system needs root: run `sudo {quoted_command(command)}`,"
                " or add --user for one of your own"
            )
        if self._user and run_tool("systemctl", "--user", "show", "--property=Version").returncode != 0:
            raise ServiceError(
                "Your user has no systemd of its own here: log in as that user (not by sudo or su), or"
                " run `sudo loginctl enable-linger $USER` and log in again"
            )

    def folder_of(self, name: str) -> PurePath | None:
        """Where its `config.yaml` is; None: as every `kolosal serve` finds it."""
        return None if self._user else Path("/etc", name)

    def install(self, definition: ServiceDefinition) -> ServicePlace:
        """Write the unit and enable it."""
        name = definition.name
        if self._source(name) is not None:
            raise name_in_use(name)
        if not self._user:
            _check_readable(definition)
        unit = self._units / f"{name}.service"
        try:
            self._units.mkdir(parents=True, exist_ok=True)
            unit.write_text(unit_text(definition, user=self._user), encoding="utf-8")
            self._systemctl("daemon-reload")
            self._systemctl("enable", unit.name)
        except (OSError, ServiceError) as exc:
            with suppress(OSError):
                unit.unlink(missing_ok=True)
            with suppress(ServiceError):
                self._systemctl("daemon-reload")
            raise exc if isinstance(exc, ServiceError) else ServiceError(f"{unit}: {exc.strerror}") from exc
        if self._user:
            return ServicePlace(
                str(unit), "as `kolosal serve` finds it", "your own", f"journalctl {self._journal_of(name)}"
            )
        return ServicePlace(
            str(unit), f"/etc/{name}/config.yaml", f"/var/lib/{name}", f"journalctl {self._journal_of(name)}"
        )

    def uninstall(self, name: str, *, keep_state: bool) -> None:
        """Stop, disable, and remove the unit, what was changed of it, and its folders."""
        unit = self._ours(name)
        self._systemctl("disable", "--now", unit.name, timeout_s=_STOP_TIMEOUT_S)
        if not self._user and not keep_state:
            self._systemctl("clean", "--what=state", unit.name)
        unit.unlink(missing_ok=True)
        shutil.rmtree(unit.with_name(f"{unit.name}.d"), ignore_errors=True)
        self._systemctl("daemon-reload")
        run_tool("systemctl", *self._scope, "reset-failed", unit.name)
        if not self._user:
            with suppress(OSError):  # a configuration in it is the operator's
                Path("/etc", name).rmdir()

    def start(self, name: str) -> None:
        """systemd returns when the daemon has said that it listens."""
        unit = self._ours(name)
        try:
            self._systemctl("start", unit.name, timeout_s=_START_TIMEOUT_S)
        except ServiceError as exc:
            last = run_tool("journalctl", self._journal_of(name), "-n", "3", "-o", "cat").stdout
            words = " ".join(last.split())[-400:]
            raise ServiceError(f"{exc} ({words}). Look at: kolosal service logs") from exc

    def stop(self, name: str) -> None:
        """systemd returns when it has ended."""
        self._systemctl("stop", self._ours(name).name, timeout_s=_STOP_TIMEOUT_S)

    def status(self, name: str) -> int:
        """In systemd's own words."""
        unit = self._ours(name)
        code = show("systemctl", *self._scope, "status", "--no-pager", "--lines=5", unit.name)
        return 0 if code == 0 else 3

    def logs(self, name: str, *, tail: int, follow: bool) -> None:
        """From the journal."""
        self._ours(name)
        options = ("--lines", str(tail), "--no-pager", "--output", "cat", *(("--follow",) if follow else ()))
        show("journalctl", self._journal_of(name), *options)

    def _ours(self, name: str) -> Path:
        source = self._source(name)
        if source is None:
            raise not_installed(name)
        try:
            ours = MARK in source.read_text(encoding="utf-8", errors="replace")
        except OSError as exc:
            raise ServiceError(f"{source}: cannot be read: {exc.strerror}") from exc
        if not ours:
            raise not_ours(name)
        return source

    def _source(self, name: str) -> Path | None:
        """The file of the unit of that name, wherever systemd finds it."""
        unit = self._units / f"{name}.service"
        if unit.exists() or unit.is_symlink():
            return unit
        show_path = ("show", "--property=FragmentPath", "--value", unit.name)
        found = must("systemctl", *self._scope, *show_path).strip()
        return Path(found) if found else None

    def _journal_of(self, name: str) -> str:
        """The option by which the journal shows it. Not `--user`, which leaves out what root's own manager runs."""
        return f"--{'user-unit' if self._user else 'unit'}={name}"

    def _systemctl(self, *arguments: str, timeout_s: float = 60.0) -> None:
        must("systemctl", *self._scope, *arguments, timeout_s=timeout_s)


def _user_units() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "systemd", "user")


def _check_readable(definition: ServiceDefinition) -> None:
    """An account that systemd makes up can read what everybody can."""
    if definition.account is not None:
        return
    import kolosal  # noqa: PLC0415 - where it lies, not what is in it

    sources = (
        Path(definition.python),
        Path(kolosal.__file__),
        *([Path(definition.config)] if definition.config else []),
    )
    for source in sources:
        closed = closed_to_others(chain_of(source))
        if closed is not None:
            owner = os.environ.get("SUDO_USER") or "NAME"
            raise ServiceError(
                f"{closed} cannot be read by the account of the service, which needs {source}: add --account {owner} to run it"
                " as a user who can"
            )
