"""`kolosal doctor`: what will not work on this machine, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import typer

from kolosal.commands.doctor.checks import Verdict, diagnose
from kolosal.commands.doctor.facts import gather

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def doctor(config_path: Path | None) -> bool:
    """Check this machine and print a line for each check; False when something will not work."""
    checks = diagnose(gather(config_path))
    for check in checks:
        mark = typer.style(f"{check.verdict:<4}", fg=_COLOURS[check.verdict])
        advice = f"\n      {'':14} -> {check.advice}" if check.advice else ""
        typer.echo(f"{mark}  {check.name:<14} {check.found}{advice}")
    return all(check.verdict is not Verdict.FAIL for check in checks)
