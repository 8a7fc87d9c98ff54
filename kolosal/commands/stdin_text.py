"""Text that is piped into a command, in whatever encoding the program before it wrote."""

from __future__ import annotations

import codecs

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_piped(data: bytes, system_encoding: str) -> str:
    """UTF-16 where a mark says so, UTF-8 where it is valid, else what the system's programs write; never an error.

    On Windows the system's encoding is a code page, while git and PowerShell 7 write UTF-8.
    """
    if data.startswith(_UTF16_MARKS):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode(system_encoding, "replace")
    return text.replace("\r\n", "\n")
