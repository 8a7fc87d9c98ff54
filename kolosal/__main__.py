"""`python -m kolosal`: the same as the `kolosal` command."""

from __future__ import annotations

from kolosal.cli import app

if __name__ == "__main__":
    app(prog_name="kolosal")
