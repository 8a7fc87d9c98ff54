"""The bodies of vector stores: https://platform.openai.com/docs/api-reference/vector-stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, Tag, TypeAdapter

from kolosal.documents.records import ExpiryRule, StaticChunking
from kolosal.documents.search import MAX_RESULTS, SearchQuery
from kolosal.documents.vector_stores import NewEntry
from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody, decode_fields
from kolosal.retrieval.chunks import MAX_CHUNK_TOKENS, MIN_CHUNK_TOKENS
from kolosal.retrieval.filters import AttributeFilter, AttributeValue, CombinedFilter, Comparison, Filter
from kolosal.routes.common.body import NeutralValues, OpenBody, required
from kolosal.routes.common.fields import (
    ARRAY,
    BOOLEAN,
    NUMBER,
    STRING,
    Metadata,
    Text,
    by_kind,
    by_type,
)

MAX_FILES_AT_ONCE = 2000
"""Files of one request: the OpenAI API's bound."""

MAX_QUERIES = 16
MAX_FILTERS = 64
"""Filters within one, and how many filters may be in one another below."""

MAX_FILTER_DEPTH = 8

ObjectId: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]

FileIds: TypeAlias = Annotated[tuple[ObjectId, ...], Field(max_length=MAX_FILES_AT_ONCE)]

_Word: TypeAlias = Annotated[str, Field(max_length=512)]
_Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]

AttributeField: TypeAlias = Annotated[
    Annotated[_Word, STRING] | Annotated[_Number, NUMBER] | Annotated[bool, BOOLEAN],
    by_kind("a string, a number, or true or false"),
]

Attributes: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], AttributeField], Field(max_length=16)
]


class StaticChunkingFields(RequestBody):
    """How long chunks are, in tokens of the model that embeds them."""

    max_chunk_size_tokens: Annotated[int, Field(ge=MIN_CHUNK_TOKENS, le=MAX_CHUNK_TOKENS)]
    chunk_overlap_tokens: Annotated[int, Field(ge=0, le=MAX_CHUNK_TOKENS // 2)]
    """What a chunk repeats of the one before: half of a chunk at most."""


class ChunkingFields(RequestBody):
    """How a file is cut into chunks."""

    type: Literal["auto", "static"]
    """`auto`: chunks of 800 tokens of which 400 overlap, or as many as the model sees at a time."""
    static: StaticChunkingFields | None = None
    """Required for the type `static`."""

    def to_record(self, path: str) -> StaticChunking | None:
        """As it is kept; `path` is where it stands."""
        if self.type == "auto":
            return None
        static = required(self.static, f"{path}.static")
        if static.chunk_overlap_tokens * 2 > static.max_chunk_size_tokens:
            raise InvalidRequest(
                f"{path}.static.chunk_overlap_tokens must be at most half of max_chunk_size_tokens, which is"
                f" {static.max_chunk_size_tokens}, not {static.chunk_overlap_tokens}",
                param=f"{path}.static.chunk_overlap_tokens",
            )
        return {
            "max_chunk_size_tokens": static.max_chunk_size_tokens,
            "chunk_overlap_tokens": static.chunk_overlap_tokens,
        }


class StoreExpiry(RequestBody):
    """When a vector store expires."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=365)]

    def to_record(self) -> ExpiryRule:
        """As it is kept."""
        return {"anchor": self.anchor, "days": self.days}


class VectorStoreChanges(RequestBody):
    """Changes of a vector store: what is left out stays."""

    name: Annotated[str, Field(max_length=256)] | None = None
    expires_after: StoreExpiry | None = None
    """After how many days without a search it can be searched no more."""
    metadata: Metadata | None = None
    """Labels that come back with the object."""


class VectorStoreBody(VectorStoreChanges):
    """A new vector store. The body may be empty."""

    description: Annotated[str, Field(max_length=512)] | None = None
    file_ids: FileIds | None = None
    """Files to put into it."""
    chunking_strategy: ChunkingFields | None = None
    """Of these files."""


class EntryFields(RequestBody):
    """A file for a vector store."""

    file_id: ObjectId
    attributes: Attributes | None = None
    """What searches can be filtered by."""
    chunking_strategy: ChunkingFields | None = None

    def to_entry(self, prefix: str = "") -> NewEntry:
        """The file; `prefix` is where it stands, with a dot at its end."""
        chunking = chunking_of(self.chunking_strategy, prefix)
        return NewEntry(self.file_id, attributes_of(self.attributes), chunking)


class EntryChanges(RequestBody):
    """Changes of a file in a vector store."""

    attributes: Attributes | None = None
    """In place of those it has."""


class FileBatchBody(RequestBody):
    """Files to add together: either `file_ids` or `files`."""

    file_ids: FileIds | None = None
    """They share attributes and chunking strategy."""
    attributes: Attributes | None = None
    chunking_strategy: ChunkingFields | None = None
    files: Annotated[tuple[EntryFields, ...], Field(max_length=MAX_FILES_AT_ONCE)] | None = None
    """Each with its own attributes and chunking strategy."""

    def to_entries(self) -> list[NewEntry]:
        """The files, each with what is said of it."""
        if bool(self.files) is bool(self.file_ids):
            raise InvalidRequest("Either file_ids or files is required, and not both", param="file_ids")
        if self.files:
            return [each.to_entry(f"files.{index}.") for index, each in enumerate(self.files)]
        attributes, chunking = attributes_of(self.attributes), chunking_of(self.chunking_strategy)
        return [NewEntry(each, attributes, chunking) for each in self.file_ids or ()]


class ComparisonFields(RequestBody):
    """A filter that compares an attribute."""

    type: Comparison
    key: Annotated[str, Field(max_length=64)]
    value: Annotated[
        Annotated[_Word, STRING]
        | Annotated[_Number, NUMBER]
        | Annotated[bool, BOOLEAN]
        | Annotated[Annotated[tuple[AttributeField, ...], Field(max_length=256)], ARRAY],
        by_kind("a string, a number, true or false, or an array of these"),
    ]
    """An array for `in` and `nin`."""

    def to_filter(self, path: str, _depth: int) -> Filter:
        """The filter; `path` is where it stands."""
        if isinstance(self.value, tuple) is not (self.type in ("in", "nin")):
            wanted = "an array" if self.type in ("in", "nin") else "one value"
            raise InvalidRequest(
                f"{path}.value must be {wanted} for the type '{self.type}'", param=f"{path}.value"
            )
        return AttributeFilter(self.type, self.key, self.value)


class CompoundFields(RequestBody):
    """All of some filters, or any of them."""

    type: Literal["and", "or"]
    filters: Annotated[tuple[FilterFields, ...], Field(max_length=MAX_FILTERS)]

    def to_filter(self, path: str, depth: int) -> Filter:
        """The filter; `path` is where it stands."""
        if depth == MAX_FILTER_DEPTH:
            raise InvalidRequest(f"{path} is a filter in {depth} others, which is one too many", param=path)
        parts = (
            each.to_filter(f"{path}.filters.{index}", depth + 1) for index, each in enumerate(self.filters)
        )
        return CombinedFilter(self.type, tuple(parts))


FilterFields: TypeAlias = Annotated[
    Annotated[CompoundFields, Tag("<and>")]
    | Annotated[CompoundFields, Tag("<or>")]
    | Annotated[ComparisonFields, Tag("<other>")],
    by_type("and", "or"),
]


_FILTERS: TypeAdapter[CompoundFields | ComparisonFields] = TypeAdapter(FilterFields)


def filter_of(given: Mapping[str, Any]) -> Filter:
    """The filter that was given. It may hold others without end, so it is no part of a schema.

    Raises:
        InvalidRequest: it is none, or too deep.
    """
    return decode_fields(_FILTERS, given, "filters.").to_filter("filters", 0)


class RankingFields(OpenBody):
    """How results are ranked."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"hybrid_search": ()}

    ranker: Literal["none", "auto", "default-2024-11-15", "default_2024_08_21"] | None = None
    """All mean the same: results are ranked by the angle between their vectors and the query's."""
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The least score of a result."""


class SearchBody(OpenBody):
    """What to look for."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"rewrite_query": (False,)}

    query: Annotated[
        Annotated[Text, Field(min_length=1), STRING]
        | Annotated[
            tuple[Annotated[Text, Field(min_length=1)], ...],
            Field(min_length=1, max_length=MAX_QUERIES),
            ARRAY,
        ],
        by_kind("a string or an array of strings"),
    ]
    """A question, or several: each chunk counts with the one it is nearest to."""
    max_num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10
    filters: dict[str, Any] | None = None
    """Only files with such attributes are looked at: `{"type": "eq", "key": …, "value": …}` and its like, or filters combined."""
    ranking_options: RankingFields | None = None

    def to_query(self) -> SearchQuery:
        """The query."""
        self.refuse_unsupported()
        ranking = self.ranking_options or RankingFields()
        ranking.refuse_unsupported("ranking_options.")
        return SearchQuery(
            (self.query,) if isinstance(self.query, str) else self.query,
            self.max_num_results,
            ranking.score_threshold,
            None if self.filters is None else filter_of(self.filters),
        )


def chunking_of(given: ChunkingFields | None, prefix: str = "") -> StaticChunking | None:
    """How files are cut; `prefix` is where it stands, with a dot at its end."""
    return None if given is None else given.to_record(f"{prefix}chunking_strategy")


def attributes_of(given: Attributes | None) -> dict[str, AttributeValue]:
    """Attributes as they are kept."""
    return dict(given or {})
