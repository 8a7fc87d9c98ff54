"""docs/api says all that the routes do, and its examples run."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from openai.types.responses import FunctionToolParam
from starlette.routing import Route, WebSocketRoute

from kolosal.app import create_app
from kolosal.engines.parameters import LoadingParameters
from kolosal.errors import ERROR_TABLE
from kolosal.models.folders import PlainFolder
from kolosal.models.library import Library
from kolosal.models.settings_file import SettingsFile
from kolosal.routes import all_routes
from kolosal.routes.admin.engine_body import EngineBody, UnloadBody
from kolosal.routes.anthropic.body import IGNORED_FIELDS, REFUSED_FIELDS, MessagesBody
from kolosal.routes.anthropic.conversation import InputMessage
from kolosal.routes.anthropic.tools import InputTool
from kolosal.routes.assistants.bodies import (
    AssistantBody,
    RunBody,
    ThreadBody,
    ThreadMessageBody,
    ThreadRunBody,
    ToolOutputsBody,
)
from kolosal.routes.common.lists import ListQuery
from kolosal.routes.conversation.body import ChatQuery, ConversationBody
from kolosal.routes.jsonrpc.history import HistoryMessage, ToolResult
from kolosal.routes.jsonrpc.params import CreateMessageParams
from kolosal.routes.jsonrpc.rpc import RpcBody
from kolosal.routes.jsonrpc.tools import RpcTool
from kolosal.routes.llama_server.completion import NativeCompletionBody
from kolosal.routes.llama_server.embedding import NativeEmbeddingBody
from kolosal.routes.llama_server.infill import InfillBody
from kolosal.routes.llama_server.rerank import RerankBody
from kolosal.routes.llama_server.tokens import DetokenizeBody, TokenizeBody
from kolosal.routes.ollama.body import IGNORED_FIELDS as IGNORED_FIELDS_OF_OLLAMA
from kolosal.routes.ollama.chat_body import OllamaChatBody
from kolosal.routes.ollama.create import CopyBody, CreateBody
from kolosal.routes.ollama.embed import EmbedBody, OllamaEmbeddingBody
from kolosal.routes.ollama.generate_body import GenerateBody
from kolosal.routes.ollama.messages import OllamaInputMessage
from kolosal.routes.ollama.options import IGNORED_OPTIONS, Options
from kolosal.routes.ollama.show import ShowBody
from kolosal.routes.openai.body import GenerationBody
from kolosal.routes.openai.chat import ChatCompletionBody
from kolosal.routes.openai.completions import CompletionBody
from kolosal.routes.openai.embeddings import EmbeddingBody
from kolosal.routes.openai.messages import ChatMessage
from kolosal.routes.openai.responses.body import ResponseBody
from kolosal.routes.openai.responses.query import ItemsQuery
from kolosal.routes.websocket.create_session import SessionBody
from kolosal.routes.websocket.params import GenerateParams, SessionToolResult, ToolResultParams
from tests.fakes import FakeCluster, FakeEngine, FakeRegistry, http_client, says
from tests.gguf_files import LLAMA, gguf
from tests.settings import settings_of

DOCS = Path(__file__).parents[2] / "docs" / "api"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
CURLS = [
    (f"{name}:{number}", line)
    for name, text in PAGES.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for number, line in enumerate(block.splitlines())
]


def test_every_path_is_documented() -> None:
    text = "\n".join(PAGES.values())
    paths = {
        re.sub(r":\w+}", "}", route.path)
        for route in all_routes()
        if isinstance(route, Route | WebSocketRoute)
    }
    told = {
        path
        for path in paths
        if f"`{path}`" in text or f" {path}`" in text or f" {_other_alias(path)}`" in text
    }
    assert paths - told == set()


def _other_alias(path: str) -> str:
    return path.removeprefix("/v1") if path.startswith("/v1/") else f"/v1{path}"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("engines.md", [*EngineBody.model_fields, *(field.name for field in fields(LoadingParameters))]),
        ("engines.md", UnloadBody.model_fields),
        (
            "openai.md",
            [*ChatCompletionBody.model_fields, *CompletionBody.model_fields, *ChatMessage.model_fields],
        ),
        ("openai.md", [*ChatCompletionBody.UNSUPPORTED, *ChatMessage.UNSUPPORTED, *InfillBody.model_fields]),
        (
            "embeddings.md",
            [
                *EmbeddingBody.model_fields,
                *EmbeddingBody.UNSUPPORTED,
                *RerankBody.model_fields,
                *RerankBody.UNSUPPORTED,
            ],
        ),
        (
            "llama-server.md",
            [
                *sorted(NativeCompletionBody.model_fields.keys() - GenerationBody.model_fields.keys()),
                *NativeEmbeddingBody.model_fields,
            ],
        ),
        ("embeddings.md", [*TokenizeBody.model_fields, *DetokenizeBody.model_fields]),
        ("responses.md", [*ResponseBody.model_fields, *ResponseBody.UNSUPPORTED, *ItemsQuery.model_fields]),
        (
            "assistants.md",
            [
                *AssistantBody.model_fields,
                *RunBody.model_fields,
                *ThreadRunBody.model_fields,
                *ListQuery.model_fields,
            ],
        ),
        (
            "assistants.md",
            [*ThreadBody.model_fields, *ThreadMessageBody.model_fields, *ToolOutputsBody.model_fields],
        ),
        ("responses.md", [name for name in FunctionToolParam.__annotations__ if name != "async_"]),
        ("anthropic.md", [*MessagesBody.model_fields, *InputMessage.model_fields, *InputTool.model_fields]),
        ("anthropic.md", [*IGNORED_FIELDS, *REFUSED_FIELDS]),
        (
            "ollama.md",
            [*GenerateBody.model_fields, *OllamaChatBody.model_fields, *OllamaInputMessage.model_fields],
        ),
        (
            "ollama.md",
            [*OllamaChatBody.UNSUPPORTED, *IGNORED_FIELDS_OF_OLLAMA, *OllamaInputMessage.UNSUPPORTED],
        ),
        (
            "ollama.md",
            [
                *Options.model_fields,
                *IGNORED_OPTIONS,
                *EmbedBody.model_fields,
                *OllamaEmbeddingBody.model_fields,
            ],
        ),
        (
            "ollama.md",
            [
                *ShowBody.model_fields,
                *CopyBody.model_fields,
                *(CreateBody.model_fields.keys() - {"base"}),
                "from",
            ],
        ),
        (
            "jsonrpc.md",
            [*RpcBody.model_fields, *CreateMessageParams.model_fields, *HistoryMessage.model_fields],
        ),
        ("jsonrpc.md", [*RpcTool.model_fields, *ToolResult.model_fields]),
        ("websocket.md", [*SessionBody.model_fields, *GenerateParams.model_fields]),
        ("websocket.md", [*ToolResultParams.model_fields, *SessionToolResult.model_fields]),
        ("conversation.md", [*ConversationBody.model_fields, *ChatQuery.model_fields, "content"]),
    ],
)
def test_every_field_has_its_row(page: str, names: list[str]) -> None:
    rows = "\n".join(re.findall(r"^\| ([^|]*)\|", PAGES[page], re.MULTILINE))
    assert [name for name in names if f"`{name}`" not in rows] == []


def test_every_code_is_documented() -> None:
    codes = {row.openai_code for row in ERROR_TABLE.values() if row.openai_code}
    assert [code for code in sorted(codes) if f"`{code}`" not in PAGES["README.md"]] == []


@pytest.mark.parametrize("line", [line for _, line in CURLS], ids=[name for name, _ in CURLS])
async def test_every_curl_example_is_answered(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(line)[1:] if word != "-N"]
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if "-d" in words else "GET"
    body = words[words.index("-d") + 1] if "-d" in words else None
    url = next(word for word in words if word.startswith("http://127.0.0.1:8080"))
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "Tiny-Q4_K_M.gguf").write_bytes(gguf(LLAMA))
    engines = FakeRegistry(FakeEngine("tiny", says("Hello")))
    said = SettingsFile(tmp_path / "models.yaml")
    app = create_app(
        settings_of(store_url=f"sqlite:///{tmp_path / 'kolosal.db'}"),
        engines,
        library=Library([PlainFolder(tmp_path)]),
        model_settings=said,
    )
    app.state.services.cluster = FakeCluster()
    async with http_client(app) as client:
        response = await client.request(method, url, content=body)
    await app.state.services.store.close()
    if body is not None and "model_path" in body:
        assert response.json()["error"]["code"] == "model_path_not_found"  # all that is missing is the file
    else:
        assert response.status_code == 200
