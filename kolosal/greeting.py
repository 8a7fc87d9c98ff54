"""What a daemon without an engine says when it listens: one screen, on where things are and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kolosal.config.settings import Settings


def greeting(settings: Settings, url: str, state: Path | None, folders: Sequence[Path]) -> str:
    """For whoever has just started a daemon for the first time.

    `url` is the address it listens on, which may be all of a machine's; `folders` are those of the library.
    """
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    rows = (
        ("in a browser", f"{url}/ui"),
        ("documentation", f"{url}/docs"),
        ("models", ", ".join(map(str, folders)) or "in no folder of their own"),
        ("remembered", "nothing over restarts" if state is None else str(state)),
        ("log", settings.logging.file or "here"),
        ("settings", "kolosal config show"),
    )
    facts = "".join(f"  {name:<15}{value}\n" for name, value in rows)
    return f"""
{facts}
No model is loaded yet. In another terminal:

  kolosal run hf.co/ORG/REPO      fetch one from Hugging Face, and talk to it
  kolosal run model.gguf          talk to a file that you have
  kolosal list                    the models that are on this machine already
  kolosal doctor                  check this machine, and its GPU
"""
