"""Proves on this machine that `kolosal service` works: installs one, uses it, breaks it, and removes it without a trace.

Run it as root or administrator, with the Python that has Kolosal, and a small model that every user may read. It takes a minute or two:

    python scripts/check_service.py --model /srv/models/small.gguf
    python scripts/check_service.py --model /srv/models/small.gguf --until-reboot    # leaves it installed; then restart the machine
    python scripts/check_service.py --model /srv/models/small.gguf --after-reboot
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "kolosal-check"
ENGINE = "small"
PORT = 18080
DEADLINE_S = 120.0
ANSWER_TOKENS = 120
PROMPT = "Count from one to one hundred in words:"
POWERSHELL = "Mozilla/5.0 (Windows NT; Windows NT 10.0; fr-FR) WindowsPowerShell/5.1.19041.4291"
BASE = f"http://127.0.0.1:{PORT}"

if sys.platform == "win32":
    import winreg

    CONFIG_FOLDER = Path(os.environ["PROGRAMDATA"], NAME)
    STATE_FOLDER = CONFIG_FOLDER
    TRACES: tuple[Path, ...] = (CONFIG_FOLDER,)
    KEYS = (
        rf"SYSTEM\CurrentControlSet\Services\{NAME}",
        rf"SYSTEM\CurrentControlSet\Services\EventLog\Application\{NAME}",
    )

    def daemon_pids() -> list[int]:
        """By its command line: the service manager's tool tells none."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                argv = process.cmdline()
                found += [process.pid] if {"kolosal.windows_service", NAME} <= {*argv} else []
        return found

    def registry_keys() -> list[str]:
        """Those that a service leaves."""
        found = []
        for key in KEYS:
            try:
                winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key).Close()
            except FileNotFoundError:
                continue
            found.append(key)
        return found

else:
    CONFIG_FOLDER = Path("/etc", NAME)
    TRACES = (
        CONFIG_FOLDER,
        Path("/etc/systemd/system", f"{NAME}.service"),
        Path("/etc/systemd/system/multi-user.target.wants", f"{NAME}.service"),
        Path("/var/lib", NAME),
        Path("/var/lib/private", NAME),
    )

    def daemon_pids() -> list[int]:
        """As systemd tells."""
        argv = ["/usr/bin/systemctl", "show", "--property=MainPID", "--value", NAME]
        pid = int(subprocess.run(argv, capture_output=True, check=True).stdout)
        return [pid] if pid else []

    def registry_keys() -> list[str]:
        """There is no registry."""
        return []


class Failed(Exception):
    """A step did not show what it should."""


def expect(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def kolosal(*arguments: str, status: int = 0) -> str:
    """Run a command; what it printed, both streams."""
    argv = [sys.executable, "-m", "kolosal", *arguments]
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.PIPE,
        check=False,
        timeout=300,
    )
    said = done.stdout.decode(errors="replace").strip()
    expect(done.returncode == status, f"kolosal {' '.join(arguments)}: exit status {done.returncode}: {said}")
    return said


def service(verb: str, *arguments: str, status: int = 0) -> str:
    return kolosal("service", verb, "--name", NAME, *arguments, status=status)


def write_config(model: Path, text: str | None = None) -> None:
    CONFIG_FOLDER.mkdir(parents=True, exist_ok=True)
    entry = {"id": ENGINE, "path": str(model), "load_params": {"n_ctx": 1024}}
    config = {"server": {"port": PORT, "shutdown_drain_s": 300}, "models": [entry]}
    (CONFIG_FOLDER / "config.yaml").write_text(json.dumps(config) if text is None else text, encoding="utf-8")


def traces() -> list[str]:
    """What of the service is still there."""
    files = [str(path) for path in TRACES if path.exists() or path.is_symlink()]
    return [*files, *registry_keys(), *(str(process.pid) for process in processes())]


def processes() -> list[psutil.Process]:
    """The daemon of the service, and what it has started."""
    found = [psutil.Process(pid) for pid in daemon_pids()]
    return [*found, *(child for process in found for child in process.children(recursive=True))]


def worker() -> psutil.Process:
    """The process that has the model: what its daemon started, and not what that started in turn."""
    daemon = processes()[0]
    workers = [child for child in daemon.children() if "kolosal.engines.worker" in " ".join(child.cmdline())]
    expect(len(workers) == 1, f"there are {len(workers)} workers")
    return workers[0]


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{BASE}{path}", data, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:  # noqa: S310
        return json.loads(response.read())


def invoke_rest_method(path: str, body: str) -> Any:
    """As Windows PowerShell 5.1 sends it: in Latin-1, and the body only when it is told to go on."""
    data = body.encode("iso-8859-1")
    head = (
        f"POST {path} HTTP/1.1\r\nUser-Agent: {POWERSHELL}\r\nContent-Type: application/json\r\nHost: 127.0.0.1:{PORT}\r\n"
        f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\nConnection: Keep-Alive\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", PORT), DEADLINE_S) as connection:
        reader = connection.makefile("rb")
        connection.sendall(head.encode())
        expect(reader.readline().split()[1] == b"100", "it was not told to go on")
        while reader.readline().strip():
            pass
        connection.sendall(data)
        status = reader.readline().split()[1]
        length = 0
        for line in iter(lambda: reader.readline().strip().lower(), b""):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = reader.read(length).decode()
        reader.close()
    expect(status == b"200", f"{status!r}: {answer}")
    return json.loads(answer)


class Stream(threading.Thread):
    """A streamed completion, read as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.ended = ""
        self.begun = threading.Event()
        self.start()
        expect(self.begun.wait(DEADLINE_S), f"no answer came: {self.ended}")

    def run(self) -> None:
        body = {
            "model": ENGINE,
            "prompt": PROMPT,
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "stream": True,
        }
        request = urllib.request.Request(  # noqa: S310
            f"{BASE}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:  # noqa: S310
                for line in response:
                    self._take(line.decode().strip())
        except (OSError, ValueError) as exc:
            self.ended = self.ended or repr(exc)
        self.begun.set()

    def _take(self, line: str) -> None:
        data = line.removeprefix("data: ")
        if data == line:
            return
        if data == "[DONE]" or "error" in data[:12]:
            self.ended = data
            return
        self.text += "".join(str(choice["text"]) for choice in json.loads(data)["choices"])
        if len(self.text) > 20:
            self.begun.set()

    def whole(self) -> str:
        self.join(DEADLINE_S)
        expect(self.ended == "[DONE]", f"the stream ended with {self.ended or 'nothing'} after {self.text!r}")
        return self.text


def refusals(model: Path) -> str:
    """A port that is taken, and a configuration that does not parse: one sentence, and nothing is left."""
    write_config(model, "server: {port: [\n")
    said = service("install", status=2)
    expect("config.yaml" in said, said)
    write_config(model)
    with socket.create_server(("127.0.0.1", PORT)):
        said = service("install", status=1)
        expect("--port" in said, said)
        taken = said
    shutil.rmtree(CONFIG_FOLDER)
    expect(not traces(), f"left: {traces()}")
    return taken


def install(model: Path) -> str:
    write_config(model)
    service("install")
    said = service("install", status=1)
    expect("uninstall" in said, said)
    return said


def wait_until_loaded() -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_loaded():
        expect(time.monotonic() < deadline, "the model was not loaded")
        time.sleep(0.1)


def is_loaded() -> bool:
    try:
        return bool(ask(f"/engines/{ENGINE}")["status"] == "loaded")
    except OSError:  # it does not listen yet
        return False


def start() -> str:
    begun = time.monotonic()
    service("start")
    took = time.monotonic() - begun
    wait_until_loaded()
    expect(service("status"), "no status")
    owner = processes()[0].username()
    return f"listens {took:.1f} s after `start`, as {owner}"


def chat() -> str:
    question = "Réponds: quelle est la capitale de la France ?"
    messages = [{"role": "user", "content": question}]
    body = json.dumps({"model": ENGINE, "messages": messages, "max_tokens": 12}, ensure_ascii=False)
    answer = invoke_rest_method("/v1/chat/completions", body)
    return f"{answer['choices'][0]['message']['content']!r}"


def kill() -> str:
    """A worker that is killed in the middle of a stream: the stream goes on with the same text."""
    whole = Stream().whole()
    stream = Stream()
    at = len(stream.text)
    worker().kill()
    expect(stream.whole() == whole, f"another text: {stream.text!r}, not {whole!r}")
    return f"killed after {at} of {len(whole)} characters, the text is the same"


def drain() -> str:
    """A stop in the middle of a stream: the stream is finished, what is new is refused, and all processes end."""
    stream = Stream()
    all_processes = processes()
    begun = time.monotonic()
    stopping = threading.Thread(target=service, args=("stop",))
    stopping.start()
    refused = ""
    while stopping.is_alive() and not refused:
        try:
            ask("/v1/completions", {"model": ENGINE, "prompt": "x", "max_tokens": 1})
        except urllib.error.HTTPError as exc:
            refused = str(exc.code)
        except OSError as exc:
            refused = type(exc).__name__
    text = stream.whole()
    stopping.join()
    took = time.monotonic() - begun
    _, alive = psutil.wait_procs(all_processes, timeout=5)
    expect(not alive, f"still there: {alive}")
    expect(service("status", status=3), "no status")
    return f"stream whole ({len(text)} characters), meanwhile {refused}, stopped after {took:.1f} s"


def restart(model: Path) -> str:
    """An engine that was added is there again."""
    service("start")
    wait_until_loaded()
    ask("/engines", {"engine_id": "added", "model_path": str(model), "n_ctx": 512})
    service("restart")
    wait_until_loaded()
    engines = [engine["engine_id"] for engine in ask("/engines")["engines"]]
    expect("added" in engines, f"there are {engines}")
    logged = service("logs", "-n", "200")
    expect("engine" in logged, logged)
    return f"engines {', '.join(engines)}; {len(logged.splitlines())} lines of log"


def reboot() -> str:
    """After the machine was started again: the system has started the service."""
    deadline = time.monotonic() + DEADLINE_S
    while not processes():
        expect(time.monotonic() < deadline, "the service does not run")
        time.sleep(0.2)
    wait_until_loaded()
    return chat()


def uninstall() -> str:
    """With the service running."""
    running = processes()
    service("uninstall")
    _, alive = psutil.wait_procs(running, timeout=5)
    expect(not alive, f"still there: {alive}")
    expect((CONFIG_FOLDER / "config.yaml").exists(), "the operator's configuration is gone")
    shutil.rmtree(CONFIG_FOLDER)
    expect(not traces(), f"left: {traces()}")
    said = service("stop", status=1)
    expect("install" in said, said)
    return "no file, key or process is left"


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="scripts/check_service.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parse.add_argument("--until-reboot", action="store_true", help="leave the service installed")
    parse.add_argument("--after-reboot", action="store_true", help="it is installed: check it and remove it")
    return parse


def main() -> int:
    options = parser().parse_args()
    model = options.model.absolute()
    steps: list[tuple[str, Callable[[], str]]] = [
        ("what cannot be installed", lambda: refusals(model)),
        ("install", lambda: install(model)),
        ("start", start),
        ("chat, as PowerShell 5.1 sends it", chat),
        ("kill a worker", kill),
        ("stop while streaming", drain),
        ("restart", lambda: restart(model)),
    ]
    if options.after_reboot:
        steps = [("started with the system", reboot)]
    if not options.until_reboot:
        steps += [("uninstall", uninstall)]
    for title, step in steps:
        try:
            found = step()
        except (Failed, OSError, ValueError, LookupError, subprocess.SubprocessError, psutil.Error) as exc:
            print(f"FAIL  {title}: {exc!r}", flush=True)
            return 1
        print(f"ok    {title}: {found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
