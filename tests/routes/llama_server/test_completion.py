"""`POST /completion`, `/props`, `/slots`, `/embedding` and vLLM's names for tokens: llama-server's own shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from kolosal.schema import (
    FinishReason,
    GenerateRequest,
    TextPrompt,
    TokenDelta,
    TokenLogprob,
    TokenLogprobs,
    TokensPrompt,
    Usage,
)
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.common.test_access import ADMIN, USER, app_with_keys


def lines(_request: GenerateRequest) -> Iterable[TokenDelta]:
    yield TokenDelta("a\n", (97, 10), usage=Usage(3, 2, 1))
    yield TokenDelta("b", (98,))
    yield TokenDelta("", (99,), FinishReason.STOP, Usage(3, 4, 1), stop="c")


async def post(path: str, *engines: FakeEngine, **fields: Any) -> tuple[int, Any]:
    async with http_client(app_with(*engines)) as client:
        answer = await client.post(path, json=fields)
    return answer.status_code, answer.json()


async def events(*engines: FakeEngine, **fields: Any) -> list[dict[str, Any]]:
    async with http_client(app_with(*engines)) as client:
        answer = await client.post("/completion", json=fields | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *frames, end = answer.text.split("\n\n")
    assert end == ""
    return [orjson.loads(frame.removeprefix("data: ")) for frame in frames]


@pytest.mark.parametrize("path", ["/completion", "/completions"])
async def test_a_whole_answer_has_llama_servers_keys(path: str) -> None:
    engine = FakeEngine(script=lines)
    status, body = await post(path, engine, prompt="x", return_tokens=True)
    assert status == 200
    settings, timings = body.pop("generation_settings"), body.pop("timings")
    assert body == {
        "index": 0, "content": "a\nb", "tokens": [97, 10, 98, 99], "id_slot": -1, "stop": True, "model": "fake", "prompt": "x",
        "tokens_predicted": 4, "tokens_evaluated": 3, "tokens_cached": 7, "truncated": False, "has_new_line": True,
        "stop_type": "word", "stopping_word": "c",
    }  # fmt: skip
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (1, 2, 4)
    assert (settings["temperature"], settings["top_p"], settings["top_k"], settings["n_predict"]) == (
        0.8,
        0.95,
        40,
        -1,
    )
    [request] = engine.requests
    assert (request.prompt, request.sampling.max_tokens) == (TextPrompt("x"), None)


async def test_completions_without_v1_is_openais_where_a_model_is_named() -> None:
    _, openai = await post("/completions", FakeEngine(script=lines), model="fake", prompt="x")
    assert openai["object"] == "text_completion"
    status, body = await post("/completion", FakeEngine(script=lines), model="fake:latest", prompt="x")
    assert (status, body["model"]) == (200, "fake:latest")


@pytest.mark.parametrize(
    ("prompt", "prompts", "texts"),
    [
        ("a", [TextPrompt("a")], ["a"]),
        ([97, 98], [TokensPrompt((97, 98))], ["ab"]),
        ([97.0, 98.0], [TokensPrompt((97, 98))], ["ab"]),
        ([97, "bc", 100], [TokensPrompt((97, 98, 99, 100))], ["abcd"]),
        (["ab", 99], [TokensPrompt((97, 98, 99))], ["abc"]),
        (["a", "b"], [TextPrompt("a"), TextPrompt("b")], ["a", "b"]),
        (["a", [98], [99, "d"]], [TextPrompt("a"), TokensPrompt((98,)), TokensPrompt((99, 100))], ["a", "b", "cd"]),
        ({"prompt_string": "a"}, [TextPrompt("a")], ["a"]),
        ([{"prompt_string": "a"}, "b"], [TextPrompt("a"), TextPrompt("b")], ["a", "b"]),
    ],
)  # fmt: skip
async def test_every_kind_of_prompt(prompt: object, prompts: list[object], texts: list[str]) -> None:
    engine = FakeEngine(script=says("x"))
    status, body = await post("/completion", engine, prompt=prompt)
    assert status == 200
    assert [request.prompt for request in engine.requests] == prompts
    answers = body if isinstance(body, list) else [body]
    assert isinstance(body, list) == (len(prompts) > 1)
    assert [(answer["index"], answer["prompt"]) for answer in answers] == [*enumerate(texts)]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"), ({"prompt": 5}, "prompt"), ({"prompt": [True]}, "prompt.0"), ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt.0"), ({"prompt": {}}, "prompt.prompt_string"), ({"prompt": [-1]}, "prompt.0"),
        ({"prompt": {"prompt_string": "a", "multimodal_data": ["x"]}}, "prompt.multimodal_data"),
        ({"prompt": "a", "post_sampling_probs": True}, "post_sampling_probs"), ({"prompt": "a", "return_progress": True}, "return_progress"),
        ({"prompt": "a", "n_probs": 21}, "n_probs"), ({"prompt": "a", "min_keep": 2}, "min_keep"),
        ({"prompt": "a", "lora": [{"id": 0}]}, "lora"), ({"prompt": ["a", "b"], "t_max_predict_ms": 5}, "t_max_predict_ms"),
        ({"prompt": "a", "n_cmpl": 129}, "n_cmpl"), ({"prompt": ["a"] * 2, "n_cmpl": 128}, "n_cmpl"), ({"prompt": "a", "id_slot": -2}, "id_slot"),
        ({"prompt": "a", "logit_bias": [["x", 1]]}, "logit_bias"), ({"prompt": "a", "samplers": ["nope"]}, "samplers.0"),
        ({"prompt": [1, "a"] * 129}, "prompt"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_wrong_or_not_here_is_named(fields: dict[str, Any], param: str) -> None:
    engine = FakeEngine(script=says("x"))
    status, body = await post("/completion", engine, **fields)
    assert (status, body["error"]["param"]) == (400, param)
    assert engine.requests == []


async def test_what_changes_nothing_here_is_taken() -> None:
    hints = {
        "id_slot": 0,
        "n_keep": -1,
        "n_discard": 5,
        "n_cache_reuse": 256,
        "cache_prompt": True,
        "n_probs": 0,
        "min_keep": 0,
    }
    engine, plain = FakeEngine(script=says("x")), FakeEngine(script=says("x"))
    assert (await post("/completion", engine, prompt="a", t_max_predict_ms=-1, **hints))[0] == 200
    await post("/completion", plain, prompt="a")
    assert engine.requests == plain.requests


async def test_biases_may_be_pairs() -> None:
    engine = FakeEngine(script=says("x"))
    status, _ = await post("/completion", engine, prompt="a", logit_bias=[[5, 1.5], [7, False], ["9", -1]])
    assert status == 200
    assert engine.requests[0].sampling.logit_bias == ((5, 1.5), (7, -100.0), (9, -1.0))


async def test_a_stream_is_pieces_and_an_end_without_done() -> None:
    first, second, last = await events(FakeEngine(script=lines), prompt="x")
    assert first == {
        "index": 0, "content": "a\n", "tokens": [97, 10], "id_slot": -1, "stop": False, "tokens_predicted": 2, "tokens_evaluated": 3,
    }  # fmt: skip
    assert (second["content"], second["tokens_predicted"]) == ("b", 3)
    assert (last["content"], last["tokens"], last["stop"], last["tokens_predicted"]) == ("", [99], True, 4)
    assert {"timings", "generation_settings", "stop_type", "prompt"} < last.keys()


async def test_each_event_has_timings_where_they_are_asked_for() -> None:
    found = await events(FakeEngine(script=lines), prompt="x", timings_per_token=True)
    assert [event["timings"]["predicted_n"] for event in found] == [2, 3, 4]


async def test_only_the_keys_that_were_asked_for() -> None:
    fields = ["content", "generation_settings/n_predict", "nothing/such", "stop"]
    _, body = await post(
        "/completion", FakeEngine(script=lines), prompt="x", n_predict=9, response_fields=fields
    )
    assert body == {"content": "a\nb", "generation_settings/n_predict": 9, "stop": True}
    *_, last = await events(FakeEngine(script=lines), prompt="x", response_fields=["tokens"])
    assert last == {"tokens": [99]}


def probable(_request: GenerateRequest) -> Iterable[TokenDelta]:
    entry = TokenLogprobs(
        TokenLogprob(7, "a", -0.5), (TokenLogprob(7, "a", -0.5), TokenLogprob(8, "\xc3", -1.5))
    )
    yield TokenDelta("a", (7,), FinishReason.LENGTH, Usage(1, 1), (entry,))


async def test_probabilities_have_ids_and_bytes() -> None:
    engine = FakeEngine(script=probable)
    _, body = await post("/completion", engine, prompt="x", n_probs=2)
    one = {"id": 7, "token": "a", "bytes": [97], "logprob": -0.5}
    other = {"id": 8, "token": "\ufffd", "bytes": [195], "logprob": -1.5}
    assert body["completion_probabilities"] == [{**one, "top_logprobs": [one, other]}]
    assert (body["stop_type"], engine.requests[0].sampling.logprobs) == ("limit", 2)


async def test_an_answer_with_a_line_ends_when_its_time_is_over() -> None:
    def endless(_request: GenerateRequest) -> Iterable[TokenDelta]:
        while True:
            yield TokenDelta("a\n", (97, 10))

    engine = FakeEngine(script=endless)
    status, body = await post("/completion", engine, prompt="x", t_max_predict_ms=1)
    assert (status, body["stop_type"], engine.aborted) == (200, "limit", [0])
    assert body["tokens_predicted"] == len(body["content"])


# --- what llama-server tells of itself ---


async def test_props_and_slots_look_and_load_nothing() -> None:
    engine = FakeEngine("org/fake")
    async with http_client(app_with_keys(engine)) as client:
        asked = {"authorization": f"Bearer {USER}"}
        told = (await client.get("/props", headers=asked)).json()
        places = (await client.get("/slots?model=ORG/fake", headers=asked)).json()
        unknown = await client.get("/props?model=nobody", headers=asked)
        assert (await client.get("/props")).status_code == (await client.get("/slots")).status_code == 401
    assert (told["total_slots"], told["model_alias"], told["model_path"], told["is_sleeping"]) == (
        4,
        "org/fake",
        "fake.gguf",
        False,
    )
    assert told["default_generation_settings"]["n_ctx"] == 4096
    assert told["default_generation_settings"]["params"]["temperature"] == 0.8
    assert [place["id"] for place in places] == [0, 1, 2, 3]
    assert not any(place["is_processing"] for place in places)
    assert unknown.status_code == 404
    assert (engine.requests, engine.calls) == ([], [])


async def test_the_embedding_is_an_array_of_arrays() -> None:
    status, body = await post("/embedding", FakeEngine(), content=["a", "b"])
    assert (status, body) == (
        200,
        [{"index": 0, "embedding": [[1.0, 0.0]]}, {"index": 1, "embedding": [[1.0, 0.0]]}],
    )
    assert (await post("/embedding", FakeEngine(), input="a"))[1] == body[:1]
    for fields, param in (({}, "content"), ({"content": "a", "embd_normalize": -1}, "embd_normalize")):
        status, body = await post("/embedding", FakeEngine(), **fields)
        assert (status, body["error"]["param"]) == (400, param)


async def test_the_tokens_of_a_chat_are_counted() -> None:
    messages = [{"role": "user", "content": "abc"}]
    for path in ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"):
        assert await post(path, FakeEngine(), messages=messages) == (
            200,
            {"object": "response.input_tokens", "input_tokens": 3},
        )


async def test_tokens_in_vllms_shape() -> None:
    engine = FakeEngine()
    asked = {"prompt": "ab", "return_token_strs": True}
    told = {"tokens": [97, 98], "count": 2, "max_model_len": 4096}
    assert await post("/tokenize", engine, **asked) == (200, {**told, "token_strs": ["a", "b"]})
    assert engine.calls[-1].add_special is True  # type: ignore[union-attr] # a Tokenize
    messages = [{"role": "user", "content": "ab"}]
    assert await post("/tokenize", engine, messages=messages) == (200, {**told, "token_strs": None})
    status, body = await post("/tokenize", engine, messages=messages, return_token_strs=True)
    assert (status, body["error"]["code"]) == (400, "unsupported_feature")
    assert (await post("/tokenize", engine))[1]["error"]["param"] == "content"
    assert (await post("/detokenize", engine, tokens=[97]))[1] == {"content": "a", "prompt": "a"}


async def test_the_tokenizer_tells_of_itself() -> None:
    async with http_client(app_with_keys(FakeEngine())) as client:
        told = (await client.get("/tokenizer_info", headers={"authorization": f"Bearer {USER}"})).json()
        assert (
            await client.get("/tokenizer_info", headers={"authorization": f"Bearer {ADMIN}"})
        ).status_code == 403
    assert (told["model_max_length"], told["bos_token"], told["chat_template"]) == (4096, None, "")
