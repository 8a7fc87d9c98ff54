"""RunTurns: what a run says until it ends or waits for its client: turns of the model, and searches between them.

A model that knows tools searches when it wants to, with words of its own. For one that does not the last thing that the user said is
looked for before it answers, unless the run forces a search: then it must say what it looks for, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kolosal.assistants.searches import MAX_SEARCHES, found_texts, searches_of
from kolosal.assistants.writer import RunEvent, RunWriter, WantedSearch
from kolosal.observe.context import note_model
from kolosal.retrieval.citations import FoundText
from kolosal.routes.assistants.prompt import RunPrompt, forces_search, knows_tools, read_history
from kolosal.routes.assistants.sources import SourceSearch, last_asked, searched_stores, with_attachments
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.services import Caller
from kolosal.store.pages import StoredRow


class RunTurns:
    """Of one run, once."""

    def __init__(
        self,
        caller: Caller,
        generation: Generation,
        writer: RunWriter,
        emit: Callable[[Sequence[RunEvent]], None],
    ) -> None:
        """`emit` gets the events in their order."""
        self._caller = caller
        self._generation = generation
        self._writer = writer
        self._emit = emit
        self._history: Sequence[StoredRow] = ()
        self._asked = ""
        self._store_ids: Sequence[str] = ()

    async def carry_out(self) -> None:
        """Have the model speak until the run is over, or the model is gone.

        Raises:
            PromptLimitReached: the run may not read as much as its last message.
            KolosalError: the run fails with this.
        """
        run = self._writer.run
        note_model(run["model"])
        async with self._caller.services.store.reading(self._caller.key_id) as session:
            history = await read_history(session, run, self._n_ctx())
            self._store_ids = await searched_stores(session, run)
        RunPrompt(run, history, may_search=bool(self._store_ids)).check()
        self._history = await with_attachments(self._caller, history)
        self._asked = last_asked(history)
        await self._search_unasked()
        self._writer.sources = self._found()
        while await self._turn():
            pass

    async def _turn(self) -> bool:
        """One turn of the model and the searches that it asks for; whether another one follows."""
        may_search = bool(self._store_ids) and self._n_searches() < MAX_SEARCHES
        prompt = RunPrompt(self._writer.run, [*self._history, *self._made()], may_search)
        await self._generation.begin(self._start(prompt))
        self._emit(self._writer.start())
        async for _, event in self._generation.events():
            if not self._writer.over:
                self._emit(self._writer.push(event))
        if self._writer.over or not self._writer.wanted:
            return False
        await self._search(last=not knows_tools(self._generation.engine))
        return not self._writer.over

    async def _start(self, prompt: RunPrompt) -> None:
        prepare = partial(prompt.to_request, whole=self._generation.with_turns)
        model = self._writer.run["model"]
        await self._generation.submit([await self._generation.load(model, prepare)])

    # --- searches ---

    async def _search_unasked(self) -> None:
        """Search for what the user said last, where the model does not search itself."""
        run = self._writer.run
        if not self._store_ids or not self._asked or self._n_searches() or forces_search(run):
            return
        acquire = self._caller.services.registry.acquire(run["model"])
        if not knows_tools(await self._generation.begin(acquire)):
            self._emit(self._writer.search(self._asked))
            await self._search(last=True)

    async def _search(self, *, last: bool) -> None:
        """Carry out the searches that are wanted: for what was asked last where a call does not say for what."""
        left = MAX_SEARCHES - self._n_searches()
        wanted = [
            WantedSearch(each.call_id, (each.query or self._asked) if index < left else "")
            for index, each in enumerate(self._writer.wanted)
        ]
        search = SourceSearch(self._caller, self._writer.run, self._store_ids, self._n_ctx())
        self._emit(self._writer.searched(await search.carry_out(wanted, self._found(), last=last)))
        self._writer.sources = self._found()

    def _made(self) -> list[StoredRow]:
        """What this has made, as rows that are not kept yet."""
        read = [each for each in self._writer.made if each.get("type") != "message_creation"]
        return [StoredRow(0, each["id"], each) for each in read]

    def _searches(self) -> list[Any]:
        """The searches of the run that were carried out."""
        steps = [row.data for row in (*self._history, *self._made()) if "step_details" in row.data]
        return [call["file_search"] for call in searches_of(steps)]

    def _n_searches(self) -> int:
        return len(self._searches())

    def _found(self) -> list[FoundText]:
        return [text for search in self._searches() for text in found_texts(search)]

    def _n_ctx(self) -> int | None:
        engine = self._caller.services.registry.find(self._writer.run["model"])
        return None if engine is None or engine.info is None else engine.info.n_ctx
