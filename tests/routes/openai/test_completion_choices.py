"""`n`, `best_of`, `echo`, `logprobs` and the kinds of prompts of `POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from kolosal.engines.ipc.calls import Call, CallResult, Detokenize, Rendered
from kolosal.errors import InvalidRequest, KolosalError
from kolosal.schema import (
    FinishReason,
    GenerateRequest,
    InfillPrompt,
    TextPrompt,
    TokenDelta,
    TokenLogprob,
    TokenLogprobs,
    TokensPrompt,
    Usage,
)
from tests.fakes import FakeEngine, app_with, http_client, says


async def ask(engine: FakeEngine, **fields: Any) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/completions", json={"model": "fake", "prompt": "ab"} | fields)
    return response.status_code, response.json()


async def choices(engine: FakeEngine, **fields: Any) -> list[dict[str, Any]]:
    status, body = await ask(engine, **fields)
    assert status == 200, body
    found: list[dict[str, Any]] = body["choices"]
    return found


async def chunks(engine: FakeEngine, **fields: Any) -> list[dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        body = {"model": "fake", "prompt": "ab", "stream": True} | fields
        response = await client.post("/v1/completions", json=body)
    *frames, done, _ = response.text.split("\n\n")
    assert done == "data: [DONE]"
    return [orjson.loads(frame.removeprefix("data: ")) for frame in frames]


def chance(text: str, logprob: float, *, control: bool = False) -> TokenLogprob:
    return TokenLogprob(ord(text[0]), text.encode().decode("latin-1"), logprob, control)


def report(text: str, logprob: float, *, in_prompt: bool = False) -> TokenLogprobs:
    """A token that is the most probable one in its place."""
    return TokenLogprobs(chance(text, logprob), (chance(text, logprob), chance("?", -9.0)), in_prompt)


def spells(request: GenerateRequest) -> Iterable[TokenDelta]:
    """One token a character, the prompt's reported where that is asked for; says `cé` and ends."""
    if request.prompt_logprobs:
        assert isinstance(request.prompt, TextPrompt)
        text = request.prompt.text
        first, others = text[0], text[1:]
        yield TokenDelta("", logprobs=(TokenLogprobs(chance(first, 0.0), (), in_prompt=True),))
        yield TokenDelta("", logprobs=tuple(report(each, -1.0, in_prompt=True) for each in others))
    for text in "cé":
        yield TokenDelta(text, (ord(text),), logprobs=(report(text, -2.0),))
    end = TokenLogprobs(chance("<end>", -0.5, control=True))
    yield TokenDelta("", (0,), FinishReason.STOP, Usage(2, 3), (end,))


# --- prompts ---


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("ab", [TextPrompt("ab")]),
        (["ab", "c"], [TextPrompt("ab"), TextPrompt("c")]),
        ([1, 2], [TokensPrompt((1, 2))]),
        ([[1, 2], [3]], [TokensPrompt((1, 2)), TokensPrompt((3,))]),
    ],
)
async def test_a_prompt_is_text_or_tokens(prompt: object, prompts: list[object]) -> None:
    engine = FakeEngine(script=says("x"))
    assert len(await choices(engine, prompt=prompt)) == len(prompts)
    assert [request.prompt for request in engine.requests] == prompts


async def test_a_suffix_makes_a_gap_to_be_filled() -> None:
    engine = FakeEngine(script=says("x"))
    await choices(engine, prompt="a", suffix="z")
    await choices(engine, prompt="", suffix="z")
    assert [request.prompt for request in engine.requests] == [
        InfillPrompt("a", "z", param="suffix"),
        InfillPrompt("", "z", param="suffix"),
    ]


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [
        ({}, 16), ({"max_tokens": 0}, 0), ({"n_predict": 0}, 0), ({"n_predict": 5}, 5), ({"n_predict": -1}, None),
        ({"n_predict": 5, "max_tokens": 7}, 7),
    ],
)  # fmt: skip
async def test_max_tokens_and_its_other_name(fields: dict[str, Any], max_tokens: int | None) -> None:
    engine = FakeEngine(script=says("x"))
    await choices(engine, **fields)
    assert engine.requests[0].sampling.max_tokens == max_tokens


# --- n and best_of ---


async def test_choices_of_a_prompt_stand_together_and_differ_in_their_seed() -> None:
    engine = FakeEngine(script=says("x"))
    made = await choices(engine, prompt=["a", "b"], n=2, seed=7)
    assert [choice["index"] for choice in made] == [0, 1, 2, 3]
    assert [request.prompt for request in engine.requests] == [TextPrompt(text) for text in "aabb"]
    sampling = [request.sampling for request in engine.requests]
    assert [(each.seed, each.seed_offset) for each in sampling] == [(7, 0), (7, 1), (7, 0), (7, 1)]


async def test_a_prompt_is_counted_once_however_many_choices_it_has() -> None:
    _, body = await ask(FakeEngine(script=says("x", usage=Usage(10, 3, 4))), prompt=["a", "b"], n=3)
    assert body["usage"] == {
        "prompt_tokens": 20, "completion_tokens": 18, "total_tokens": 38, "prompt_tokens_details": {"cached_tokens": 8},
    }  # fmt: skip


async def test_choices_stream_side_by_side() -> None:
    made = await chunks(FakeEngine(script=says("x")), n=2)
    texts = [
        (choice["index"], choice["text"]) for chunk in made for choice in chunk["choices"] if choice["text"]
    ]
    assert sorted(texts) == [(0, "x"), (1, "x")]
    assert [c["finish_reason"] for chunk in made for c in chunk["choices"]].count("stop") == 2


async def test_the_best_are_those_with_the_highest_mean_logprob() -> None:
    logprobs = iter([(-3.0,), (-1.0, -1.0), (-2.0,)])

    def script(request: GenerateRequest) -> Iterable[TokenDelta]:
        entries = tuple(report("x", logprob) for logprob in next(logprobs))
        yield TokenDelta(str(entries[0].chosen.logprob), (), FinishReason.STOP, Usage(2, 1), entries)

    engine = FakeEngine(script=script)
    made = await choices(engine, n=2, best_of=3)
    assert [(choice["index"], choice["text"], choice["logprobs"]) for choice in made] == [
        (0, "-1.0", None),
        (1, "-2.0", None),
    ]
    assert [request.sampling.logprobs for request in engine.requests] == [0, 0, 0]


# --- echo and logprobs ---


async def test_logprobs_are_four_lists() -> None:
    [choice] = await choices(FakeEngine(script=spells), logprobs=2)
    assert choice["logprobs"] == {
        "tokens": ["c", "é", "<end>"],
        "token_logprobs": [-2.0, -2.0, -0.5],
        "top_logprobs": [{"c": -2.0, "?": -9.0}, {"é": -2.0, "?": -9.0}, {"<end>": -0.5}],
        "text_offset": [0, 1, 2],
    }


async def test_an_echoed_prompt_has_logprobs_but_for_its_first_token() -> None:
    engine = FakeEngine(script=spells)
    [choice] = await choices(engine, prompt="äb", echo=True, logprobs=2)
    assert choice["text"] == "äbcé"
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["ä", "b", "c", "é", "<end>"]
    assert logprobs["token_logprobs"] == [None, -1.0, -2.0, -2.0, -0.5]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"] == [0, 1, 2, 3, 4]
    assert (engine.requests[0].prompt_logprobs, engine.requests[0].sampling.logprobs) == (True, 2)


@pytest.mark.parametrize("fields", [{"echo": True}, {"logprobs": 1}, {}])
async def test_the_prompt_is_computed_anew_only_where_its_logprobs_are_wanted(fields: dict[str, Any]) -> None:
    engine = FakeEngine(script=says("x"))
    await choices(engine, **fields)
    assert not engine.requests[0].prompt_logprobs


async def test_a_stream_echoes_first_and_goes_on_counting_offsets() -> None:
    first, *others = await chunks(FakeEngine(script=spells), prompt="äb", echo=True, logprobs=0)
    assert (first["choices"][0]["text"], first["choices"][0]["logprobs"]) == ("äb", None)
    assert "".join(chunk["choices"][0]["text"] for chunk in others) == "cé"
    logprobs = [chunk["choices"][0]["logprobs"] for chunk in others if chunk["choices"][0]["logprobs"]]
    assert [offset for each in logprobs for offset in each["text_offset"]] == [0, 1, 2, 3, 4]
    assert [logprob for each in logprobs for logprob in each["token_logprobs"]] == [
        None,
        -1.0,
        -2.0,
        -2.0,
        -0.5,
    ]


def spelled(call: Call) -> CallResult | KolosalError:
    assert isinstance(call, Detokenize)
    return Rendered("".join(map(chr, call.tokens)), len(call.tokens))


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_echoed_as_text(stream: bool) -> None:
    engine = FakeEngine(script=says("!"))
    engine.answer = spelled
    fields: dict[str, Any] = {"prompt": [[104, 105], [111]], "n": 2, "echo": True}
    if stream:
        made = await chunks(engine, **fields)
        assert [chunk["choices"][0]["text"] for chunk in made[:4]] == ["hi", "hi", "o", "o"]
    else:
        assert [choice["text"] for choice in await choices(engine, **fields)] == ["hi!", "hi!", "o!", "o!"]
    assert len(engine.calls) == 2


async def test_tokens_that_cannot_be_echoed_name_the_prompt() -> None:
    engine = FakeEngine(script=says("!"))
    engine.answer = lambda _: InvalidRequest("tokens must be below 5", param="tokens")
    status, body = await ask(engine, prompt=[9], echo=True)
    assert (status, body["error"]["param"]) == (400, "prompt")
    assert not engine.requests


async def test_a_very_long_report_is_the_same() -> None:
    prompt = "xy" * 2500
    [choice] = await choices(FakeEngine(script=spells), prompt=prompt, echo=True, logprobs=0)
    assert choice["text"] == f"{prompt}cé"
    assert choice["logprobs"]["text_offset"] == list(range(5003))
