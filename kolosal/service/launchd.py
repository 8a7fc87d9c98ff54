"""Services of launchd: agents of the user who asks, or daemons of the system."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

import typer

from kolosal.service.definition import ServiceDefinition, ServicePlace, name_in_use, not_installed
from kolosal.service.errors import ServiceError
from kolosal.service.launchd_plist import label_of, plist_bytes
from kolosal.service.tool import must, print_log, quoted_command, run_tool, show


class Launchd:
    """launchd by `launchctl`."""

    def __init__(self, *, user: bool) -> None:
        self._user = user
        home = Path.home()
        self._plists = home / "Library" / "LaunchAgents" if user else Path("/Library/LaunchDaemons")
        self._logs = home / "Library" / "Logs" if user else Path("/Library/Logs")
        self._domain = f"gui/{os.getuid()}" if user else "system"

    def check_rights(self, command: Sequence[str]) -> None:
        """Root for daemons of the system."""
        if not self._user and os.geteuid() != 0:
            raise ServiceError(
                f"A service of the system needs root: run `sudo {quoted_command(command)}`,"
                " or add --user for one of your own"
            )

    def folder_of(self, name: str) -> PurePath | None:
        """Where its `config.yaml` is; None: as every `kolosal serve` finds it."""
        return None if self._user else self._folder(name)

    def install(self, definition: ServiceDefinition) -> ServicePlace:
        """Write the property list; launchd reads it at the next start of the system, or login, or by `start`."""
        name, plist, log = definition.name, self._plist(definition.name), self._log(definition.name)
        if plist.exists():
            raise name_in_use(name)
        if not self._user and definition.account is None:
            raise ServiceError(
                "A service of the system needs an account: add --account NAME, or --user for one of your own"
            )
        folder = None if self._user else self._folder(name)
        state = None if folder is None else folder / "state"
        made = [each for each in (folder, log) if each is not None and not each.exists()]
        try:
            plist.parent.mkdir(parents=True, exist_ok=True)
            if state is not None and definition.account is not None:
                state.mkdir(mode=0o700, parents=True, exist_ok=True)
                log.touch()
                for each in (state, log):
                    shutil.chown(each, definition.account)
            plist.write_bytes(plist_bytes(definition, state, folder, log))
        except (OSError, LookupError) as exc:
            with suppress(OSError):
                plist.unlink(missing_ok=True)
            for each in made if state is not None else ():
                _remove(each)
            raise ServiceError(f"{plist}: cannot be installed: {exc}") from exc
        config = "as `kolosal serve` finds it" if folder is None else str(folder / "config.yaml")
        return ServicePlace(str(plist), config, "your own" if state is None else str(state), str(log))

    def uninstall(self, name: str, *, keep_state: bool) -> None:
        """Stop it, and remove the property list and what it wrote."""
        plist = self._ours(name)
        self.stop(name)
        plist.unlink(missing_ok=True)
        for log in self._logs.glob(f"{label_of(name)}.log*"):
            log.unlink(missing_ok=True)
        if not self._user and not keep_state:
            shutil.rmtree(self._folder(name) / "state", ignore_errors=True)
            with suppress(OSError):  # a configuration in it is the operator's
                self._folder(name).rmdir()

    def start(self, name: str) -> None:
        """Have launchd read it, which starts it."""
        plist = self._ours(name)
        if self._is_loaded(name):
            must("launchctl", "kickstart", self._target(name))
        else:
            must("launchctl", "bootstrap", self._domain, str(plist))

    def stop(self, name: str) -> None:
        """Have launchd forget it until the next login or start, which ends it first."""
        self._ours(name)
        if self._is_loaded(name):
            must("launchctl", "bootout", self._target(name), timeout_s=3700.0)

    def status(self, name: str) -> int:
        """In launchd's own words."""
        self._ours(name)
        return 0 if show("launchctl", "print", self._target(name)) == 0 else 3

    def logs(self, name: str, *, tail: int, follow: bool) -> None:
        """From its file."""
        self._ours(name)
        with suppress(BrokenPipeError):
            print_log(self._log(name), tail=tail, follow=follow, echo=typer.echo)

    def _ours(self, name: str) -> Path:
        plist = self._plist(name)
        if not plist.exists():
            raise not_installed(name)
        return plist

    def _is_loaded(self, name: str) -> bool:
        return run_tool("launchctl", "print", self._target(name)).returncode == 0

    def _target(self, name: str) -> str:
        return f"{self._domain}/{label_of(name)}"

    def _plist(self, name: str) -> Path:
        return self._plists / f"{label_of(name)}.plist"

    def _log(self, name: str) -> Path:
        return self._logs / f"{label_of(name)}.log"

    def _folder(self, name: str) -> Path:
        return Path("/Library/Application Support", label_of(name))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
