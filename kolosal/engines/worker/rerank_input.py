"""A query and a document → the tokens a ranking model was trained to see.

What users write is text here too: a document that spells control tokens cannot speak in the model's name.
"""

from __future__ import annotations

import re

from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.templates.special_tokens import SpecialTokenEscaper

_PLACE = re.compile(r"\{query\}|\{document\}")


class RerankInput:
    """Input of one ranking model: through the template in its file, else with the tokens that it wants between the two."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._escaper = SpecialTokenEscaper(backend)

    def tokens(self, query: str, document: str) -> list[int]:
        """The tokens of one pair."""
        template = self._backend.rank_template
        if template is None:
            return self._backend.tokenize_pair(query, document)
        # In one pass, because a query may hold the word {document}.
        parts = {"{query}": self._escaper.escape(query), "{document}": self._escaper.escape(document)}
        text = _PLACE.sub(lambda place: parts[place[0]], template)
        return self._escaper.tokenize(text, add_special=False)
