"""What clients of files and vector stores do again and again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx


async def upload(
    http: httpx.AsyncClient,
    content: bytes | str,
    name: str = "a.txt",
    purpose: str = "assistants",
    **fields: str,
) -> dict[str, Any]:
    """Upload a file, which is taken."""
    answer = await http.post(
        "/v1/files", files={"file": (name, content)}, data={"purpose": purpose, **fields}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def new_store(http: httpx.AsyncClient, **body: object) -> str:
    """Make a vector store."""
    answer = await http.post("/v1/vector_stores", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def settled(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """An object once it is in progress no more."""
    while True:
        answer = await http.get(path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        if found["status"] != "in_progress":
            return found
        await asyncio.sleep(0)


async def search(
    http: httpx.AsyncClient, store_id: str, query: object, **fields: object
) -> list[dict[str, Any]]:
    """What is found."""
    answer = await http.post(f"/v1/vector_stores/{store_id}/search", json={"query": query, **fields})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def error(answer: httpx.Response) -> tuple[int, str, str | None, str | None]:
    """Status, message, param and code of an answer."""
    told = answer.json()["error"]
    return answer.status_code, told["message"], told["param"], told["code"]
