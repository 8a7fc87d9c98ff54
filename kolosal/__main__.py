"""The `kolosal` program, also as `python -m kolosal`: the command line, and Ctrl-C where Python itself would show it.

Imports nothing before it is asked to run: until the command line is there, Ctrl-C ends the process at once.
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` imports others, and Ctrl-C in there would be a traceback
import _thread
import sys

EXIT_INTERRUPTED = 130
_AGAIN_S = 0.01


def main() -> None:
    """Run a command. What is left of Python after it ends undisturbed."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where a shell has us ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.unraisablehook = _interrupt_again
    try:
        from kolosal.cli import app

        signal.signal(signal.SIGINT, before)
        app(prog_name="kolosal")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Where Ctrl-C came in a callback that can raise nothing, as imports have them, it is not shown and lost, but comes again.

    An object whose making was interrupted has not all that its `__del__` looks for: that is not shown either.
    """
    if unraisable.exc_type is AttributeError and getattr(unraisable.object, "__name__", "") == "__del__":
        return
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    import threading

    again = threading.Timer(_AGAIN_S, _thread.interrupt_main)
    again.daemon = True
    again.start()


if __name__ == "__main__":
    main()
