"""Services of Windows' service control manager, by pywin32."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import shutil
    import subprocess
    import time
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import contextmanager, suppress
    from pathlib import Path, PurePath, PureWindowsPath

    import pywintypes
    import servicemanager
    import typer
    import win32api
    import win32con
    import win32evtlogutil
    import win32security
    import win32service
    import winerror

    from kolosal.config.load import process_environment
    from kolosal.engines.ipc.process_windows import python_program
    from kolosal.service.access import within_a_profile
    from kolosal.service.definition import (
        DESCRIPTION,
        ServiceDefinition,
        ServicePlace,
        name_in_use,
        not_installed,
        not_ours,
    )
    from kolosal.service.errors import ServiceError
    from kolosal.service.tool import last_lines, print_log, quoted_command
    from kolosal.service.windows_paths import (
        CONFIG_FILE,
        LOG_FILE,
        LOG_FOLDER,
        STATE_FOLDER,
    )
    from kolosal.service.windows_supervisor import ServiceState

    _PROGRAM = "kolosal.windows_service"
    _LOCAL_SERVICE = r"NT AUTHORITY\LocalService"
    _WITHOUT_PASSWORD = ("localsystem", "nt authority\\", "nt service\\")
    _LOOK_S = 0.1
    _START_TIMEOUT_S = 150.0
    _STOP_TIMEOUT_S = 3700.0
    _RESTART_AFTER_MS = (5_000, 30_000, 300_000)
    _DAY_S = 86_400
    _KEY = r"SYSTEM\CurrentControlSet\Services"

    def service_folder(name: str) -> Path:
        r"""`C:\ProgramData\Kolosal`, or `C:\ProgramData\Kolosal-name` where the name does not say whose it is."""
        own = name if name.casefold().startswith("kolosal") else f"Kolosal-{name}"
        return Path(process_environment().get("PROGRAMDATA") or r"C:\ProgramData", own)

    class WindowsServices:
        """The service control manager of this machine."""

        def check_rights(self, command: Sequence[str]) -> None:
            """An administrator's."""
            try:
                with _manager(win32service.SC_MANAGER_CREATE_SERVICE):
                    return
            except pywintypes.error as exc:
                if exc.winerror != winerror.ERROR_ACCESS_DENIED:
                    raise ServiceError(
                        f"The service control manager cannot be reached: {exc.strerror}"
                    ) from exc
            program, *arguments = command
            words = quoted_command(arguments)
            raise ServiceError(
                "Services need an administrator: run `Start-Process -Verb RunAs -FilePath"
                f" '{program}' -ArgumentList '{words}'` in PowerShell"
            )

        def folder_of(self, name: str) -> PurePath | None:
            """Where its `config.yaml` is."""
            return service_folder(name)

        def install(self, definition: ServiceDefinition) -> ServicePlace:
            """Register the service, its folders and its source of events; what fails is undone."""
            name, folder = definition.name, service_folder(definition.name)
            account = definition.account or _LOCAL_SERVICE
            password = None
            if not account.casefold().startswith(_WITHOUT_PASSWORD):
                password = typer.prompt(f"Password of {account}", hide_input=True)
            _check_readable(definition, account)
            undo: list[Callable[[], object]] = []
            try:
                with _manager(win32service.SC_MANAGER_CREATE_SERVICE) as manager:
                    if _exists(manager, name):
                        raise name_in_use(name)
                    service = _create(manager, definition, account, password)
                    undo += [lambda: win32service.DeleteService(service)]
                    made: list[Path] = []
                    undo += [lambda: _remove(made)]
                    _make_folders(folder, account, made)
                    _configure(service, definition)
                    undo += [lambda: win32evtlogutil.RemoveSourceFromRegistry(name)]
                    win32evtlogutil.AddSourceToRegistry(name, servicemanager.__file__)
                    _set_environment(name)
            except (pywintypes.error, OSError, ServiceError) as exc:
                for step in reversed(undo):
                    with suppress(pywintypes.error, OSError):
                        step()
                if isinstance(exc, ServiceError):
                    raise
                raise ServiceError(f"The service '{name}' cannot be installed: {exc.strerror}") from exc
            return ServicePlace(
                name, str(folder / CONFIG_FILE), str(folder / STATE_FOLDER), str(folder / LOG_FILE)
            )

        def uninstall(self, name: str, *, keep_state: bool) -> None:
            """Stop it, and remove what was installed and what it wrote."""
            self.stop(name)
            with _service(name, win32con.DELETE | win32service.SERVICE_QUERY_CONFIG) as service:
                win32service.DeleteService(service)
            with suppress(pywintypes.error):
                win32evtlogutil.RemoveSourceFromRegistry(name)
            folder = service_folder(name)
            for part in (LOG_FOLDER, *(() if keep_state else (STATE_FOLDER,))):
                shutil.rmtree(folder / part, ignore_errors=True)
            with suppress(OSError):  # a configuration in it is the operator's
                folder.rmdir()

        def start(self, name: str) -> None:
            """Start it, and wait until it listens."""
            rights = win32service.SERVICE_START | win32service.SERVICE_QUERY_STATUS
            with _service(name, rights) as service:
                try:
                    win32service.StartService(service, None)
                except pywintypes.error as exc:
                    if exc.winerror != winerror.ERROR_SERVICE_ALREADY_RUNNING:
                        raise ServiceError(f"The service '{name}' cannot be started: {exc.strerror}") from exc
                state = _wait(service, ServiceState.START_PENDING, _START_TIMEOUT_S)
            if state is not ServiceState.RUNNING:
                log = service_folder(name) / LOG_FILE
                words = " ".join(last_lines(log, 1))
                raise ServiceError(
                    f"The service '{name}' ended while it was starting ({words}). Its log: {log}"
                )

        def stop(self, name: str) -> None:
            """Stop it, and wait until it has ended."""
            rights = win32service.SERVICE_STOP | win32service.SERVICE_QUERY_STATUS
            with _service(name, rights) as service:
                if _wait(service, ServiceState.START_PENDING, _START_TIMEOUT_S) is ServiceState.STOPPED:
                    return
                try:
                    win32service.ControlService(service, win32service.SERVICE_CONTROL_STOP)
                except pywintypes.error as exc:
                    known = (winerror.ERROR_SERVICE_NOT_ACTIVE, winerror.ERROR_SERVICE_CANNOT_ACCEPT_CTRL)
                    if exc.winerror not in known:
                        raise ServiceError(f"The service '{name}' cannot be stopped: {exc.strerror}") from exc
                state = _wait(service, ServiceState.STOP_PENDING, _STOP_TIMEOUT_S)
                if state is not ServiceState.STOPPED:
                    raise ServiceError(f"The service '{name}' does not stop: it is {state.name}")

        def status(self, name: str) -> int:
            """In the words of `sc query`."""
            with _service(name, win32service.SERVICE_QUERY_STATUS) as service:
                state = ServiceState(win32service.QueryServiceStatusEx(service)["CurrentState"])
            sc = shutil.which("sc.exe") or "sc.exe"
            subprocess.run([sc, "query", name], check=False, stdin=subprocess.DEVNULL)
            return 0 if state is ServiceState.RUNNING else 3

        def logs(self, name: str, *, tail: int, follow: bool) -> None:
            """From its file."""
            with _service(name, win32service.SERVICE_QUERY_STATUS):
                pass
            print_log(service_folder(name) / LOG_FILE, tail=tail, follow=follow, echo=typer.echo)

    @contextmanager
    def _manager(rights: int = win32service.SC_MANAGER_CONNECT) -> Iterator[int]:
        manager = win32service.OpenSCManager(None, None, rights)
        try:
            yield manager
        finally:
            win32service.CloseServiceHandle(manager)

    @contextmanager
    def _service(name: str, rights: int) -> Iterator[int]:
        """One that Kolosal installed."""
        with _manager() as manager:
            try:
                service = win32service.OpenService(manager, name, rights | win32service.SERVICE_QUERY_CONFIG)
            except pywintypes.error as exc:
                if exc.winerror == winerror.ERROR_SERVICE_DOES_NOT_EXIST:
                    raise not_installed(name) from None
                if exc.winerror == winerror.ERROR_ACCESS_DENIED:
                    raise ServiceError(
                        f"The service '{name}' needs an administrator: run this in a PowerShell that was opened with"
                        " `Start-Process -Verb RunAs powershell`"
                    ) from None
                raise ServiceError(f"The service '{name}': {exc.strerror}") from exc
            try:
                if _PROGRAM not in win32service.QueryServiceConfig(service)[3]:
                    raise not_ours(name)
                yield service
            finally:
                win32service.CloseServiceHandle(service)

    def _exists(manager: int, name: str) -> bool:
        try:
            service = win32service.OpenService(manager, name, win32service.SERVICE_QUERY_STATUS)
        except pywintypes.error as exc:
            return bool(exc.winerror != winerror.ERROR_SERVICE_DOES_NOT_EXIST)
        win32service.CloseServiceHandle(service)
        return True

    def _create(manager: int, definition: ServiceDefinition, account: str, password: str | None) -> int:
        python = Path(python_program()[0])
        windowless = python.with_name("pythonw.exe")
        program = str(windowless if windowless.exists() else python)
        # the folder is told, because the manager's processes may have other variables than an administrator's
        named = ("--name", definition.name, "--folder", str(service_folder(definition.name)))
        argv = [program, "-P", "-m", _PROGRAM, *named, *definition.options]
        service: int = win32service.CreateService(
            manager,
            definition.name,
            definition.name,
            win32service.SERVICE_ALL_ACCESS,
            win32service.SERVICE_WIN32_OWN_PROCESS,
            win32service.SERVICE_AUTO_START,
            win32service.SERVICE_ERROR_NORMAL,
            subprocess.list2cmdline(argv),
            None,
            0,
            None,
            account,
            password,
        )
        return service

    def _configure(service: int, definition: ServiceDefinition) -> None:
        actions = [(win32service.SC_ACTION_RESTART, after_ms) for after_ms in _RESTART_AFTER_MS]
        failure = {"ResetPeriod": _DAY_S, "RebootMsg": "", "Command": "", "Actions": actions}
        settings: list[tuple[int, object]] = [
            (win32service.SERVICE_CONFIG_DESCRIPTION, DESCRIPTION),
            (win32service.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, True),
            (win32service.SERVICE_CONFIG_FAILURE_ACTIONS, failure),
            (win32service.SERVICE_CONFIG_FAILURE_ACTIONS_FLAG, True),
            (win32service.SERVICE_CONFIG_PRESHUTDOWN_INFO, definition.stop_s * 1000),
        ]
        for level, value in settings:
            try:
                win32service.ChangeServiceConfig2(service, level, value)
            except pywintypes.error as exc:
                if exc.winerror != winerror.ERROR_INVALID_LEVEL:  # a system that does not know this one
                    raise

    def _set_environment(name: str) -> None:
        """In a virtual environment its own interpreter only starts another one: that one is started, and told so."""
        variables = [f"{variable}={value}" for variable, value in python_program()[1].items()]
        if variables:
            key = win32api.RegOpenKeyEx(
                win32con.HKEY_LOCAL_MACHINE, rf"{_KEY}\{name}", 0, win32con.KEY_SET_VALUE
            )
            win32api.RegSetValueEx(key, "Environment", 0, win32con.REG_MULTI_SZ, variables)
            win32api.RegCloseKey(key)

    def _make_folders(folder: Path, account: str, made: list[Path]) -> None:
        """Administrators' folders, which the account reads, and writes state and logs in; `made` gets those that were not there."""
        for each in (folder, folder / STATE_FOLDER, folder / LOG_FOLDER):
            if not each.is_dir():
                each.mkdir(parents=True)
                made.append(each)
        reads = win32con.GENERIC_READ | win32con.GENERIC_EXECUTE
        _allow_only(folder, account, reads)
        for each in (folder / STATE_FOLDER, folder / LOG_FOLDER):
            _allow_only(each, account, reads | win32con.GENERIC_WRITE | win32con.DELETE)

    def _remove(folders: Sequence[Path]) -> None:
        for each in folders:
            shutil.rmtree(each, ignore_errors=True)

    def _allow_only(folder: Path, account: str, rights: int) -> None:
        """Nothing that everybody has in the folder above is inherited."""
        inherited = win32security.CONTAINER_INHERIT_ACE | win32security.OBJECT_INHERIT_ACE
        whole = win32con.GENERIC_ALL
        administrators = win32security.CreateWellKnownSid(win32security.WinBuiltinAdministratorsSid)
        access = win32security.ACL()
        for sid, mask in (
            (administrators, whole),
            (win32security.CreateWellKnownSid(win32security.WinLocalSystemSid), whole),
            (_sid_of(account), rights),
        ):
            access.AddAccessAllowedAceEx(win32security.ACL_REVISION_DS, inherited, mask, sid)
        win32security.SetNamedSecurityInfo(
            str(folder),
            win32security.SE_FILE_OBJECT,
            win32security.OWNER_SECURITY_INFORMATION
            | win32security.DACL_SECURITY_INFORMATION
            | win32security.PROTECTED_DACL_SECURITY_INFORMATION,
            administrators,
            None,
            access,
            None,
        )

    def _sid_of(account: str) -> object:
        known = {
            "localsystem": win32security.WinLocalSystemSid,
            _LOCAL_SERVICE.casefold(): win32security.WinLocalServiceSid,
        }
        if account.casefold() in known:
            return win32security.CreateWellKnownSid(known[account.casefold()])
        return win32security.LookupAccountName(None, account.removeprefix(".\\"))[0]

    def _wait(service: int, while_in: ServiceState, timeout_s: float) -> ServiceState:
        deadline = time.monotonic() + timeout_s
        while True:
            state = ServiceState(win32service.QueryServiceStatusEx(service)["CurrentState"])
            if state is not while_in or time.monotonic() > deadline:
                return state
            time.sleep(_LOOK_S)

    def _check_readable(definition: ServiceDefinition, account: str) -> None:
        if not account.casefold().startswith("nt "):
            return
        import kolosal  # noqa: PLC0415 - where it lies, not what is in it

        profiles = PureWindowsPath(process_environment().get("PUBLIC") or r"C:\Users\Public").parent
        sources = [python_program()[0], definition.python, kolosal.__file__, definition.config]
        for source in sources:
            profile = None if source is None else within_a_profile(PureWindowsPath(source), profiles)
            if profile is not None:
                raise ServiceError(
                    f"{source} lies in {profile}, which {account} cannot read: install Python and Kolosal for all users,"
                    r" or add --account .\NAME to run the service as that user"
                )
