"""The docstrings under fields, read from the source when the document is built.

Python drops them, and pydantic would have to look for them whenever the package is imported, document or not.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from functools import cache
from itertools import pairwise

from typing_extensions import get_original_bases

_OURS = "kolosal."


class FieldNotes:
    """Reads each source file once; made for one build and thrown away."""

    def __init__(self) -> None:
        self._notes_in = cache(_notes_in)

    def of(self, cls: type) -> dict[str, str]:
        """What is written under the fields of one of our classes, inherited ones included."""
        notes: dict[str, str] = {}
        for base in reversed(get_original_bases(cls)):  # not the MRO: that of a TypedDict knows no bases
            if isinstance(base, type):
                notes |= self.of(base)
        if cls.__module__.startswith(_OURS):
            notes |= self._notes_in(cls.__module__).get(cls.__qualname__, {})
        return notes


def _notes_in(module: str) -> dict[str, dict[str, str]]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # installed without its source: the document says less, nothing else
        return {}
    return {node.name: _notes_of(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _notes_of(node: ast.ClassDef) -> dict[str, str]:
    notes: dict[str, str] = {}
    for statement, after in pairwise(node.body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                notes[name] = re.sub(r"\bNone\b", "null", one_line(text))  # as clients write it
    return notes


def one_line(text: str) -> str:
    """A docstring's paragraph without its line breaks."""
    return " ".join(text.split())
