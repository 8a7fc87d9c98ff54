"""Word documents (.docx) as text, by python-docx. Runs in a limited process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NoReturn
from zipfile import BadZipFile

import docx
from docx.document import Document
from docx.opc.exceptions import OpcError
from docx.table import Table, _Cell
from lxml.etree import LxmlError

from kolosal.retrieval.formats.process import serve_format

_MAX_DEPTH = 20
"""Tables within tables that are read."""


def docx_text(data: bytes) -> str:
    """Paragraphs, a line each; rows of tables, their cells with tabs between them.

    Raises:
        ValueError: it is no such document.
    """
    try:
        document = docx.Document(io.BytesIO(data))
        return "\n".join(_lines(document, 0)).strip()
    except (BadZipFile, OpcError, LxmlError, KeyError) as exc:
        raise ValueError(f"it is no Word document that can be read: {exc}") from exc


def _lines(container: Document | _Cell, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"it has tables within tables, more than {_MAX_DEPTH} deep")
    for block in container.iter_inner_content():
        if not isinstance(block, Table):
            yield block.text
            continue
        for row in block.rows:
            yield "\t".join(" ".join(_lines(cell, depth + 1)) for cell in row.cells)


def main() -> NoReturn:
    """Answer requests."""
    serve_format(docx_text, "docx", docx)
