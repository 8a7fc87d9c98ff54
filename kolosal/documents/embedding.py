"""Which engine makes the vectors of a vector store, and what it is asked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from kolosal.config.documents import DocumentSettings
from kolosal.documents.records import EmbeddingRecord
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Tokenize, Tokenized
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from kolosal.engines.unary import embed_all, unary_call
from kolosal.errors import Conflict, UnsupportedFeature
from kolosal.retrieval.chunks import ChunkingStrategy
from kolosal.schema import TextPrompt

_MARGIN_TOKENS: Final = 16
"""What a chunk may have more than its segments together: tokens at its ends, and words that were cut."""


async def embedding_engine(
    registry: EngineRegistry, settings: DocumentSettings, made_by: EmbeddingRecord | None
) -> Engine:
    """The engine for a vector store, loaded; `made_by`: what made the vectors that it has.

    Raises:
        UnsupportedFeature: no engine makes embeddings.
        Conflict: the one that made the vectors is another model now.
        KolosalError: it is not there any more, or cannot be loaded.
    """
    name = settings.embedding_engine if made_by is None else made_by["engine"]
    engine = await registry.acquire(name or _suitable(registry))
    if engine.info is not None and engine.info.pooling == "rank":
        raise UnsupportedFeature(
            f"The engine '{engine.engine_id}' ranks documents and makes no embeddings: documents.embedding_engine names one that does"
        )
    if made_by is not None and made_by != embedding_record(engine):
        raise Conflict(
            f"The vectors of this vector store were made by the model '{made_by['model']}', and the engine '{engine.engine_id}' is"
            " another one now: add the files to a new vector store",
            code="other_embedding_model",
        )
    return engine


def _suitable(registry: EngineRegistry) -> str:
    embedding = [
        engine
        for engine in registry.list()
        if engine.state is EngineState.READY and engine.info is not None and engine.info.pooling != "rank"
    ]
    made_for_it = [engine for engine in embedding if engine.info is not None and not engine.info.can_generate]
    for engine in (*made_for_it, *embedding):
        return engine.engine_id
    name = registry.default_engine or registry.only_engine
    if name is None:
        raise UnsupportedFeature(
            "No engine makes embeddings: load one, or name one in the setting documents.embedding_engine"
        )
    return name


def embedding_record(engine: Engine) -> EmbeddingRecord:
    """What a loaded engine's vectors are known by."""
    width = engine.info.n_embd if engine.info is not None else 0
    return {"engine": engine.engine_id, "model": PurePath(engine.config.model_path).name, "width": width}


def chunking_for(engine: Engine) -> ChunkingStrategy:
    """The daemon's choice: as OpenAI's, or as much as the model sees at a time."""
    usual = ChunkingStrategy()
    info = engine.info
    if info is None:
        return usual
    most = min(info.n_ctx, info.n_ctx_train or info.n_ctx) - _MARGIN_TOKENS
    size = max(1, min(usual.max_chunk_size_tokens, most))
    return ChunkingStrategy(size, min(usual.chunk_overlap_tokens, size // 2))


async def count_tokens(engine: Engine, text: str) -> int:
    """How many tokens a text is for this engine."""
    call = Tokenize(text, parse_special=False, with_pieces=False)
    return len((await unary_call(engine, call, Tokenized)).tokens)


async def embed(engine: Engine, texts: Sequence[str]) -> list[bytes]:
    """The vector of each text: float32, little-endian, of length 1."""
    embedded = await embed_all(engine, [TextPrompt(text) for text in texts])
    return [base64.b64decode(vector) for vector in embedded.vectors]
