"""PDF as text, by pypdf. Runs in a limited process."""

from __future__ import annotations

import io
import logging
from typing import NoReturn

import pypdf
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from kolosal.retrieval.formats.limits import check_length
from kolosal.retrieval.formats.process import serve_format


def pdf_text(data: bytes) -> str:
    """The text of all pages, with an empty line between them.

    Raises:
        ValueError: it is no PDF, is locked, or is made of pictures.
    """
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("it is locked with a password")
        pages, n_chars = [], 0
        for page in reader.pages:
            pages.append(page.extract_text().strip())
            n_chars += len(pages[-1])
            check_length(n_chars)
    except PyPdfError as exc:
        raise ValueError(f"it is no PDF that can be read: {exc}") from exc
    if not n_chars:
        raise ValueError("its pages hold no text: a scanned document needs text recognition first")
    return "\n\n".join(page for page in pages if page)


def main() -> NoReturn:
    """Answer requests."""
    logging.disable()  # what it says of faulty files is of no use to anybody here
    serve_format(pdf_text, "pdf", pypdf)
