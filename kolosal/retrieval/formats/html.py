"""HTML as text: what a reader of the page sees, a line a block. Imports Python's library only; runs in a limited process."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final, NoReturn

from kolosal.retrieval.formats.plain import decode_text
from kolosal.retrieval.formats.process import serve_format

_UNSEEN: Final = frozenset({"script", "style", "template", "noscript", "svg", "iframe", "object"})

_BLOCKS: Final = re.compile(
    "address|article|aside|blockquote|body|br|caption|d[dlt]|details|div|fieldset|fig(caption|ure)|footer|form|h[1-6r]|header|html|legend"
    "|li|main|nav|ol|option|p|pre|section|select|summary|table|tbody|tfoot|thead|title|tr|ul"
)

_CELLS: Final = frozenset({"td", "th"})

_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_:-]{1,40})", re.IGNORECASE)
_HEAD_BYTES: Final = 4096
"""Where a page says its charset: in the first bytes, as the standard wants."""


class _VisibleText(HTMLParser):
    """Collects what is seen."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - it is called so
        if tag in _UNSEEN:
            self._unseen.append(tag)
        self._between(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unseen:
            while self._unseen.pop() != tag:  # what was not closed inside of it
                pass
        self._between(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._between(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(data)

    def _between(self, tag: str) -> None:
        if _BLOCKS.fullmatch(tag):
            self.pieces.append("\n")
        elif tag in _CELLS:
            self.pieces.append("\t")


def html_text(data: bytes) -> str:
    """The text of a page.

    Raises:
        ValueError: it is no text.
    """
    declared = _CHARSET.search(data[:_HEAD_BYTES])
    reader = _VisibleText()
    reader.feed(_decoded(data, "" if declared is None else declared[1].decode("ascii")))
    reader.close()
    lines = ("".join(reader.pieces)).split("\n")
    text = "\n".join(" ".join(line.split()) for line in lines)
    return re.sub("\n{3,}", "\n\n", text).strip()


def _decoded(data: bytes, charset: str) -> str:
    try:
        return decode_text(data)
    except ValueError:
        if charset.lower().replace("_", "-") in ("", "utf-8", "utf8"):
            raise
    try:
        return decode_text(data.decode(charset).encode())
    except LookupError:
        raise ValueError(f"its charset {charset!r} is not known") from None


def main() -> NoReturn:
    """Answer requests."""
    serve_format(html_text, "html")
