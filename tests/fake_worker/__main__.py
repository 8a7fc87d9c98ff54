"""`python -m tests.fake_worker --fault crash@5`: a worker process over `FakeBackend`."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys

from kolosal.engines.worker.__main__ import main
from tests.fake_worker.backend import FakeBackend, Faults

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.fake_worker", description=__doc__)
    parser.add_argument("--fault", action="append", default=[], help="what goes wrong, see backend.Faults")
    faults = Faults.parse(parser.parse_args().fault)
    if "ignore_shutdown" in faults.words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # past the frame writer, for a fault that breaks the protocol; `main` takes the pipe itself for its frames
    write_raw = functools.partial(os.write, os.dup(1))
    make = functools.partial(FakeBackend, faults=faults, write_raw=write_raw)
    sys.exit(main(lambda config, on_progress: functools.partial(make, config, on_progress)))
