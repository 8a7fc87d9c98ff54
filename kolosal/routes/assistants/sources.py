"""What a run reads besides what was said: the text of files that are attached to its messages, which stands in the messages that the
model reads while what is kept of these stays as it is, and what searches of its vector stores find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kolosal.assistants.history import text_of
from kolosal.assistants.objects import RunObject, text_part
from kolosal.assistants.searches import SearchCall, SearchOptions, search_options, searched
from kolosal.assistants.writer import WantedSearch
from kolosal.documents.files import text_of_file
from kolosal.documents.search import SearchQuery, search
from kolosal.errors import NotFound
from kolosal.retrieval.citations import FoundText
from kolosal.routes.common.services import Caller
from kolosal.store.collections import ASSISTANTS, THREADS
from kolosal.store.pages import StoredRow

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

_RESULT_CHARS_PER_TOKEN: Final = 1.5
"""What all results of a run may have for each token of the engine's window: about half of it."""

_MAX_QUERY_CHARS: Final = 4096


async def searched_stores(session: StoreSession, run: RunObject) -> list[str]:
    """The vector stores that a run may search: its assistant's and its thread's."""
    if search_options(run["tools"]) is None or run["tool_choice"] == "none":
        return []
    owners = (
        await session.find(ASSISTANTS, run["assistant_id"]),
        await session.find(THREADS, run["thread_id"]),
    )
    ids: list[str] = []
    for owner in owners:
        resources = ((owner or {}).get("tool_resources") or {}).get("file_search") or {}
        ids += resources.get("vector_store_ids", ())
    return [*dict.fromkeys(ids)]


async def with_attachments(caller: Caller, history: Sequence[StoredRow]) -> list[StoredRow]:
    """The history, with the text of attached files behind what their messages say."""
    return [_and_text(row, await _attached(caller, row.data)) for row in history]


def last_asked(history: Sequence[StoredRow]) -> str:
    """The last thing that the user said."""
    return next(
        (text_of(row.data) for row in reversed(history) if row.data.get("role") == "user"), ""
    ).strip()


class SourceSearch:
    """Searches the vector stores of a run, whose results share a part of the model's window."""

    def __init__(self, caller: Caller, run: RunObject, store_ids: Sequence[str], n_ctx: int | None) -> None:
        self._caller = caller
        self._options = search_options(run["tools"]) or SearchOptions()
        self._store_ids = store_ids
        self._room = int((n_ctx or 4096) * _RESULT_CHARS_PER_TOKEN)

    async def carry_out(
        self, wanted: Sequence[WantedSearch], before: Sequence[FoundText], *, last: bool
    ) -> list[SearchCall]:
        """Searches, carried out, of which the run may have no more than `MAX_SEARCHES`.

        `before` is what the run has found; where this is not the `last` time, half of the room that is left is kept.

        Raises:
            KolosalError: a vector store cannot be searched.
        """
        made, n_found = list[SearchCall](), len(before)
        room = self._room - sum(len(each.text) for each in before)
        for call_id, query in wanted:
            share = room if last else room // 2
            found = _fitting(await self._find(query), share) if query and share > 0 else []
            made.append(searched(call_id, query, self._options, n_found, found))
            n_found += len(found)
            room -= sum(len(each.text) for each in found)
        return made

    async def _find(self, text: str) -> list[FoundText]:
        """The best of all vector stores, the best first."""
        services, found, limit = self._caller.services, list[FoundText](), self._options.limit
        query = SearchQuery((text[:_MAX_QUERY_CHARS],), limit, self._options.threshold)
        for store_id in self._store_ids:
            found += await search(
                services.store,
                services.registry,
                services.settings.documents,
                self._caller.key_id,
                store_id,
                query,
            )
        return sorted(found, key=lambda each: -each.score)[:limit]


async def _attached(caller: Caller, message: Mapping[str, Any]) -> list[str]:
    texts = []
    for attachment in message.get("attachments") or ():
        file_id = attachment["file_id"]
        try:
            text = await text_of_file(caller.services.store, caller.key_id, file_id)
        except NotFound:
            text = "(it was deleted)"
        texts.append(f"The attached file {file_id}:\n{text}")
    return texts


def _and_text(row: StoredRow, texts: Sequence[str]) -> StoredRow:
    if not texts:
        return row
    content = [*row.data["content"], *map(text_part, texts)]
    return replace(row, data={**row.data, "content": content})


def _fitting(found: Sequence[FoundText], room: int) -> list[FoundText]:
    """The first ones that there is room for; of the first one its beginning at least."""
    kept: list[FoundText] = []
    for each in found:
        if len(each.text) > room and kept:
            break
        kept.append(replace(each, text=each.text[:room]))
        room -= len(each.text)
    return kept
