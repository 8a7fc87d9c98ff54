"""Files that are text as they are: txt, md, csv, json, source code."""

from __future__ import annotations

import codecs
import re
from typing import Final

from kolosal.retrieval.formats.limits import check_length

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_CONTROL: Final = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")
"""What no text has; escape, of coloured logs, and form feed are not among them."""


def decode_text(data: bytes) -> str:
    """The text of a file: UTF-8, or what its byte order mark says.

    Raises:
        ValueError: it is no text, or a longer one than may be.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as exc:
        raise ValueError(
            f"it is not text in UTF-8: byte {exc.start} is {data[exc.start] if exc.start < len(data) else 0:#04x}"
        ) from None
    found = _CONTROL.search(text)
    if found is not None:
        raise ValueError(f"it is not text: it holds the control character U+{ord(found[0]):04X}")
    check_length(len(text))
    return text
