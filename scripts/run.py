"""Sets this checkout up if needed and starts the Kolosal daemon.

The first run compiles llama.cpp, which takes a few minutes; later runs start within seconds. Everything is installed
into `.venv` in this folder: delete that to start over.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bootstrap import Goal, Setup
from cli import main_guard
from daemon import Daemon, hints
from environment import ROOT

from kolosal.native.build import this_machines_preset
from kolosal.native.preflight import SetupError, check_port

if TYPE_CHECKING:
    from environment import Contents

EMBEDDED_MODEL = "smollm2"
EXAMPLES = """examples:
  python3 scripts/run.py                                   a 135M model on http://127.0.0.1:8080
  python3 scripts/run.py --preset cuda                     the same on an NVIDIA GPU
  python3 scripts/run.py --model qwen=/models/qwen3.gguf   your own model instead; repeat for more
  python3 scripts/run.py --setup-only                      install and compile, start nothing
"""


def port_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: allowed are 1 to 65535")
    return int(text)


def model_argument(text: str) -> str:
    """ID=PATH with a path that exists, made absolute: the daemon may run elsewhere."""
    name, given, path = text.partition("=")
    if not name or not given or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not ID=PATH, for example qwen=/models/qwen3.gguf")
    absolute = Path(path).expanduser().absolute()
    if not absolute.is_file():
        raise argparse.ArgumentTypeError(f"{name}: there is no file {absolute}")
    return f"{name}={absolute}"


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="scripts/run.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--port", type=port_number, default=8080, help="default: %(default)s")
    parse.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parse.add_argument(
        "--preset",
        default=this_machines_preset(),
        help="how llama.cpp is compiled: cpu, cuda, vulkan, metal or rocm, from CMakePresets.json (default: %(default)s)",
    )
    parse.add_argument(
        "--model",
        dest="models",
        metavar="ID=PATH",
        action="append",
        type=model_argument,
        help="serve this GGUF file under this name instead of the embedded model; may be repeated",
    )
    parse.add_argument("--setup-only", action="store_true", help="do everything but start the daemon")
    return parse


def served(models: list[str] | None, found: Contents) -> list[str]:
    return models or [f"{EMBEDDED_MODEL}={found.model}"]


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    setup = Setup(ROOT, Goal(options.preset, model=not options.models))
    if not options.setup_only:
        check_port(options.host, options.port)
    found = setup.ensure()
    if options.setup_only:
        print("Everything is installed. Start it with: python3 scripts/run.py")
        return 0
    models = served(options.models, found)
    first = models[0].partition("=")[0]
    with Daemon(setup.environment.python, ROOT, options.host, options.port, models) as daemon:
        if daemon.wait_ready():
            print(hints(daemon.url, first), flush=True)
        elif daemon.unready():
            raise SetupError(f"the daemon did not load {', '.join(daemon.names)}; its own words are above")
        return daemon.wait()


if __name__ == "__main__":
    main_guard(main)
