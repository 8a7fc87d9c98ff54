from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from kolosal.security.auth import Authenticator, Keyring, Lockout
from kolosal.security.keys import KeyFile, Scope
from tests.fakes import http_client
from tests.retrieval.documents import pdf
from tests.routes.documents.clients import error, upload


async def test_file_is_kept_as_it_was_uploaded(http: httpx.AsyncClient) -> None:
    content = bytes(range(256)) * 10_000  # several pieces
    made = await upload(http, content, "a ü.bin", "batch")
    got = await http.get(f"/v1/files/{made['id']}/content")

    assert got.content == content
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20%C3%BC.bin"
    assert (await http.get(f"/files/{made['id']}")).json() == made
    assert made == made | {
        "object": "file", "bytes": 2_560_000, "filename": "a ü.bin", "purpose": "batch", "status": "processed",
        "expires_at": None,
    }  # fmt: skip


async def test_files_are_listed_by_purpose_and_page(http: httpx.AsyncClient) -> None:
    ids = [
        (await upload(http, "x", f"{n}.txt", purpose))["id"]
        for n, purpose in enumerate(("batch", "assistants", "batch"))
    ]
    whole = (await http.get("/v1/files")).json()
    page = (await http.get("/v1/files", params={"purpose": "batch", "limit": 1, "order": "asc"})).json()

    assert [each["id"] for each in whole["data"]] == ids[::-1]
    assert [each["id"] for each in page["data"]] == [ids[0]]
    assert page["has_more"] is True


async def test_deleted_file_is_gone(http: httpx.AsyncClient) -> None:
    made = await upload(http, "x")
    path = f"/v1/files/{made['id']}"

    assert (await http.delete(path)).json() == {"id": made["id"], "object": "file", "deleted": True}
    for answer in (await http.get(path), await http.get(f"{path}/content"), await http.delete(path)):
        assert error(answer)[:2] == (404, f"No file found with id '{made['id']}'.")


async def test_file_expires(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = await upload(http, "x", **fields)
    monkeypatch.setattr("time.time", lambda: float(made["created_at"] + 3600))

    assert made["expires_at"] == made["created_at"] + 3600
    assert (await http.get(f"/v1/files/{made['id']}")).status_code == 404
    assert (await http.get("/v1/files")).json()["data"] == []


async def test_file_that_a_model_cannot_read_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/files", files={"file": ("a.png", b"\x89PNG\0")}, data={"purpose": "assistants"}
    )

    status, message, param, code = error(answer)
    assert (status, param, code) == (400, "file", "unsupported_file")
    assert message.startswith("The file 'a.png' cannot be read: it is not text in UTF-8")
    assert (await http.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("files", "data", "param", "message"),
    [
        ({"file": ("a.txt", b"x")}, {}, "purpose", "Missing required field: purpose"),
        ({"file": ("a.txt", b"x")}, {"purpose": "fun"}, "purpose", "purpose must be 'assistants', "),
        ({"other": ("a.txt", b"x")}, {"purpose": "batch"}, "file", "Missing required field: file"),
        ({"file": ("a.txt", b"")}, {"purpose": "batch"}, "file", "The file is empty"),
        (
            {"file": ("a" * 256, b"x")},
            {"purpose": "batch"},
            "file",
            "The name of the file must have 1 to 255",
        ),
        (
            {"file": ("a.txt", b"x")},
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "10"},
            "expires_after.seconds",
            "expires_after.seconds must be at least 3600, not 10",
        ),
        (
            {"file": ("a", b"x"), "more": ("b", b"x")},
            {"purpose": "batch"},
            None,
            "The form in the body is not valid: Too many",
        ),
    ],
)
async def test_form_that_is_not_right_is_refused_by_name(
    http: httpx.AsyncClient,
    files: dict[str, tuple[str, bytes]],
    data: dict[str, str],
    param: str,
    message: str,
) -> None:
    status, text, named, _ = error(await http.post("/v1/files", files=files, data=data))

    assert (status, named) == (400, param)
    assert text.startswith(message)


async def test_body_that_is_no_form_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/files", json={"purpose": "batch"})

    assert error(answer)[::3] == (415, "unsupported_media_type")


async def test_file_over_the_bound_is_refused_before_it_is_read(make_app: Callable[..., Starlette]) -> None:
    async with http_client(make_app(documents_max_file_bytes=1024)) as http:
        announced = await http.post(
            "/v1/files",
            content=b"",
            headers={"content-length": "1000000", "content-type": "multipart/form-data; boundary=x"},
        )
        long = await http.post("/v1/files", files={"file": ("a", b"x" * 1025)}, data={"purpose": "batch"})
        fits = await upload(http, b"x" * 1024)

    assert error(announced)[::3] == (413, "payload_too_large")
    assert error(long)[:2] == (413, "The file has 1025 bytes: at most 1024 are allowed")
    assert fits["bytes"] == 1024


async def test_file_may_be_longer_than_other_bodies(make_app: Callable[..., Starlette]) -> None:
    async with http_client(make_app(max_body_bytes=1024)) as http:
        assert (await upload(http, b"x" * 4096))["bytes"] == 4096


async def test_key_has_its_own_files_and_so_much_of_them(
    make_app: Callable[..., Starlette], tmp_path: Path
) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    authenticator = Authenticator(Keyring((), keys), Lockout(10, lambda: 0.0))
    app = make_app(authenticator, store_max_bytes_per_key=10_000)
    of_ada, of_bob = (keys.create(name, [Scope.INFERENCE])[1] for name in ("ada", "bob"))
    async with http_client(app, {"x-api-key": of_ada}) as ada, http_client(app, {"x-api-key": of_bob}) as bob:
        first = await upload(ada, "x" * 8000)
        more = await ada.post("/v1/files", files={"file": ("b", b"x" * 4000)}, data={"purpose": "batch"})
        other = await upload(bob, "y" * 8000)

        assert error(more)[::3] == (400, "storage_limit_exceeded")
        for verb, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            assert (await bob.request(verb, f"/v1/files/{first['id']}{path}")).status_code == 404
        assert (await bob.post("/v1/vector_stores", json={"file_ids": [first["id"]]})).status_code == 404
        assert (await bob.get("/v1/files")).json()["data"] == [other]
        assert (await ada.get("/v1/files")).json()["data"] == [first]


async def test_text_of_a_pdf_is_kept_beside_it(http: httpx.AsyncClient) -> None:
    made = await upload(http, pdf("A cat sleeps."), "a.pdf")
    store = (await http.post("/v1/vector_stores", json={"file_ids": [made["id"]]})).json()
    content = await http.get(f"/v1/vector_stores/{store['id']}/files/{made['id']}/content")

    assert content.json()["data"] == [{"type": "text", "text": "A cat sleeps."}]
    assert (await http.get(f"/v1/files/{made['id']}/content")).content == pdf("A cat sleeps.")
