"""Names of engines and models: when two are the same, and which are like one that nobody has. Pure."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Mapping
from itertools import islice

from kolosal.engines.parameters import LATEST, MAX_ENGINE_ID_CHARS

NEAREST = 3
"""Names that an error suggests."""

_LOOKED_AT = 5000
"""Names at most that are compared: some 5 ms."""

_CANDIDATES = 24
"""Names that are compared letter by letter."""

_LEAST_SHARED = 0.4
"""Of the pairs of letters of a name, those that one like it has."""


def plain(name: str) -> str:
    """A name without blanks around it, capitals and the tag that says nothing: equal where the same is meant."""
    return name.strip().casefold().removesuffix(LATEST)


def nearest(wanted: str, names: Mapping[str, str]) -> list[str]:
    """The names most like this one, the best first. `names` are by their plain form."""
    key = plain(wanted[:MAX_ENGINE_ID_CHARS])
    pairs = {key[at : at + 2] for at in range(len(key) - 1)}
    shared = {name: sum(pair in name for pair in pairs) for name in islice(names, _LOOKED_AT)}
    likely = heapq.nlargest(_CANDIDATES, shared, lambda name: shared[name] / (len(name) + 8))
    like = [name for name in likely if shared[name] >= _LEAST_SHARED * len(pairs) > 0]
    matcher = difflib.SequenceMatcher(b=key, autojunk=False)

    def likeness(name: str) -> float:
        matcher.set_seq1(name)
        return shared[name] / len(pairs) + matcher.ratio()

    return [names[name] for name in heapq.nlargest(NEAREST, like, likeness)]


def did_you_mean(wanted: str, names: Mapping[str, str]) -> str:
    """The end of a sentence that says that a name is unknown: the names most like it."""
    quoted = [f"'{name}'" for name in nearest(wanted, names)]
    if not quoted:
        return ""
    return f"; did you mean {' or '.join(filter(None, (', '.join(quoted[:-1]), quoted[-1])))}?"
