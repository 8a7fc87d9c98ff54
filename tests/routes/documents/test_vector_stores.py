from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from kolosal.engines.ipc.calls import Embed
from kolosal.errors import GenerationFailed
from kolosal.store.expiry import drop_everyones
from kolosal.store.maintenance import check
from tests.fakes import FakeEngine, app_with, eventually, http_client
from tests.routes.documents.clients import error, new_store, search, settled, upload

CATS, DOGS, BANK = "A cat sleeps.", "A dog barks at a dog.", "The bank is closed."


async def filled(http: httpx.AsyncClient, *texts: str, **body: object) -> tuple[str, list[str]]:
    """A vector store whose files are embedded, and their ids."""
    ids = [(await upload(http, text, f"{n}.txt"))["id"] for n, text in enumerate(texts)]
    store_id = await new_store(http, file_ids=ids, **body)
    await settled(http, f"/v1/vector_stores/{store_id}")
    return store_id, ids


async def test_vector_store_is_made_changed_and_deleted(http: httpx.AsyncClient) -> None:
    made = (await http.post("/v1/vector_stores", content=b"")).json()
    path = f"/v1/vector_stores/{made['id']}"
    changes = {
        "name": "New",
        "metadata": {"a": "b"},
        "expires_after": {"anchor": "last_active_at", "days": 2},
    }
    changed = (await http.post(path, json=changes)).json()

    assert made == made | {
        "object": "vector_store", "name": "", "status": "completed", "usage_bytes": 0, "metadata": {},
        "expires_after": None, "expires_at": None,
        "file_counts": {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0},
    }  # fmt: skip
    assert changed == made | changes | {"expires_at": made["created_at"] + 2 * 86_400}
    assert (await http.get("/vector_stores")).json()["data"] == [changed]
    assert (await http.delete(path)).json() == {
        "id": made["id"],
        "object": "vector_store.deleted",
        "deleted": True,
    }
    assert error(await http.get(path))[:2] == (404, f"No vector store found with id '{made['id']}'.")


async def test_best_chunks_are_found_first(http: httpx.AsyncClient) -> None:
    store_id, (cats, _dogs, bank) = await filled(http, CATS, DOGS, BANK)
    found = await search(http, store_id, "my cat and the bank", max_num_results=2)
    several = await search(http, store_id, ["cat", "dog"], ranking_options={"score_threshold": 0.5})

    assert [each["file_id"] for each in found] == [cats, bank]
    assert found[0] == {
        "file_id": cats, "filename": "0.txt", "score": pytest.approx(0.7071, abs=1e-4), "attributes": {},
        "content": [{"type": "text", "text": CATS}],
    }  # fmt: skip
    assert [each["filename"] for each in several] == ["0.txt", "1.txt"]
    shown = (await http.get(f"/v1/vector_stores/{store_id}")).json()
    assert shown["file_counts"]["completed"] == 3
    assert shown["usage_bytes"] > 3 * 12


async def test_filter_says_which_files_are_searched(http: httpx.AsyncClient) -> None:
    store_id, ids = await filled(http, CATS, "One more cat.", "A third cat.")
    for file_id, year in zip(ids, (2024, 2025, 2026), strict=True):
        path = f"/v1/vector_stores/{store_id}/files/{file_id}"
        changed = (await http.post(path, json={"attributes": {"year": year, "draft": year > 2025}})).json()
        assert changed["attributes"] == {"year": year, "draft": year > 2025}
    newer = {"type": "gte", "key": "year", "value": 2025}
    not_draft = {"type": "and", "filters": [newer, {"type": "eq", "key": "draft", "value": False}]}

    assert [each["attributes"]["year"] for each in await search(http, store_id, "cat", filters=newer)] == [
        2025,
        2026,
    ]
    assert [each["file_id"] for each in await search(http, store_id, "cat", filters=not_draft)] == [ids[1]]
    assert await search(http, store_id, "cat", filters={"type": "lt", "key": "year", "value": 2000}) == []


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "eq", "key": "a", "value": 1}
    for _ in range(depth):
        inner = {"type": "or", "filters": [inner]}
    return inner


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"type": "like", "key": "a", "value": 1}, "filters.type"),
        ({"type": "eq", "value": 1}, "filters.key"),
        ({"type": "eq", "key": "a", "value": {}}, "filters.value"),
        ({"type": "eq", "key": "a", "value": [1]}, "filters.value"),
        ({"type": "in", "key": "a", "value": 1}, "filters.value"),
        ({"type": "and", "filters": [{"type": "or"}]}, "filters.filters.0.filters"),
        ({"type": "and", "filters": [nested(0)] * 65}, "filters.filters"),
        (nested(9), "filters" + ".filters.0" * 8),
    ],
)
async def test_filter_that_is_none_is_refused_by_name(
    http: httpx.AsyncClient, given: dict[str, Any], param: str
) -> None:
    answer = await http.post("/v1/vector_stores/vs_1/search", json={"query": "a", "filters": given})

    assert error(answer)[::2] == (400, param)


@pytest.mark.parametrize(
    "fields",
    [{"rewrite_query": True}, {"ranking_options": {"hybrid_search": {"text_weight": 1}}}],
)
async def test_search_that_is_not_had_here_is_refused_by_name(
    http: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    answer = await http.post("/v1/vector_stores/vs_1/search", json={"query": "a", **fields})

    assert error(answer)[::3] == (400, "unsupported_feature")


async def test_long_file_is_cut_into_chunks_that_overlap(
    http: httpx.AsyncClient, embedder: FakeEngine
) -> None:
    sentences = [f"Cat number {n:04} sleeps. " for n in range(40)]  # 23 tokens, which are bytes
    made = await upload(http, "".join(sentences))
    store_id = await new_store(http)
    chunking = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}
    body = {"file_id": made["id"], "chunking_strategy": chunking}
    added = (await http.post(f"/v1/vector_stores/{store_id}/files", json=body)).json()
    await settled(http, f"/v1/vector_stores/{store_id}/files/{made['id']}")
    texts = [each.text for call in embedder.calls if isinstance(call, Embed) for each in call.inputs]  # type: ignore[union-attr]

    assert added["chunking_strategy"] == chunking
    assert texts[0] == "".join(sentences[:4]).strip()
    assert texts[1] == "".join(sentences[2:6]).strip()
    assert len(texts) == 19


async def test_overlap_of_more_than_half_is_refused(http: httpx.AsyncClient) -> None:
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}
    answer = await http.post(
        "/v1/vector_stores/vs_1/files",
        json={"file_id": "file-1", "chunking_strategy": {"type": "static", "static": static}},
    )

    assert error(answer)[:3] == (
        400,
        "chunking_strategy.static.chunk_overlap_tokens must be at most half of max_chunk_size_tokens, which is 100, not 51",
        "chunking_strategy.static.chunk_overlap_tokens",
    )


async def test_file_that_is_deleted_is_found_no_more(http: httpx.AsyncClient) -> None:
    store_id, (cats, dogs, bank) = await filled(http, CATS, "Another cat.", "A third cat.")
    path = f"/v1/vector_stores/{store_id}/files"
    await http.delete(f"/v1/files/{cats}")
    taken_out = await http.delete(f"{path}/{dogs}")

    assert taken_out.json() == {"id": dogs, "object": "vector_store.file.deleted", "deleted": True}
    assert [each["file_id"] for each in await search(http, store_id, "cat")] == [bank]
    assert [each["id"] for each in (await http.get(path)).json()["data"]] == [bank]
    assert (await http.get(f"/v1/files/{dogs}")).status_code == 200
    status, message, *_ = error(await http.get(f"{path}/{dogs}"))
    assert (status, message) == (404, f"No file found with id '{dogs}' in vector store '{store_id}'.")


async def test_files_of_a_vector_store_are_listed_in_pages(http: httpx.AsyncClient) -> None:
    store_id, ids = await filled(http, CATS, DOGS, BANK)
    path = f"/v1/vector_stores/{store_id}/files"
    first = (await http.get(path, params={"limit": 2, "order": "asc"})).json()
    rest = (await http.get(path, params={"order": "asc", "after": first["last_id"]})).json()

    assert [each["id"] for each in first["data"]] == ids[:2]
    assert first["has_more"] is True
    assert [each["id"] for each in rest["data"]] == ids[2:]
    assert (await http.get(path, params={"filter": "failed"})).json()["data"] == []


async def test_batch_puts_files_in_together(http: httpx.AsyncClient) -> None:
    ids = [(await upload(http, text))["id"] for text in (CATS, DOGS)]
    store_id = await new_store(http)
    path = f"/v1/vector_stores/{store_id}/file_batches"
    files = [{"file_id": ids[0], "attributes": {"kind": "cat"}}, {"file_id": ids[1]}]
    made = (await http.post(path, json={"files": files})).json()
    done = await settled(http, f"{path}/{made['id']}")
    listed = (await http.get(f"{path}/{made['id']}/files", params={"order": "asc"})).json()["data"]

    assert made["status"] == "in_progress"
    assert (done["status"], done["file_counts"]["completed"]) == ("completed", 2)
    assert [(each["id"], each["attributes"]) for each in listed] == [(ids[0], {"kind": "cat"}), (ids[1], {})]


@pytest.mark.parametrize("body", [{}, {"file_ids": ["file-1"], "files": [{"file_id": "file-1"}]}])
async def test_batch_has_files_in_one_way(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await http.post("/v1/vector_stores/vs_1/file_batches", json=body)

    assert error(answer)[:2] == (400, "Either file_ids or files is required, and not both")


async def test_cancelled_batch_embeds_no_more(http: httpx.AsyncClient, embedder: FakeEngine) -> None:
    embedder.loading = loading = asyncio.Event()
    file_id = (await upload(http, CATS))["id"]
    store_id = await new_store(http)
    path = f"/v1/vector_stores/{store_id}/file_batches"
    made = (await http.post(path, json={"file_ids": [file_id]})).json()
    await embedder.is_waited_for.wait()  # else it is never begun
    cancelled = (await http.post(f"{path}/{made['id']}/cancel")).json()
    loading.set()

    assert (cancelled["status"], cancelled["file_counts"]["cancelled"]) == ("cancelled", 1)
    await eventually(lambda: any(isinstance(call, Embed) for call in embedder.calls))
    assert (await http.get(f"{path}/{made['id']}")).json() == cancelled
    assert await search(http, store_id, "cat") == []


async def test_file_that_is_nobodys_or_given_twice_is_refused(http: httpx.AsyncClient) -> None:
    file_id = (await upload(http, CATS))["id"]
    unknown = await http.post("/v1/vector_stores", json={"file_ids": [file_id, "file-none"]})
    twice = await http.post("/v1/vector_stores", json={"file_ids": [file_id, file_id]})

    assert error(unknown)[:2] == (404, "No file found with id 'file-none'.")
    assert error(twice)[:2] == (400, "A file may be given once only")
    assert (await http.get("/v1/vector_stores")).json()["data"] == []


async def test_file_without_a_text_fails_and_says_so(http: httpx.AsyncClient) -> None:
    file_id = (await upload(http, CATS, purpose="batch"))["id"]
    store_id = await new_store(http, file_ids=[file_id])
    failed = await settled(http, f"/v1/vector_stores/{store_id}/files/{file_id}")

    assert failed["status"] == "failed"
    assert failed["last_error"]["code"] == "unsupported_file"
    assert "has the purpose 'batch' and cannot be read by models" in failed["last_error"]["message"]


async def test_engine_that_fails_fails_the_file(http: httpx.AsyncClient, embedder: FakeEngine) -> None:
    embedder.answer = lambda _: GenerationFailed("The model could not compute the embeddings")
    file_id = (await upload(http, CATS))["id"]
    store_id = await new_store(http, file_ids=[file_id])
    failed = await settled(http, f"/v1/vector_stores/{store_id}/files/{file_id}")

    assert failed["last_error"] == {
        "code": "server_error",
        "message": "The model could not compute the embeddings",
    }


async def test_where_nothing_embeds_files_fail_and_say_so(
    make_app: Callable[..., Starlette], tmp_path: Any
) -> None:
    app = app_with(store_url=f"sqlite:///{tmp_path / 'none.db'}")
    async with http_client(app) as http:
        file_id = (await upload(http, CATS))["id"]
        store_id = await new_store(http, file_ids=[file_id])
        failed = await settled(http, f"/v1/vector_stores/{store_id}/files/{file_id}")
    await app.state.services.indexer.close()
    await app.state.services.store.close()

    assert failed["last_error"]["message"] == (
        "No engine makes embeddings: load one, or name one in the setting documents.embedding_engine"
    )


async def test_another_model_under_the_name_is_refused(http: httpx.AsyncClient, embedder: FakeEngine) -> None:
    store_id, _ = await filled(http, CATS)
    object.__setattr__(embedder.config, "model_path", "/models/other.gguf")
    answer = await http.post(f"/v1/vector_stores/{store_id}/search", json={"query": "cat"})

    assert error(answer)[::3] == (409, "other_embedding_model")


async def test_daemon_goes_on_with_what_another_left(
    make_app: Callable[..., Starlette], embedder: FakeEngine
) -> None:
    embedder.loading = asyncio.Event()  # for ever
    first = make_app()
    async with http_client(first) as http:
        file_id = (await upload(http, CATS))["id"]
        store_id = await new_store(http, file_ids=[file_id])
    await first.state.services.indexer.close()
    await first.state.services.store.close()
    embedder.loading = None
    second = make_app()
    second.state.services.store.on_opened = second.state.services.indexer.wake
    async with http_client(second) as http:
        done = await settled(http, f"/v1/vector_stores/{store_id}/files/{file_id}")

        assert done["status"] == "completed"
        assert [each["file_id"] for each in await search(http, store_id, "cat")] == [file_id]


async def test_expired_vector_store_is_searched_no_more(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id, _ = await filled(http, CATS, expires_after={"anchor": "last_active_at", "days": 1})
    shown = (await http.get(f"/v1/vector_stores/{store_id}")).json()
    monkeypatch.setattr("time.time", lambda: float(shown["expires_at"]))
    answer = await http.post(f"/v1/vector_stores/{store_id}/search", json={"query": "cat"})

    assert error(answer)[::3] == (400, "vector_store_expired")
    assert (await http.get(f"/v1/vector_stores/{store_id}")).json()["status"] == "expired"


async def test_expired_vector_store_counts_no_bytes(
    app: Starlette, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = app.state.services.store

    async def used() -> int:
        async with store.reading(None) as session:
            used_bytes: int = await session.used_bytes()
            return used_bytes

    before = await used()
    store_id, (file_id,) = await filled(http, CATS, expires_after={"anchor": "last_active_at", "days": 1})
    full = await used()
    shown = (await http.get(f"/v1/vector_stores/{store_id}")).json()
    await drop_everyones(store, shown["expires_at"] - 1)
    assert await used() == full
    await drop_everyones(store, shown["expires_at"])
    assert before < await used() < full - shown["usage_bytes"]
    monkeypatch.setattr("time.time", lambda: float(shown["expires_at"]))
    emptied = (await http.get(f"/v1/vector_stores/{store_id}")).json()
    assert (emptied["status"], emptied["usage_bytes"], emptied["file_counts"]["total"]) == ("expired", 0, 0)
    assert (await http.get(f"/v1/files/{file_id}")).status_code == 200
    answer = await http.post(f"/v1/vector_stores/{store_id}/files", json={"file_id": file_id})
    assert error(answer)[::3] == (400, "vector_store_expired")
    changed = await http.post(f"/v1/vector_stores/{store_id}", json={"expires_after": None})
    assert changed.json()["status"] == "completed"
    answer = await http.post(f"/v1/vector_stores/{store_id}/files", json={"file_id": file_id})
    assert answer.status_code == 200


async def test_what_is_counted_is_what_is_kept(make_app: Callable[..., Starlette], tmp_path: Path) -> None:
    app = make_app()
    async with http_client(app) as http:
        store_id, (cats, *_) = await filled(http, CATS, DOGS, BANK)
        await http.delete(f"/v1/files/{cats}")
        await filled(http, CATS)
        await http.delete(f"/v1/vector_stores/{store_id}")
    await app.state.services.indexer.close()
    await app.state.services.store.close()

    assert check(tmp_path / "kolosal.db") == []
