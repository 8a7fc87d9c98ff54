"""Library: the models on this machine's disks. Used on the event loop only; what reads the disk is done in threads.

A scan looks at names, sizes and times of all files, and then reads the headers of those that are new or other, a few at a time: so
neither the loop nor a silent disk holds anything up, and every model has its name at once. Nobody watches the disk: whoever asks
for a list gets what was seen up to two seconds ago; a name that is not known is looked for at once, unless the last look took long.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from kolosal.files.in_thread import in_thread
from kolosal.models.cache import FileDigest, Kept, load_kept, save_kept
from kolosal.models.entry import LibraryModel
from kolosal.models.file_cache import ModelFileCache, sha256_of
from kolosal.models.index import Index
from kolosal.models.scan import Scan
from kolosal.models.stores import Store

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

FRESH_S = 2.0
"""How old what is known of the disk may be, and how long a list waits for headers."""

_LIMIT_S = 60.0
"""How long a disk may take to list a store, or to give a header."""

_MANY = 1000
"""Models from which on they are kept from the search for garbage: they are none, and cost it a tenth of a second."""


class Library:
    """All models that the stores hold."""

    def __init__(
        self,
        stores: Sequence[Store] = (),
        cache: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Where two models have the same name, that of the earlier store keeps it. `cache` is the file of what is kept over restarts."""
        self.stores = stores
        self.uses: Callable[[], Mapping[str, float]] = dict
        """Says when files of models were last used, by path: Unix times."""
        self.on_change: Callable[[], None] = lambda: None
        """Told when a model came, went, or is other."""
        self._cache = cache
        self._clock = clock
        self._index = Index(())
        self._kept: Kept | None = None
        self._digests = ModelFileCache(sha256_of, 1024)
        self._scanning: asyncio.Task[None] | None = None
        self._listed: asyncio.Future[None]
        """Done once the scan that goes on has found all names."""
        self._fresh_until = self._look_again_at = -math.inf
        """When the disk is looked at again for a list, and for a name that is not known."""
        self.problems: Mapping[str, str] = {}
        """Folders that cannot be read, with the reason."""

    @property
    def folders(self) -> list[Path]:
        """Where they are."""
        return [store.folder for store in self.stores]

    @property
    def models(self) -> Sequence[LibraryModel]:
        """All models as they were last seen, by name."""
        return self._index.models

    @property
    def names(self) -> Mapping[str, str]:
        """Their names, by the plain form of each."""
        return self._index.names

    def at(self, path: str) -> LibraryModel | None:
        """The model whose file is this one, as it was last seen."""
        return self._index.at(path)

    def find(self, name: str) -> LibraryModel | None:
        """The model that a name means, as it was last seen. Costs nothing."""
        return self._index.find(name)

    async def look_up(self, name: str) -> LibraryModel | None:
        """The model that a name means. One that is not known is looked for on the disk; its header may be unread then."""
        found = self.find(name)
        if found is None and self.stores and self._clock() >= self._look_again_at:
            scan = self._begin_scan()
            await asyncio.wait({scan, self._listed}, return_when=asyncio.FIRST_COMPLETED)
            found = self.find(name)
        return found

    async def fresh(self) -> Sequence[LibraryModel]:
        """All models, as they were seen some seconds ago at most; the headers of many new ones may be unread."""
        if self._is_stale:
            await asyncio.wait({self._begin_scan()}, timeout=FRESH_S)
        return self.models

    async def refresh(self) -> None:
        """Look at the disk now. Who leaves does not end that."""
        if self._scanning is not None:  # it may have looked too early
            await asyncio.wait({self._scanning})
        await asyncio.wait({self._begin_scan()})

    async def close(self) -> None:
        """Give up a scan, and keep what is known."""
        if self._scanning is not None:
            self._scanning.cancel()
            await asyncio.wait({self._scanning})
        elif self.uses():
            await self._save()

    # --- one model ---

    def digest_of(self, model: LibraryModel) -> str | None:
        """The SHA-256 of a model's file, where its store says it or it was found before; None of one in parts."""
        known = None if self._kept is None else self._kept.digests.get(str(model.path))
        found = None if known is None or (known.file,) != model.files else known.sha256
        return model.digest or found

    async def find_digest(self, model: LibraryModel) -> str | None:
        """The same, and where nobody knows it the file is read whole. That goes on when who asked leaves."""
        known = self.digest_of(model)
        if known is not None or len(model.files) > 1:
            return known
        found = await self._digests.of(model.path)
        if found is None:
            return None
        self._all_kept.digests[str(model.path)] = FileDigest(*found)
        await self._save()
        return found[1]

    def last_used_at(self, model: LibraryModel) -> float | None:
        """Unix time at which a model was last used, as far as is known."""
        path = str(model.path)
        kept = {} if self._kept is None else self._kept.used_at
        return max(filter(None, (self.uses().get(path), kept.get(path))), default=None)

    async def remove(self, model: LibraryModel) -> int:
        """Remove a model's files; the bytes that were freed. What other models need stays.

        Raises:
            OSError: one of them cannot be removed.
        """
        place = model.manifest or model.path
        store = next(each for each in self.stores if place.is_relative_to(each.folder))
        try:
            return await in_thread(store.remove, model, limit_s=_LIMIT_S)
        finally:
            await self.refresh()

    # --- looking at the disk ---

    @property
    def _is_stale(self) -> bool:
        """Whether the disk should be looked at: a scan that takes long is not made often."""
        return bool(self.stores) and self._clock() >= self._fresh_until

    def _begin_scan(self) -> asyncio.Task[None]:
        """The scan that goes on, else a new one."""
        if self._scanning is None:
            self._listed = asyncio.get_running_loop().create_future()
            self._scanning = asyncio.create_task(self._scan(), name="scan models")
            self._scanning.add_done_callback(self._ended)
        return self._scanning

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._scanning = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("library.scan_failed", exc_info=error)

    async def _scan(self) -> None:
        if self._kept is None:
            self._kept = Kept() if self._cache is None else await in_thread(load_kept, self._cache)
        began, problems = self._clock(), dict[str, str]()
        scan = Scan(self._kept.readings, self._index, self._clock)
        for store in self.stores:
            try:
                await _step(scan.look, store)
            except OSError as exc:
                problems[str(store.folder)] = exc.strerror or str(exc)
        await self._publish(scan)
        self._listed.set_result(None)
        listed_s = self._clock() - began
        for store in self.stores:
            try:
                await self._read_headers(scan, store)
            except OSError as exc:  # silent now; the next scan tries again
                problems[str(store.folder)] = exc.strerror or str(exc)
        await self._publish(scan)
        if len(self.models) >= _MANY:
            gc.freeze()
        self._kept.readings, self.problems = scan.readings, problems
        self._fresh_until = self._clock() + max(FRESH_S, 20 * listed_s)
        self._look_again_at = self._clock() + 10 * listed_s
        if scan.has_news:
            await self._save()

    async def _read_headers(self, scan: Scan, store: Store) -> None:
        published_at = self._clock()
        while await _step(scan.read_some, store):
            if self._clock() - published_at > FRESH_S:
                await self._publish(scan)
                published_at = self._clock()

    async def _publish(self, scan: Scan) -> None:
        await _step(scan.make_index)
        if scan.index is not self._index:
            self._index = scan.index
            self.on_change()

    # --- over restarts ---

    @property
    def _all_kept(self) -> Kept:
        if self._kept is None:
            self._kept = Kept()
        return self._kept

    async def _save(self) -> None:
        if self._cache is None or self._kept is None:
            return
        here = {str(model.path) for model in self.models}
        used_at = {path: at for path, at in {**self._kept.used_at, **self.uses()}.items() if path in here}
        digests = {path: digest for path, digest in self._kept.digests.items() if path in here}
        self._kept.used_at, self._kept.digests = used_at, digests
        try:
            await _step(save_kept, self._cache, self._kept)
        except OSError:  # the disk is silent: what is lost is made again
            log.warning("library.cache_not_saved", extra={"path": str(self._cache), "reason": "no answer"})


async def _step(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await in_thread(_uncollected, function, *args, limit_s=_LIMIT_S, **kwargs)


def _uncollected(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Without the search for garbage, which would stop the event loop for a tenth of a second where models are many."""
    gc.disable()
    try:
        return function(*args, **kwargs)
    finally:
        gc.enable()
