"""Lists the licences of all that an installed Kolosal consists of, or with --cyclonedx writes its bill of materials (SBOM).

Run it with the Python that has Kolosal. Versions are those of scripts/locks/run.txt; packages of other systems are named, and their
licences are only known there. The exit status is 1 where a package does not say its licence.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOCK = ROOT / "scripts" / "locks" / "run.txt"
UNKNOWN = "unknown"
ELSEWHERE = "not installed here"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")
_LONG = 60  # a whole licence text stands in the field of some


class Component(NamedTuple):
    """One package."""

    name: str
    version: str
    licence: str
    purl: str


BUNDLED = (Component("llama.cpp", "in llama-cpp-python", "MIT", "pkg:github/ggml-org/llama.cpp"),)
"""What packages bring with them."""


def locked(lock: Path) -> list[tuple[str, str]]:
    """Names and versions."""
    found = (_REQUIREMENT.match(line) for line in lock.read_text(encoding="utf-8").splitlines())
    return [(match.group(1), match.group(2)) for match in found if match]


def licence_of(metadata: Any) -> str:
    """As the package says it: as an expression, in its classifiers, or in words."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [each for each in metadata.get_all("Classifier") or [] if each.startswith("License ::")]
    named = [each.rpartition(" :: ")[2] for each in classifiers if not each.endswith("OSI Approved")]
    if named:
        return ", ".join(named)
    words = str(metadata.get("License") or "").strip()
    return words if 0 < len(words) <= _LONG and "\n" not in words else UNKNOWN


def components(lock: Path) -> list[Component]:
    """All of the lock, and Kolosal."""
    found = []
    for name, version in [("kolosal", importlib.metadata.version("kolosal")), *locked(lock)]:
        try:
            licence = licence_of(importlib.metadata.metadata(name))
        except importlib.metadata.PackageNotFoundError:
            licence = ELSEWHERE
        found.append(Component(name, version, licence, f"pkg:pypi/{name.lower()}@{version}"))
    return [*found, *BUNDLED]


def table(found: Sequence[Component]) -> str:
    """For people."""
    widths = [max(len(each[column]) for each in found) for column in range(2)]
    return "\n".join(
        f"{each.name:<{widths[0]}}  {each.version:<{widths[1]}}  {each.licence}" for each in found
    )


def cyclonedx(found: Sequence[Component]) -> dict[str, Any]:
    """CycloneDX 1.6."""
    own, *others = [
        {
            "type": "application" if index == 0 else "library",
            "bom-ref": each.purl,
            "name": each.name,
            "version": each.version,
            "purl": each.purl,
            "licenses": [{"license": {"name": each.licence}}],
        }
        for index, each in enumerate(found)
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": others,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parse = argparse.ArgumentParser(prog="scripts/licences.py", description=__doc__.split("\n\n")[0])
    parse.add_argument(
        "--cyclonedx", action="store_true", help="write a bill of materials, as CycloneDX 1.6 in JSON"
    )
    options = parse.parse_args(argv)
    found = components(LOCK)
    print(json.dumps(cyclonedx(found), indent=2) if options.cyclonedx else table(found))
    return int(any(each.licence == UNKNOWN for each in found))


if __name__ == "__main__":
    sys.exit(main())
