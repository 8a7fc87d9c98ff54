"""Models made of others, other names for them, and files that are sent: with the official client where it can."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from starlette.applications import Starlette

from kolosal.models.folders import PlainFolder
from kolosal.models.library import Library
from kolosal.models.settings_file import SettingsFile
from kolosal.schema import ChatPrompt
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.gguf_files import gguf
from tests.routes.ollama.asking import HELLO


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine("fake", says("a"))


@pytest.fixture
def app(engine: FakeEngine, tmp_path: Path) -> Starlette:
    app = app_with(engine)
    services = app.state.services
    services.model_settings = SettingsFile(tmp_path / "models.yaml")
    services.library = Library([PlainFolder(tmp_path / "models")])
    return app


def client_of(app: Starlette) -> ollama.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return ollama.AsyncClient("http://localhost", transport=transport)


def settings(app: Starlette) -> dict[str, Any]:
    """What the file says."""
    said = app.state.services.model_settings.said.settings
    models: dict[str, Any] = said.model_dump(mode="json", by_alias=True, exclude_defaults=True).get(
        "models", {}
    )
    return models


async def test_a_model_of_another_one(app: Starlette, engine: FakeEngine) -> None:
    client = client_of(app)
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    made = await client.create(
        "mario:latest", from_="fake:latest", system="You are Mario.", messages=turns,
        parameters={"temperature": 0.2, "stop": "END", "num_predict": 7, "num_keep": 4}, license="MIT",
    )  # fmt: skip
    assert made.status == "success"
    await client.chat("mario", HELLO)
    [request] = engine.requests
    assert isinstance(request.prompt, ChatPrompt)
    assert [turn.content for turn in request.prompt.messages] == ["You are Mario.", "Who?", "Me.", "Hello"]
    assert (request.sampling.temperature, request.sampling.stop, request.sampling.max_tokens) == (
        0.2,
        ("END",),
        7,
    )
    assert app.state.services.registry.list() == [engine]  # no second load
    shown = await client.show("mario")
    assert shown.parameters is not None
    assert shown.parameters.split() == [
        "num_ctx",
        "4096",
        "num_predict",
        "7",
        "stop",
        '"END"',
        "temperature",
        "0.2",
    ]
    assert shown.modelfile is not None
    assert shown.modelfile.split("\n", 1)[1] == (
        'PARAMETER num_ctx 4096\nPARAMETER num_predict 7\nPARAMETER stop "END"\nPARAMETER temperature 0.2\n'
        'SYSTEM """You are Mario."""\nMESSAGE user Who?\nMESSAGE assistant Me.\n'
    )


async def test_what_was_done_is_said(app: Starlette) -> None:
    body = {
        "model": "m",
        "from": "fake",
        "template": "{{ .Prompt }}",
        "parameters": {"num_keep": 4},
        "license": "MIT",
    }
    async with http_client(app) as client:
        lines = (await client.post("/api/create", json=body)).text
        whole = (await client.post("/api/create", json=body | {"stream": False})).json()
    told = [
        "using fake",
        "the template is written in Go's language and not used: the chat template of the model's file is",
        "the parameter num_keep has no effect here", "the license is not kept", "writing models.yaml", "success",
    ]  # fmt: skip
    assert lines == "".join(f'{{"status":"{line}"}}\n' for line in told)
    assert whole == {"status": "success", "notes": told[:-1]}


async def test_a_model_made_anew_of_itself_keeps_the_rest(app: Starlette) -> None:
    client = client_of(app)
    await client.create("m", from_="fake", system="One.", parameters={"top_k": 3})
    await client.create("m", from_="m", parameters={"top_p": 0.5})
    assert settings(app) == {"m": {"from": "fake", "system": "One.", "sampling": {"top_k": 3, "top_p": 0.5}}}


async def test_a_modelfile_of_older_clients(app: Starlette) -> None:
    text = 'FROM fake\nSYSTEM """Two\nlines"""\nPARAMETER stop a\nPARAMETER stop b\nMESSAGE user Hi'
    async with http_client(app) as client:
        await client.post("/api/create", json={"name": "m", "modelfile": text})
    assert settings(app)["m"] == {
        "from": "fake", "system": "Two\nlines", "sampling": {"stop": ["a", "b"]},
        "messages": [{"role": "user", "content": "Hi"}],
    }  # fmt: skip


async def test_other_names(app: Starlette, engine: FakeEngine) -> None:
    client = client_of(app)
    assert (await client.copy("fake", "two:latest")).status == "success"
    await client.create("m", from_="two", system="S.")
    await client.copy("m", "three")
    assert [model.model for model in (await client.list()).models] == ["fake", "two", "m", "three"]
    await client.chat("two", HELLO)
    assert len(engine.requests) == 1
    await client.copy("fake", "three")  # which meant another model
    assert settings(app) == {"fake": {"alias": ["two", "three"]}, "m": {"from": "fake", "system": "S."}}
    await client.delete("two")
    await client.copy("m", "four")
    await client.delete("m")
    assert settings(app) == {"fake": {"alias": ["three"]}, "four": {"from": "fake", "system": "S."}}
    assert app.state.services.registry.list() == [engine]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "m"}, 400, "Missing required field: from, or files"),
        ({"from": "fake"}, 400, "Missing required field: model"),
        ({"model": "m", "from": "nobody"}, 404, "model 'nobody' not found"),
        ({"model": "fake", "from": "nobody"}, 404, "model 'nobody' not found"),
        ({"model": "m", "from": "fake", "parameters": {"heat": 1}}, 400, "the parameter 'heat' is unknown: known are"),
        ({"model": "m", "from": "fake", "parameters": {"top_p": 2}}, 400, "the parameter top_p must be less than or equal to 1"),
        ({"model": "m", "from": "fake", "adapters": {"a": "b"}}, 400, "adapters must be left out"),
        ({"model": "m", "from": "fake", "quantize": "q4_0"}, 400, "quantize must be left out"),
        ({"model": "m", "modelfile": "FROM"}, 400, "Missing required field: from, or files"),
        ({"model": "m", "modelfile": "FORM x"}, 400, "line 1 of the Modelfile: 'FORM' is no command of a Modelfile"),
        ({"model": "m", "files": {"a.gguf": "sha256:12"}}, 400, "a digest must be sha256: and 64 hexadecimal digits"),
        ({"model": "m", "files": {"a.gguf": "sha256:" + "0" * 64}}, 400, "was not sent"),
        ({"model": "m", "files": {"a": "x", "b": "y"}}, 400, "files must have one GGUF file, not 2"),
    ],
)  # fmt: skip
async def test_what_cannot_be_made(app: Starlette, body: dict[str, Any], status: int, message: str) -> None:
    async with http_client(app) as client:
        answer = await client.post("/api/create", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert settings(app) == {}


# --- files ---


async def test_a_file_that_is_sent_becomes_a_model(app: Starlette, tmp_path: Path) -> None:
    content = gguf()
    (tmp_path / "mine.gguf").write_bytes(content)
    client = client_of(app)
    digest = await client.create_blob(tmp_path / "mine.gguf")
    async with http_client(app) as http:
        assert (await http.head(f"/api/blobs/{digest}")).status_code == 200
    await client.create("org/mine", files={"mine.gguf": digest}, system="S.")
    [model] = app.state.services.library.models
    assert (model.path, model.path.read_bytes()) == (tmp_path / "models" / "org-mine.gguf", content)
    assert settings(app) == {"org/mine": {"from": "org-mine", "system": "S."}}
    assert [*(tmp_path / "models" / "blobs").iterdir()] == []


@pytest.mark.parametrize(
    ("digest", "status", "message"),
    [
        ("0" * 64, 400, "the digest of what was sent is sha256:" + hashlib.sha256(b"hello").hexdigest()),
        ("0" * 63, 400, "a digest must be sha256: and 64 hexadecimal digits"),
        ("..%2F" + "0" * 60, 400, "a digest must be"),
    ],
)
async def test_a_file_with_another_digest_leaves_nothing(
    app: Starlette, tmp_path: Path, digest: str, status: int, message: str
) -> None:
    async with http_client(app) as client:
        answer = await client.post(f"/api/blobs/sha256:{digest}", content=b"hello")
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert [*tmp_path.rglob("*sha256*"), *tmp_path.rglob("upload-*")] == []  # noqa: ASYNC240


async def test_a_file_that_is_no_model_makes_none(app: Starlette, tmp_path: Path) -> None:
    digest = f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    async with http_client(app) as client:
        assert (await client.post(f"/api/blobs/{digest}", content=b"hello")).status_code == 201
        answer = await client.post("/api/create", json={"model": "m", "files": {"m.gguf": digest}})
    assert answer.status_code in (400, 422)
    assert [*(tmp_path / "models").glob("*.gguf")] == []


async def test_no_room_on_the_disk(app: Starlette) -> None:
    digest = "sha256:" + "0" * 64
    async with http_client(app) as client:
        headers = {"content-length": str(1 << 45)}
        answer = await client.post(f"/api/blobs/{digest}", content=b"hello", headers=headers)
    assert (answer.status_code, answer.json()["error"].startswith("there is no room for 33554432 MiB")) == (
        507,
        True,
    )
