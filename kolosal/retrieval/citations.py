"""Citations: how results of a search are shown to a model, and what of its answer cites them. Pure.

Each result has a marker, `【0†notes.md】`, which the model is asked to write behind what it took from there. Where it writes none,
an answer is followed by the markers of those results whose words it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kolosal.retrieval.filters import AttributeValue

_MARKER: Final = re.compile(r"【(\d{1,3})(?::\d{1,3})?(?:†[^【】]{0,255})?】")

_BEGUN: Final = re.compile(r"【(?:\d{0,3}|\d{1,3}:\d{0,3}|\d{1,3}(?::\d{1,3})?†[^【】]{0,255})")
"""What may become a marker yet."""

_WORD: Final = re.compile(r"\w{3,}")

_MAX_UNASKED: Final = 3
"""Results that are cited where the model names none."""

_LEAST_SHARE: Final = 0.5
"""How many of the answer's longer words a result must have to be cited unasked."""

SEARCH_INSTRUCTIONS: Final = "Answer with these results of a search, the best first. Cite a result by its marker, e.g. 【0†notes.md】, right behind what you take from it."
"""Short: small models go on writing about markers where more is said of them."""


@dataclass(frozen=True, slots=True)
class FoundText:
    """A chunk that a search found."""

    file_id: str
    filename: str
    score: float
    text: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    """Of its file."""


@dataclass(frozen=True, slots=True)
class Citation:
    """Where in an answer which file is cited."""

    text: str
    """As it stands in the answer."""
    start: int
    end: int
    file_id: str


def marker(index: int, filename: str) -> str:
    """What cites the result of this index."""
    return f"【{index}†{re.sub('[【】]', '', filename)[:100]}】"


def results_for_model(results: Sequence[FoundText], first: int = 0) -> str:
    """Results as a model reads them; `first` is the index of the first of them."""
    if not results:
        return "The search found nothing."
    parts = [f"{marker(index, found.filename)}\n{found.text}" for index, found in enumerate(results, first)]
    return "\n\n".join((SEARCH_INSTRUCTIONS, *parts))


class CitationReader:
    """Finds the markers in an answer as it comes. What may become one is held back until it is clear."""

    def __init__(self, results: Sequence[FoundText]) -> None:
        """`results` are what the answer may cite, by their indexes."""
        self._results = results
        self._held = ""
        self._n_told = 0

    def push(self, text: str) -> list[str | Citation]:
        """More of the answer: text and citations, in their order. A marker that names no result is text like any other."""
        if not self._results:
            self._n_told += len(text)
            return [text] if text else []
        self._held += text
        found: list[str | Citation] = []
        plain = ""
        while "【" in self._held:
            before, _, _ = self._held.partition("【")
            plain, self._held = plain + before, self._held[len(before) :]
            match = _MARKER.match(self._held)
            if match is None and _BEGUN.fullmatch(self._held):
                return [*found, *self._told(plain)]
            taken = "【" if match is None else match[0]
            self._held = self._held[len(taken) :]
            if match is None or int(match[1]) >= len(self._results):
                plain += taken
                continue
            found += self._told(plain)
            plain, start = "", self._n_told
            self._n_told += len(taken)
            found.append(Citation(taken, start, self._n_told, self._results[int(match[1])].file_id))
        plain, self._held = plain + self._held, ""
        return [*found, *self._told(plain)]

    def end(self) -> str:
        """What was held back to the end, and is no marker."""
        held, self._held = self._held, ""
        self._n_told += len(held)
        return held

    def _told(self, plain: str) -> list[str]:
        self._n_told += len(plain)
        return [plain] if plain else []


def citations_of(answer: str, results: Sequence[FoundText]) -> list[Citation]:
    """The citations in a whole answer."""
    return [piece for piece in CitationReader(results).push(answer) if isinstance(piece, Citation)]


def unasked_markers(answer: str, results: Sequence[FoundText]) -> str:
    """What follows an answer that cites nothing: the markers of the results that it was taken from; of each file one."""
    words = set(_WORD.findall(answer.casefold()))
    if not words or citations_of(answer, results):
        return ""
    shares = [
        (len(words & set(_WORD.findall(found.text.casefold()))) / len(words), -index)
        for index, found in enumerate(results)
    ]
    chosen: dict[str, str] = {}
    for share, index in sorted(shares, reverse=True):
        if share >= _LEAST_SHARE and len(chosen) < _MAX_UNASKED:
            found = results[-index]
            chosen.setdefault(found.file_id, marker(-index, found.filename))
    return " " + "".join(chosen.values()) if chosen else ""
