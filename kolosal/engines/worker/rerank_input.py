"""A query and a document → the tokens a ranking model was trained to see.

What users write is text here too: a document that spells control tokens cannot speak in the model's name.
"""

from __future__ import annotations

import re

from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.templates.special_tokens import SpecialTokenEscaper

_PLACE = re.compile(r"\{query\}|\{document\}")


def rerank_tokens(query: str, document: str, backend: Backend, escaper: SpecialTokenEscaper) -> list[int]:
    """The tokens of one pair: through the template in the model's file, else with the tokens that it wants between the two."""
    template = backend.rank_template
    if template is None:
        return backend.tokenize_pair(query, document)
    # In one pass, because a query may hold the word {document}.
    parts = {"{query}": escaper.escape(query), "{document}": escaper.escape(document)}
    return escaper.tokenize(_PLACE.sub(lambda place: parts[place[0]], template), add_special=False)
