"""The program that Windows' service control manager starts: `python -m kolosal.windows_service --name NAME`.

The manager is answered on the main thread, and the daemon runs on the service's. All it says goes to its log file; its start, its
end and what ended it, to the system's event log.
"""

# ruff: noqa: PLC0415 - the manager wants an answer before the daemon is imported
from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections import deque
from functools import partial
from pathlib import Path

from kolosal.service.windows_paths import LOG_FILE, STATE_FOLDER

EXIT_FAILED = 1
_MOST_LINES = 20

log = logging.getLogger(__name__)


class LastWords(io.TextIOBase):
    """What a program without a console writes to its streams: the last lines, to find out why it ended."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)

    def writable(self) -> bool:
        """It takes text."""
        return True

    def write(self, text: str) -> int:
        """Keep the lines."""
        self._lines.extend(line for line in text.splitlines() if line.strip())
        return len(text)

    @property
    def last(self) -> str:
        """The last line."""
        return self._lines[-1] if self._lines else ""


def parser() -> argparse.ArgumentParser:
    """The options, as `kolosal service install` writes them."""
    parse = argparse.ArgumentParser(prog="kolosal.windows_service")
    parse.add_argument("--name", required=True)
    parse.add_argument("--folder", type=Path, required=True, help="for its state and logs")
    parse.add_argument("--config", type=Path)
    parse.add_argument("--port", type=int)
    return parse


if sys.platform == "win32":
    import servicemanager
    import win32service
    import win32serviceutil
    import winerror

    from kolosal.service.windows_supervisor import WAIT_HINT_MS, ServiceState, WindowsSupervisor

    class KolosalService(win32serviceutil.ServiceFramework):
        """One service; what is asked of it comes on the main thread."""

        options: argparse.Namespace

        def __init__(self, arguments: list[str]) -> None:
            self._svc_name_ = self.options.name
            super().__init__(arguments)
            self._supervisor = WindowsSupervisor(self._report, self._on_ready)

        def SvcStop(self) -> None:  # noqa: N802 - the names are pywin32's
            """Let running answers finish, then end."""
            self._supervisor.request_stop()

        def SvcShutdown(self) -> None:  # noqa: N802
            """As a stop; comes where there was no time for the earlier notice."""
            self.SvcStop()

        def SvcOtherEx(self, control: int, event_type: int, data: object) -> None:  # noqa: N802
            """The system shuts down, and waits for us."""
            del event_type, data
            if control == win32service.SERVICE_CONTROL_PRESHUTDOWN:
                self.SvcStop()

        def SvcInterrogate(self) -> None:  # noqa: N802
            """How it is."""
            self._supervisor.tell_again()

        def SvcRun(self) -> None:  # noqa: N802
            """All of the service's life."""
            with self._supervisor:
                status = _serve(self.options, self._supervisor)
            if status:
                win32service.SetServiceStatus(
                    self.ssh,
                    (
                        win32service.SERVICE_WIN32_OWN_PROCESS,
                        win32service.SERVICE_STOPPED,
                        0,
                        winerror.ERROR_SERVICE_SPECIFIC_ERROR,
                        status,
                        0,
                        0,
                    ),
                )
            else:
                servicemanager.LogInfoMsg(f"{self._svc_name_} has stopped.")

        def _report(self, state: ServiceState, checkpoint: int) -> None:
            accepted = 0
            if state is ServiceState.RUNNING:
                accepted = (
                    win32service.SERVICE_ACCEPT_STOP
                    | win32service.SERVICE_ACCEPT_SHUTDOWN
                    | win32service.SERVICE_ACCEPT_PRESHUTDOWN
                )
            hint_ms = WAIT_HINT_MS if state.is_pending else 0
            own = win32service.SERVICE_WIN32_OWN_PROCESS
            win32service.SetServiceStatus(self.ssh, (own, int(state), accepted, 0, 0, checkpoint, hint_ms))

        def _on_ready(self, url: str) -> None:
            servicemanager.LogInfoMsg(f"{self._svc_name_} is listening on {url}.")

    def _serve(options: argparse.Namespace, supervisor: WindowsSupervisor) -> int:
        """The daemon, from its settings to its end; the exit status."""
        words = LastWords()
        sys.stdout = sys.stderr = words
        folder: Path = options.folder
        log_file = folder / LOG_FILE
        reason = ""
        try:
            os.chdir(folder)  # where config.yaml is looked for
            status = _run_daemon(options, supervisor, folder)
        except Exception as exc:  # noqa: BLE001 - the end of a program that nobody watches
            status, reason = EXIT_FAILED, f"{type(exc).__name__}: {exc}"
        if status:
            reason = reason or words.last or f"exit status {status}"
            if not logging.getLogger().handlers:
                _log_to(log_file)
            log.error("service.failed", extra={"reason": reason})
            servicemanager.LogErrorMsg(f"{options.name} has ended: {reason}. Its log is {log_file}")
        return status

    def _run_daemon(options: argparse.Namespace, supervisor: WindowsSupervisor, folder: Path) -> int:
        from kolosal.commands.address import daemon_configuration
        from kolosal.commands.serve import serve

        flags = {
            "port": options.port,
            "state_dir": str(folder / STATE_FOLDER),
            "log_file": str(folder / LOG_FILE),
        }
        read = partial(daemon_configuration, options.config, flags)
        return serve(read(), read, supervisor)

    def _log_to(log_file: Path) -> None:
        from kolosal.config.logging import LoggingSettings
        from kolosal.log import configure_logging

        configure_logging(LoggingSettings(file=str(log_file)))

    def main() -> int:
        """Answer the manager until the service has ended."""
        KolosalService.options = parser().parse_args()
        servicemanager.Initialize(KolosalService.options.name, servicemanager.__file__)
        servicemanager.PrepareToHostSingle(KolosalService)
        servicemanager.StartServiceCtrlDispatcher()
        return 0

    if __name__ == "__main__":
        sys.exit(main())
