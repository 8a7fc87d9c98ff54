"""What routes work with. Put into the application by `create_app`, taken out of the request here, and typed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection
from typing_extensions import TypedDict

from kolosal.admission import Admission, Place
from kolosal.cluster.view import ClusterSource, ClusterView
from kolosal.config.settings import Settings
from kolosal.conversation.startup import ConversationSettings
from kolosal.documents.indexer import Indexer
from kolosal.downloads.jobs import Downloads
from kolosal.engines.engine import Engine
from kolosal.engines.memory.sizing import FileCheck, any_file
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import KolosalError, QuotaExceeded
from kolosal.files.in_thread import in_thread
from kolosal.models.blobs import BlobStore
from kolosal.models.cards import ModelCard, read_card, read_facts
from kolosal.models.entry import ModelFacts
from kolosal.models.file_cache import ModelFileCache
from kolosal.models.library import Library
from kolosal.models.models_file import NamedModel
from kolosal.models.settings_file import SettingsFile
from kolosal.observe.history import INTERVAL_S, History
from kolosal.observe.system import SystemMonitor, SystemUse
from kolosal.paths import ModelRoots, Roots
from kolosal.retrieval.extraction import Extraction
from kolosal.routes.common.access import key_of
from kolosal.schema import MAX_CACHE_SCOPE_CHARS, GenerateRequest
from kolosal.security.auth import Authenticator
from kolosal.security.keys import ApiKey
from kolosal.security.quotas import Quotas
from kolosal.store.store import ObjectStore

if TYPE_CHECKING:  # their packages have routes, which import this
    from kolosal.routes.assistants.live import LiveRuns
    from kolosal.routes.openai.responses.kept import KeptResponses
    from kolosal.routes.openai.responses.sealed import ThoughtSeal
    from kolosal.routes.websocket.kept_sessions import KeptSessions
    from kolosal.routes.websocket.sessions import SessionStore


log = logging.getLogger(__name__)


class Reloaded(TypedDict):
    """What became of a configuration that was read again."""

    applied: list[str]
    """Settings that are other and hold now, and what became of engines."""
    needs_restart: list[str]
    """Settings that are other, and hold after the next start only."""
    failed: list[str]
    """Engines that could not be changed, with the reason."""


@dataclass(slots=True)
class Services:
    """Made once per application. What the configuration says of them may change while the daemon runs (`kolosal/reload.py`)."""

    settings: Settings
    registry: EngineRegistry
    responses: KeptResponses
    """The responses that the Responses API keeps."""
    thoughts: ThoughtSeal
    """Seals the thoughts that clients keep."""
    sessions: SessionStore
    """The sessions that WebSocket clients have."""
    kept_sessions: KeptSessions
    """The same in the store, with what was said in them."""
    admission: Admission
    """How many requests there may be."""
    authenticator: Authenticator
    """Knows the API keys."""
    quotas: Quotas
    """What each of them may use."""
    model_roots: ModelRoots
    """Where models may come from."""
    store: ObjectStore
    """What is kept for clients."""
    runs: LiveRuns
    """The runs of assistants that are being carried out."""
    downloads: Downloads
    """Models that are fetched."""
    file_checks: Callable[[], FileCheck] = lambda: any_file
    """Which files of models may be read now."""
    conversation: ConversationSettings = field(default_factory=ConversationSettings)
    """Prompts, sampling and key of the conversation paths."""
    cards: ModelFileCache[ModelCard | None] = field(
        default_factory=lambda: ModelFileCache(lambda path: in_thread(read_card, path), 64)
    )
    """What model files say of themselves; None of those that are damaged."""
    facts: ModelFileCache[ModelFacts | None] = field(
        default_factory=lambda: ModelFileCache(lambda path: in_thread(read_facts, path), 4096)
    )
    """The same in short, of engines' files that are not in the library."""
    library: Library = field(default_factory=Library)
    """The models on this machine's disks."""
    model_settings: SettingsFile = field(default_factory=SettingsFile)
    """What `models.yaml` says."""
    cluster: ClusterSource | None = None
    """The cluster that the daemon has joined, if any."""
    blobs: BlobStore | None = None
    """Files that clients sent, once one was asked for."""
    system: SystemMonitor = field(default_factory=SystemMonitor)
    """What this machine uses."""
    extraction: Extraction = field(default_factory=Extraction)
    """Reads the text of files."""
    indexer: Indexer = field(init=False)
    """Makes the vectors of vector stores."""
    _tasks: set[asyncio.Task[object]] = field(default_factory=set)
    history: History = field(init=False)
    """What the daemon did lately; a row is taken every two seconds while it serves."""
    reload: Callable[[], Awaitable[Reloaded]] | None = None
    """Reads the configuration again; None where there is none to read."""
    started: float = field(default_factory=time.monotonic)
    update: str | None = None
    """A newer version of the daemon, where somebody was asked."""
    """When the daemon started, on the clock that never jumps."""

    def __post_init__(self) -> None:
        self.history = History(self.registry.observer)
        self.indexer = Indexer(self.store, self.registry, self.settings.documents)

    def in_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Have something done that nobody waits for, and whose failure is told elsewhere."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and not isinstance(error, KolosalError)
        ):
            log.error("background_task.failed", exc_info=error)

    async def system_use(self) -> SystemUse:
        """What the machine uses now, or up to a second ago."""
        return await self.system.sample(self._worker_pids())

    async def take_history(self) -> None:
        """Note every two seconds what is going on. Ends with its task."""
        while True:
            ready = [engine for engine in self.registry.list() if engine.info is not None]
            kv_cells = sum(engine.kv_cells or 0 for engine in ready)
            pools = sum(engine.info.kv_pool_tokens for engine in ready if engine.info is not None)
            self.history.take(await self.system.glance(self._worker_pids()), kv_cells, pools)
            await asyncio.sleep(INTERVAL_S)

    def _worker_pids(self) -> dict[str, int]:
        pids = {engine.engine_id: engine.worker_pid for engine in self.registry.list()}
        return {name: pid for name, pid in pids.items() if pid is not None}


def services_of(request: HTTPConnection) -> Services:
    """The services of the application that got this request."""
    services: Services = request.app.state.services
    return services


def model_roots_of(request: HTTPConnection) -> Roots:
    """Where models that this request adds may come from."""
    services = services_of(request)
    return services.model_roots.allowed(services.authenticator.needed)


def registry_of(request: HTTPConnection) -> EngineRegistry:
    """The engines of the application that got this request."""
    return services_of(request).registry


def cluster_of(request: HTTPConnection) -> ClusterView | None:
    """The cluster as it was last heard of; None where the daemon is in none."""
    source = services_of(request).cluster
    return None if source is None else source.view()


def library_of(request: HTTPConnection) -> Library:
    """The models on this machine's disks."""
    return services_of(request).library


def downloads_of(request: HTTPConnection) -> Downloads:
    """The downloads of the application that got this request."""
    return services_of(request).downloads


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose a request is: all that is counted, shared or kept apart by API key goes through here."""

    services: Services
    key: ApiKey | None
    """None where no keys are used."""

    @property
    def key_id(self) -> str | None:
        """The API key's id."""
        return None if self.key is None else self.key.id

    def place(self) -> Place:
        """A place among the requests that the daemon holds; to be left in the end.

        Raises:
            Overloaded: there is none, or the API key has used up a quota.
        """
        place = self.services.admission.enter(self.key_id)
        if self.key is not None:
            try:
                self.services.quotas.take(self.key)
            except QuotaExceeded:
                place.leave()
                raise
        return place

    def model(self, name: str | None, engine: Engine | None = None) -> NamedModel | None:
        """What is said of a model, by the name that a request has for it, else by its engine's; None: nothing."""
        registry, said = self.services.registry, self.services.model_settings.said
        name = name or registry.default_engine or registry.only_engine
        found = None if name is None else said.find(name)
        if found is not None:
            return found
        engine = engine or (None if name is None else registry.find(name))
        return None if engine is None else said.find(engine.engine_id)

    def owned(self, prompt: GenerateRequest) -> GenerateRequest:
        """The prompt as this caller's: keys take turns, and how fast one is answered tells what is in the KV cache."""
        if self.key_id is None:
            return prompt
        scope = prompt.cache_scope
        if not self.services.settings.auth.share_prefix_across_keys:
            scope = f"{self.key_id}/{scope}"[:MAX_CACHE_SCOPE_CHARS]
        return replace(prompt, client=self.key_id, cache_scope=scope)


def caller_of(request: HTTPConnection) -> Caller:
    """Who sent this request."""
    return Caller(services_of(request), key_of(request.scope))
