"""Scan: one look at the folders of the library, in steps. Every step blocks, and is done in a thread, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from kolosal.engines.memory.model_files import read_headers
from kolosal.errors import ModelFileError
from kolosal.models.cache import Reading
from kolosal.models.cards import facts_of
from kolosal.models.entry import LibraryModel, ModelFacts
from kolosal.models.index import Index
from kolosal.models.stores import Found, Store

_STEP_S = 0.25
"""How long headers are read in one step."""


class Scan:
    """What was seen so far. Headers of files that are as they were are not read again."""

    def __init__(self, known: Mapping[str, Reading], before: Index, clock: Callable[[], float]) -> None:
        """`known` are earlier readings by the path of a model's first file."""
        self._known = known
        self._clock = clock
        self._found: list[tuple[Store, Found]] = []
        self._unread: dict[Store, list[Found]] = {}
        self.readings: dict[str, Reading] = {}
        """All by now."""
        self.has_news = False
        """Whether a header was read."""
        self.index = before
        """The models, as far as they are known."""

    def look(self, store: Store) -> None:
        """See what lies in a store.

        Raises:
            OSError: its folder cannot be read.
        """
        models = store.scan()
        self._found += [(store, model) for model in models]
        unread = self._unread[store] = []
        for model in models:
            path = str(model.files[0].path)
            reading = self._known.get(path)
            if reading is not None and reading.files == model.files:
                self.readings[path] = reading
            elif model.error is None:
                unread.append(model)

    def read_some(self, store: Store) -> bool:
        """Read the headers of some models of a store; whether there are more."""
        unread = self._unread.get(store, [])
        until = self._clock() + _STEP_S
        while unread:
            model = unread.pop()
            path = model.files[0].path
            self.readings[str(path)] = Reading(model.files, _header_says(model))
            self.has_news = True
            if self._clock() > until:
                break
        return bool(unread)

    def make_index(self) -> None:
        """Give all models their names; where nothing is other the index stays what it was."""
        found = [*_models(self._found, self.readings)]
        if found != self.index.found:
            self.index = Index(found)


def _header_says(model: Found) -> ModelFacts | str:
    try:
        return facts_of(read_headers(model.files[0].path))
    except ModelFileError as exc:
        return exc.message


def _models(found: Sequence[tuple[Store, Found]], readings: Mapping[str, Reading]) -> Iterator[LibraryModel]:
    for store, model in found:
        reading = None if model.error else readings.get(str(model.files[0].path))
        said = None if reading is None else reading.said
        yield LibraryModel(
            name=model.name,
            source=store.source,
            files=model.files,
            facts=said if isinstance(said, ModelFacts) else None,
            header_error=said if isinstance(said, str) else None,
            store_error=model.error,
            projector=model.projector,
            digest=model.digest,
            added_at=model.added_at,
            layers=model.layers,
            manifest=model.manifest,
        )
