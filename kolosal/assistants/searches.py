"""Searches of a run: how `file_search` is asked for, what a model calls it with, and how its calls are kept and shown. Pure.

A call is kept with all that was found, because later turns of its run read it again; others are shown without the texts unless they ask.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from typing_extensions import TypedDict

from kolosal.assistants.objects import ObjectTool, RunStepObject
from kolosal.chat.events import parsed_arguments
from kolosal.retrieval.citations import FoundText
from kolosal.schema import Tool

FILE_SEARCH: Final = "file_search"
"""The type of the tool, and the name that models call it by."""

MAX_SEARCHES: Final = 4
"""Searches of one run."""

_USUAL_RESULTS: Final = 5
_MAX_QUERY_CHARS: Final = 200
"""Small models do not stop before such a bound, and all that they write counts."""

SEARCH_TOOL: Final = Tool(
    FILE_SEARCH,
    "Searches the user's files by meaning and returns the passages that fit best. Call it before you answer what the files may say.",
    {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "What to look for, in a few words or as a question.",
                "maxLength": _MAX_QUERY_CHARS,
            }
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)
"""The tool as a model sees it."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a run's tool `file_search` says."""

    limit: int = _USUAL_RESULTS
    """Results of one search, at most."""
    threshold: float = 0.0
    """Their least score."""
    ranker: str = "auto"


class RankingOptions(TypedDict):
    """How results were ranked."""

    ranker: str
    score_threshold: float


class SearchCallResult(TypedDict):
    """A chunk that was found."""

    file_id: str
    file_name: str
    score: float
    content: list[dict[str, str]]


class Search(TypedDict):
    """What was looked for and found."""

    query: str
    ranking_options: RankingOptions
    first: int
    """The index of the first result among all of the run: what its marker says. Never shown."""
    results: list[SearchCallResult]


class SearchCall(TypedDict):
    """A call of `file_search`, in a run step."""

    id: str
    type: Literal["file_search"]
    file_search: Search


def search_options(tools: Sequence[ObjectTool]) -> SearchOptions | None:
    """How a run with these tools searches; None: not at all."""
    given = next((tool for tool in tools if tool["type"] == FILE_SEARCH), None)
    if given is None:
        return None
    said = given.get(FILE_SEARCH) or {}
    ranking = said.get("ranking_options") or {}
    return SearchOptions(
        said.get("max_num_results") or _USUAL_RESULTS,
        ranking.get("score_threshold") or 0.0,
        ranking.get("ranker") or "auto",
    )


def new_call_id() -> str:
    """The id of a call that no model made."""
    return f"call_{secrets.token_hex(12)}"


def query_of(arguments: str) -> str:
    """What a call looks for; empty where it does not say."""
    query = (parsed_arguments(arguments) or {}).get("query")
    return query.strip() if isinstance(query, str) else ""


def searched(
    call_id: str, query: str, options: SearchOptions, first: int, found: Sequence[FoundText]
) -> SearchCall:
    """A call that was carried out."""
    results: list[SearchCallResult] = [
        {
            "file_id": each.file_id,
            "file_name": each.filename,
            "score": each.score,
            "content": [{"type": "text", "text": each.text}],
        }
        for each in found
    ]
    ranking: RankingOptions = {"ranker": options.ranker, "score_threshold": options.threshold}
    search: Search = {"query": query, "ranking_options": ranking, "first": first, "results": results}
    return {"id": call_id, "type": FILE_SEARCH, "file_search": search}


def searches_of(steps: Sequence[Mapping[str, Any]]) -> list[SearchCall]:
    """The searches of some steps that were carried out, in their order."""
    return [
        call
        for step in steps
        for call in step["step_details"].get("tool_calls", ())
        if call["type"] == FILE_SEARCH and "results" in call[FILE_SEARCH]
    ]


def kind_of_calls(step: RunStepObject) -> str:
    """What a step is looked for by: its type, or `file_search` where it has searches alone."""
    calls = step["step_details"].get("tool_calls", ())
    searches_alone = bool(calls) and all(call["type"] == FILE_SEARCH for call in calls)
    return FILE_SEARCH if searches_alone else step["type"]


def found_texts(search: Search) -> list[FoundText]:
    """What a search found."""
    return [
        FoundText(each["file_id"], each["file_name"], each["score"], each["content"][0]["text"])
        for each in search["results"]
    ]


def shown_step(step: RunStepObject, *, with_content: bool) -> RunStepObject:
    """A step as clients see it: with the texts that were found only where they ask for them."""
    calls = step["step_details"].get("tool_calls", ())
    if not any(call["type"] == FILE_SEARCH for call in calls):
        return step
    shown = [
        {**call, FILE_SEARCH: _shown_search(call[FILE_SEARCH], with_content)}
        if call["type"] == FILE_SEARCH
        else call
        for call in calls
    ]
    return cast("RunStepObject", {**step, "step_details": {**step["step_details"], "tool_calls": shown}})


def _shown_search(search: Mapping[str, Any], with_content: bool) -> dict[str, Any]:
    if "results" not in search:
        return {}
    kept = [name for name in SearchCallResult.__annotations__ if with_content or name != "content"]
    results = [{name: result[name] for name in kept} for result in search["results"]]
    shown = {name: value for name, value in search.items() if name != "first"}
    return {**shown, "results": results}
