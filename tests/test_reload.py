"""The configuration read again: over HTTP, by SIGHUP, and with what is wrong in it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.config.load import load_settings
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from kolosal.models.settings_file import SettingsFile
from kolosal.reload import Reloader
from tests.e2e.helpers import Daemon, wait_until
from tests.fakes import app_with, http_client
from tests.gguf_files import gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.gguf").write_bytes(gguf())
    path = tmp_path / "config.yaml"
    path.write_text("server: {max_requests: 5}\nmodels: [{id: a, path: a.gguf}]\n", encoding="utf-8")
    return path


def write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


@pytest.fixture
async def app(file: Path, fake_worker: Callable[..., WorkerCommand]) -> AsyncIterator[Starlette]:
    def read() -> Any:
        return load_settings(config_path=file, environ={}).settings

    registry = EngineRegistry(fake_worker())
    app = create_app(read(), registry, model_settings=SettingsFile(file.with_name("models.yaml")))
    services = app.state.services
    services.reload = Reloader(services, read).reload
    yield app
    await registry.close(drain_s=0)


async def reloaded(app: Starlette) -> httpx.Response:
    async with http_client(app) as client:
        return await client.post("/v1/config/reload")


async def test_what_can_hold_does_and_the_rest_is_said(app: Starlette, file: Path) -> None:
    assert (await reloaded(app)).json() == {"applied": [], "needs_restart": [], "failed": []}
    write(file, "server: {max_requests: 1, port: 99}\nactivity: {requests: 7}")
    assert (await reloaded(app)).json() == {
        "applied": ["server.max_requests", "activity.requests", "models[a] removed"],
        "needs_restart": ["server.port"],
        "failed": [],
    }
    services = app.state.services
    place = services.admission.enter(None)
    with pytest.raises(Exception, match="1 requests"):
        services.admission.enter(None)
    place.leave()


async def test_engines_come_go_and_change(app: Starlette, file: Path) -> None:
    write(file, "models: [{id: a, path: a.gguf}, {id: b, path: a.gguf}, {id: c, path: no.gguf}]")
    answer = (await reloaded(app)).json()
    assert answer["applied"] == ["server.max_requests", "models[b] added"]  # a was added at no start here
    assert answer["failed"][0].startswith("models[c]: ")
    write(file, "models: [{id: b, path: a.gguf, pin: true}]")
    assert (await reloaded(app)).json()["applied"] == [
        "models[a] removed",
        "models[c] removed",
        "models[b] replaced",
    ]
    [engine] = app.state.services.registry.list()
    assert (engine.engine_id, engine.rules.pin) == ("b", True)


async def test_models_are_read_again_too(app: Starlette, file: Path) -> None:
    models = file.with_name("models.yaml")
    write(file, "models: [{id: b, path: a.gguf, load_immediately: false}]")
    await reloaded(app)
    registry = app.state.services.registry
    write(models, "models: {b: {alias: x, parameters: {n_ctx: 512}}, c: {from: x, parameters: {n_ctx: 256}}}")
    assert (await reloaded(app)).json()["applied"] == ["models.yaml: b", "models.yaml: c"]
    assert registry.get("x") is registry.get("b")
    assert [registry.get(name).config.parameters.n_ctx for name in "xc"] == [512, 256]
    before = await registry.load("b")
    write(models, "models: {b: {parameters: {n_ctx: 128}}}\ngroups: {g: {models: [b]}}")
    answer = (await reloaded(app)).json()["applied"]
    assert answer == ["models.yaml: b", "models.yaml: c", "models.yaml: g", "b replaced"]
    assert registry.get("b") is not before
    assert registry.get("b").info.n_ctx == 128
    assert [engine.engine_id for engine in registry.list()] == ["b"]  # c, which nobody added, is gone
    write(models, "models: {b: {alias: [y], sampling: {top_p: 5}}}")
    refused = (await reloaded(app)).json()["error"]
    assert refused["message"].startswith(f"{models}:1: models.b.sampling.top_p: must be")
    assert registry.find("y") is None


@pytest.mark.parametrize("text", ["server: {prot: 1}", "server: [", "logging: {level: loud}"])
async def test_what_is_wrong_changes_nothing(app: Starlette, file: Path, text: str) -> None:
    write(file, text)
    refused = await reloaded(app)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_configuration")
    assert str(file) in refused.json()["error"]["message"]
    assert app.state.services.settings.server.max_requests == 5


async def test_without_a_configuration_to_read_that_is_said() -> None:
    assert (await reloaded(app_with())).json()["error"]["code"] == "unsupported_feature"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    daemons: list[Daemon] = []

    def start(*arguments: str) -> Daemon:
        daemons.append(Daemon.start(tmp_path, "--port", "0", *arguments))
        daemons[0].wait_until_listening()
        return daemons[0]

    yield start
    for daemon in daemons:
        daemon.process.kill()
        daemon.process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_sighup_reads_it_again(tmp_path: Path, started: Callable[..., Daemon]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("logging: {level: info}", encoding="utf-8")
    daemon = started()
    config.write_text("logging: {level: info}\nserver: {max_requests: 3}", encoding="utf-8")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config.reloaded applied=\"['server.max_requests']\"" in daemon.log)
    config.write_text("logging: {level: loud}", encoding="utf-8")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config.not_reloaded" in daemon.log)
    assert daemon.stop() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_terminal_that_is_gone_ends_the_daemon(tmp_path: Path) -> None:
    import pty  # noqa: PLC0415 - not on Windows

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(  # noqa: S606 - ourselves
            sys.executable,
            [sys.executable, "-m", "kolosal", "serve", "--port", "0", "--log-file", "log"],
            {
                **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
                "HOME": str(tmp_path),
                "PYTHONPATH": str(Path(__file__).parents[1]),
            },
        )
    said = b""
    while b"listening" not in said:
        said += os.read(terminal, 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert "daemon.stopped" in (tmp_path / "log").read_text(encoding="utf-8")
