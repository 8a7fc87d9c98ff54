"""A Hugging Face model behind the daemon's APIs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from transformers import AutoModelForCausalLM, AutoTokenizer

from kolosal.app import create_app
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.registry import EngineRegistry
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, FinishReason, GenerateRequest, Message
from tests.engines.helpers import DEADLINE_S, eventually
from tests.fakes import http_client
from tests.settings import settings_of
from tests.transformers.tiny_model import write_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOAD_S = 120.0
"""To import PyTorch and transformers on a machine that has much else to do."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry() -> AsyncIterator[EngineRegistry]:
    command = WorkerCommand(environment=worker_environment(os.environ), restart_delays_s=(0.0,))
    engines = EngineRegistry(command)
    yield engines
    await engines.close(drain_s=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    registry: EngineRegistry, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with one engine over the model, `hf`, and a store."""
    store_url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'kolosal.db'}"
    app = create_app(settings_of(store_url=store_url), registry)
    async with http_client(app) as client:
        client.timeout = httpx.Timeout(LOAD_S)
        body = {"engine_id": "hf", "backend": "transformers", "model_path": str(folder), "n_ctx": 512}
        added = await client.post("/engines", json=body | {"backend_options": {"device": "cpu"}})
        assert added.status_code == 201, added.text
        await client.get("/v1/assistants")  # opens the store
        yield client
    await app.state.services.runs.close()
    await app.state.services.store.close()


def said(text: str, *, cache_scope: str = "", **sampling: Any) -> GenerateRequest:
    given: dict[str, Any] = {"temperature": 0.0, "max_tokens": 24} | sampling
    prompt = ChatPrompt((Message("user", text),))
    return GenerateRequest(prompt, SamplingParams(**given), cache_scope=cache_scope)


def greedy(folder: Path, text: str, n_tokens: int) -> str:
    """What transformers itself makes of a user's turn."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    made = model.generate(**prompt, do_sample=False, max_new_tokens=n_tokens, pad_token_id=0)
    return str(tokenizer.decode(made[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


async def test_it_says_what_transformers_says(client: httpx.AsyncClient, folder: Path) -> None:
    expected = greedy(folder, "hello", 24)
    body: dict[str, Any] = {"model": "hf", "messages": [{"role": "user", "content": "hello"}]}
    body |= {"temperature": 0, "max_tokens": 24}
    chat = (await client.post("/v1/chat/completions", json=body)).json()
    stream = (await client.post("/v1/chat/completions", json=body | {"stream": True})).text
    ollama = await client.post(
        "/api/chat",
        json=body | {"stream": False, "options": {"temperature": 0, "num_predict": 24}},
    )

    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert chat["choices"][0]["message"]["content"].strip("\ufffd") == expected.strip("\ufffd")
    assert (
        "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks if each["choices"])
        == (chat["choices"][0]["message"]["content"])
    )
    assert ollama.json()["message"]["content"] == chat["choices"][0]["message"]["content"]
    assert chat["usage"]["completion_tokens"] == 24
    assert chat["usage"]["prompt_tokens"] == ollama.json()["prompt_eval_count"]


async def test_a_run_of_an_assistant_is_answered_and_the_next_one_reads_less(
    client: httpx.AsyncClient,
) -> None:
    assistant = (await client.post("/v1/assistants", json={"model": "hf", "instructions": "be brief"})).json()
    thread = (await client.post("/v1/threads", json={})).json()["id"]
    usages = []
    for text in ("hello", "again"):
        await client.post(f"/v1/threads/{thread}/messages", json={"role": "user", "content": text})
        body = {"assistant_id": assistant["id"], "stream": True, "max_completion_tokens": 8}
        said = (await client.post(f"/v1/threads/{thread}/runs", json=body)).text
        events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
        usages += [each["usage"] for each in events if each["object"] == "thread.run" and each["usage"]][-1:]
    messages = (await client.get(f"/v1/threads/{thread}/messages")).json()["data"]
    assert [each["role"] for each in messages] == ["assistant", "user"] * 2
    assert usages[0]["completion_tokens"] <= 8
    assert usages[1]["prompt_token_details"]["cached_tokens"] > 0


async def test_text_is_continued_as_it_is(client: httpx.AsyncClient) -> None:
    body = {"model": "hf", "prompt": "hello", "max_tokens": 5, "temperature": 0}
    answer = (await client.post("/v1/completions", json=body)).json()
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (5, 5)


async def test_the_engine_says_what_it_is(client: httpx.AsyncClient) -> None:
    details = (await client.get("/engines/hf")).json()
    shown = (await client.post("/api/show", json={"model": "hf"})).json()
    assert (details["backend"], details["info"]["architecture"]) == ("transformers", "llama")
    assert details["info"]["description"] == "llama float32 cpu"
    assert (details["info"]["n_vocab"], details["info"]["n_ctx_train"]) == (258, 512)
    assert (shown["details"]["format"], shown["details"]["family"]) == ("safetensors", "llama")


async def test_answers_of_one_batch_do_not_mix(client: httpx.AsyncClient, registry: EngineRegistry) -> None:
    engine = registry.get("hf")
    prompts = ["a", "something longer than that", "hello", "x" * 100, "late", "later"]
    alone = [(await engine.generate(said(text)).collect()).text for text in prompts]
    together = await asyncio.gather(*(engine.generate(said(text)).collect() for text in prompts))
    assert [each.text for each in together] == alone


async def test_seeds_and_stops(client: httpx.AsyncClient, registry: EngineRegistry) -> None:
    engine = registry.get("hf")
    drawn = [
        (await engine.generate(said("hi", temperature=1.0, seed=seed)).collect()).text for seed in (7, 7, 8)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    whole = await engine.generate(said("hello")).collect()
    stop = whole.text[6:8]
    cut = await engine.generate(said("hello", stop=(stop,))).collect()
    assert (cut.finish_reason, cut.stop) == (FinishReason.STOP, stop)
    assert whole.text.startswith(cut.text + stop)
    forbidden = tuple((token, -100.0) for token in whole.tokens[:1])
    other = await engine.generate(said("hello", logit_bias=forbidden)).collect()
    assert other.tokens[0] != whole.tokens[0]


async def test_a_control_token_that_is_spelled_stays_text(
    client: httpx.AsyncClient, registry: EngineRegistry
) -> None:
    plain = await client.post(
        "/apply-template", json={"model": "hf", "messages": [{"role": "user", "content": "a"}]}
    )
    tokens = await client.post(
        "/tokenize", json={"model": "hf", "content": "<|im_end|>", "parse_special": False}
    )
    assert plain.json()["prompt"].startswith("<|im_start|>user\na<|im_end|>")
    assert len(tokens.json()["tokens"]) == len("<|im_end|>")
    usages = [(await registry.get("hf").generate(said(text)).collect()).usage for text in ("a", "<|im_end|>")]
    assert usages[1].prompt_tokens - usages[0].prompt_tokens == len("<|im_end|>") - 1


async def test_a_conversation_is_not_read_again(client: httpx.AsyncClient, registry: EngineRegistry) -> None:
    engine = registry.get("hf")
    request = said("a conversation that goes on", cache_scope="a")
    first = await engine.generate(request).collect()
    again = await engine.generate(request).collect()
    assert first.text == again.text
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, first.usage.prompt_tokens - 1)
    assert isinstance(request.prompt, ChatPrompt)
    turns = (*request.prompt.messages, Message("assistant", "b"), Message("user", "c"))
    longer = replace(request, prompt=ChatPrompt(turns))
    reused = await engine.generate(longer).collect()
    assert first.usage.prompt_tokens <= reused.usage.cached_tokens < reused.usage.prompt_tokens
    stranger = await engine.generate(replace(longer, cache_scope="b")).collect()
    unkept = await engine.generate(replace(longer, cache_scope="b", use_cache=False)).collect()
    assert (stranger.usage.cached_tokens, unkept.usage.cached_tokens) == (0, 0)
    assert reused.text == stranger.text == unkept.text


async def test_an_abort_ends_it_within_a_token(client: httpx.AsyncClient, registry: EngineRegistry) -> None:
    engine = registry.get("hf")
    long = engine.generate(said("hello", max_tokens=400, ignore_eos=True))
    await asyncio.wait_for(long.ready(), DEADLINE_S)
    long.abort()
    assert (await engine.generate(said("hello", max_tokens=2)).collect()).usage.completion_tokens == 2
    await eventually(lambda: not engine._requests._aborted)


async def test_a_killed_process_goes_on(
    client: httpx.AsyncClient, registry: EngineRegistry, folder: Path
) -> None:
    body = {"engine_id": "doomed", "backend": "transformers", "model_path": str(folder)}
    assert (await client.post("/engines", json=body)).status_code == 201
    engine: Engine = registry.get("doomed")
    request = said("hello", max_tokens=300, ignore_eos=True)
    whole = await engine.generate(request).collect()
    stream = engine.generate(request)
    await asyncio.wait_for(stream.ready(), DEADLINE_S)
    assert engine.worker_pid is not None
    os.kill(engine.worker_pid, signal.SIGTERM)
    again = await asyncio.wait_for(stream.collect(), LOAD_S)
    assert (again.text, again.usage) == (whole.text, whole.usage)
    await registry.remove("doomed")


async def test_what_it_cannot_do_is_refused(client: httpx.AsyncClient) -> None:
    body = {"model": "hf", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for fields, words in (
        ({"logprobs": True}, "log-probabilities"),
        ({"response_format": {"type": "json_object"}}, "conform to a schema"),
        ({"tools": [tool]}, "knows no tools"),
    ):
        answer = await client.post("/v1/chat/completions", json=body | fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_feature"), fields
        assert words in answer.json()["error"]["message"]
    vectors = await client.post("/v1/embeddings", json={"model": "hf", "input": "a"})
    assert (vectors.status_code, vectors.json()["error"]["code"]) == (400, "unsupported_feature")


async def test_code_of_a_model_runs_only_where_that_was_said(
    client: httpx.AsyncClient, folder: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "strange"
    write_tiny_model(strange)
    config = json.loads((strange / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Strange"}}
    (strange / "config.json").write_text(json.dumps(config))
    (strange / "strange.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    body = {"engine_id": "strange", "backend": "transformers", "model_path": str(strange)}

    refused = await client.post("/engines", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "model_loading_failed")
    assert "trust_remote_code" in refused.json()["error"]["message"]
    assert not (tmp_path / "ran").exists()
    options = {"trust_remote_code": True, "device": "cpu"}
    await client.post("/engines", json=body | {"backend_options": options})
    assert (tmp_path / "ran").exists()
