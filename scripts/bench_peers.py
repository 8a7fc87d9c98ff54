"""Measures our daemon and llama-server in turns, on the same model file, and prints one table of ratios.

llama-server is built once from the llama.cpp that our llama-cpp-python carries. Both get the same threads, the same
number of parallel requests and one KV cache of the same size that all requests share; all else is their default.
Run it with the environment's Python: .venv/bin/python scripts/bench_peers.py
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

import checkout  # noqa: F401 - makes the next ones importable
import psutil
from cli import main_guard
from environment import MODEL_PACKAGE, ROOT, Environment, pip_environment
from gemma import gemma_model
from peers_compare import Side, lines, ratio_table
from peers_rounds import NGRAM_WORKLOADS, Server, document, measure_in_turns
from peers_servers import NGRAM_FLAGS, Limits, our_daemon, peer_server
from rich.console import Console

from kolosal import __version__
from kolosal.bench.errors import BenchError
from kolosal.bench.run import chosen
from kolosal.engines.worker.llamacpp.native import native
from kolosal.native.preflight import SetupError
from kolosal.native.progress import last_words, run_logged

LOG_LINES = 15  # how much of a failed build is shown

CMAKE_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={ROOT / 'scripts' / 'native.cmake'}",
)


def llama_version(pyproject: str) -> str:
    """The llama-cpp-python version that a pyproject.toml pins."""
    dependencies = tomllib.loads(pyproject)["project"]["dependencies"]
    return next(
        str(name).partition("==")[2] for name in dependencies if name.startswith("llama-cpp-python==")
    )


def pinned_llama() -> str:
    return llama_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def built_server(cache: Path) -> Path:
    """llama-server of the pinned llama-cpp-python, compiled once into `cache`."""
    version = pinned_llama()
    folder = cache.resolve() / f"llama-cpp-python-{version}"
    binary = folder / "build" / "bin" / ("llama-server.exe" if sys.platform == "win32" else "llama-server")
    if binary.is_file():
        return binary
    source, build, log = folder / "source", folder / "build", folder / "build.log"
    folder.mkdir(parents=True, exist_ok=True)
    env = _with_build_tools(folder / "tools", log)
    package = ["--no-deps", "--no-binary", "llama-cpp-python", f"llama-cpp-python=={version}"]
    download = [sys.executable, "-m", "pip", "download", *package, "--dest", str(folder)]
    _step(f"llama-cpp-python {version} source", download, env, log)
    with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
        archive.extractall(source, filter="data")
    llama = next(source.glob("*/vendor/llama.cpp"))
    cmake = shutil.which("cmake", path=env["PATH"]) or "cmake"
    configure = [cmake, "-G", "Ninja", "-S", str(llama), "-B", str(build), *CMAKE_FLAGS]
    _step("configure llama.cpp", configure, env, log)
    _step("compile llama-server", [cmake, "--build", str(build), "--target", "llama-server"], env, log)
    return binary


def quantised(model: Path, kind: str, cache: Path) -> Path:
    """The same model in another quantisation, made once."""
    number = getattr(native, f"LLAMA_FTYPE_MOSTLY_{kind}", None)
    if number is None:
        raise SetupError(f"--also-as: llama.cpp has no quantisation {kind}")
    made = cache.resolve() / f"{model.stem}-as-{kind}.gguf"
    if not made.is_file():
        made.parent.mkdir(parents=True, exist_ok=True)
        unfinished = made.with_suffix(".part")
        settings = native.llama_model_quantize_default_params()
        settings.ftype, settings.allow_requantize = number, True
        if native.llama_model_quantize(os.fsencode(model), os.fsencode(unfinished), settings):
            raise SetupError(f"--also-as: {model.name} cannot be made {kind}")
        unfinished.rename(made)
    return made


def _with_build_tools(folder: Path, log: Path) -> dict[str, str]:
    """An environment that has cmake and ninja, from the package index where the system has none."""
    env = pip_environment(os.environ)
    missing = [name for name in ("cmake", "ninja") if shutil.which(name) is None]
    if missing:
        install = [sys.executable, "-m", "pip", "install", "--target", str(folder), *missing]
        _step("build tools", install, env, log)
        env["PYTHONPATH"] = str(folder)  # of the cmake package's launcher
        env["PATH"] = os.pathsep.join([str(folder / "bin"), env.get("PATH", "")])
    return env


def _step(title: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
    if run_logged(title, argv, env, log):
        raise SetupError(f"{title}: failed. The full log is {log}", last_words(log, LOG_LINES))


def embedded_model() -> Path:
    try:
        files = importlib.metadata.files(MODEL_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise SetupError(
        f"{MODEL_PACKAGE} is not installed here: run this with .venv/bin/python, or give --model"
    )


def conditions(options: argparse.Namespace, limits: Limits, binary: Path) -> dict[str, str]:
    """What a reader needs to judge the figures, and to get them again."""
    cores, memory = psutil.cpu_count(logical=False), psutil.virtual_memory().total / 2**30
    shared = f"{limits.threads} threads, {limits.parallel} parallel, {limits.kv_tokens} cells of KV cache"
    commit = _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    return {
        "machine": f"{_processor()}, {cores} cores, {memory:.0f} GiB, {platform.platform()}",
        "ours": f"kolosal {__version__} ({commit}), llama-cpp-python {pinned_llama()}, Python {platform.python_version()}",
        "theirs": f"llama-server {_output([str(binary), '--version'])}",
        "both": f"{limits.model.name}, {shared}",
        "speculation": "off in our engine" if options.no_speculation else "our default",
        "n-gram mode": " ".join(NGRAM_FLAGS),
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, medians of {options.rounds} rounds (least-greatest)",
    }


def _processor() -> str:
    """Its name; where the system's file does not tell, what Python knows."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _output(argv: Sequence[str]) -> str:
    """The first line a command prints, or "unknown"."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    words = (done.stdout + done.stderr).strip().splitlines()
    return words[0] if done.returncode == 0 and words else "unknown"


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    cores = psutil.cpu_count(logical=False) or 1
    parse = argparse.ArgumentParser(prog="scripts/bench_peers.py", description=__doc__.split("\n\n")[0])
    add = parse.add_argument
    add("--model", type=Path, metavar="PATH", help="GGUF file (default: the embedded SmolLM2)")
    add("--gemma", action="store_true", help="the model Gemma 3 270M, which is fetched once")
    add("--threads", type=positive, default=cores, help="of each server (default: %(default)s)")
    add("--parallel", type=positive, default=16, help="requests at once (default: %(default)s)")
    add("--kv-tokens", type=positive, default=20_480, help="cells of each KV cache (default: %(default)s)")
    add("--rounds", type=positive, default=3, help="rounds that count (default: %(default)s)")
    add("--only", metavar="NAME,...", action="append", default=[], help="some workloads only")
    add(
        "--also-as",
        metavar="TYPE",
        action="append",
        default=[],
        help="measure the model as Q8_0, Q4_0, ..., too",
    )
    add("--also-split", action="store_true", help="also meet llama-server without --kv-unified")
    add("--no-warm-up", action="store_true", help="count the first round, too")
    add("--no-speculation", action="store_true", help="load our engine with speculation off")
    add("--llama-server", type=Path, metavar="PATH", help="use this one and build none")
    cache = ROOT / "build" / "peers"
    add("--cache-dir", type=Path, default=cache, help="where it is built (default: build/peers)")
    add("--json", type=Path, metavar="FILE", help="also write every round to this file")
    return parse


def servers(
    options: argparse.Namespace, limits: Limits, binary: Path, stack: ExitStack
) -> dict[Side, Server]:
    """Every server that the chosen workloads need, ready."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kolosal-bench-")))
    speculation = not options.no_speculation
    up = {Side.OURS: stack.enter_context(our_daemon(limits, folder, speculation=speculation))}
    up[Side.THEIRS] = stack.enter_context(peer_server(binary, limits, folder / "peer.log"))
    if options.also_split:
        split = peer_server(binary, limits, folder / "split.log", unified=False)
        up[Side.THEIRS_SPLIT] = stack.enter_context(split)
    if any(workload.name in NGRAM_WORKLOADS for workload in chosen(options.only)):
        ngram = peer_server(binary, limits, folder / "ngram.log", NGRAM_FLAGS)
        up[Side.THEIRS_NGRAM] = stack.enter_context(ngram)
    return up


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    model = (
        options.model or (gemma_model(Environment(ROOT)) if options.gemma else embedded_model())
    ).resolve()
    if not model.is_file():
        raise SetupError(f"--model: there is no file {model}")
    try:
        binary = options.llama_server or built_server(options.cache_dir)
        others = [quantised(model, kind, options.cache_dir) for kind in options.also_as]
        found = [compare(options, each, binary) for each in (model, *others)]
    except BenchError as exc:
        raise SetupError(str(exc)) from exc
    if options.json:
        options.json.write_text(f"[{', '.join(found)}]", encoding="utf-8")
    return 0


def compare(options: argparse.Namespace, model: Path, binary: Path) -> str:
    """Measure all sides with a model, and print the table; returns all figures as JSON."""
    limits = Limits(model, options.threads, options.parallel, options.kv_tokens)
    workloads = chosen(options.only)
    facts = conditions(options, limits, binary)
    seed = SystemRandom().randrange(2**32)
    with ExitStack() as stack:
        up = servers(options, limits, binary, stack)
        tell = functools.partial(print, flush=True)
        measuring = measure_in_turns(
            up, workloads, options.rounds, seed, tell, warm_up=not options.no_warm_up
        )
        rounds = asyncio.run(measuring)
    Console(file=sys.stdout, highlight=False, width=140).print(ratio_table(lines(rounds)))
    print("\n".join(f"{name:<14}{value}" for name, value in facts.items()))
    return document(facts, rounds)


if __name__ == "__main__":
    main_guard(main)
