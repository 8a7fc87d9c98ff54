"""The conversation paths: what the model is asked, what clients get, and what they are refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from kolosal.app import create_app
from kolosal.conversation.parameters import GenerationParameters
from kolosal.conversation.startup import ConversationSettings
from kolosal.errors import EngineDied, LoadFailed, QueueFull
from kolosal.sampling import SamplingParams
from tests.fakes import AsgiRequest, FakeEngine, FakeRegistry, eventually, http_client, says
from tests.routes.conversation.chats import (
    DRAFT,
    DRAFT_STATUS,
    FIRST_STATUS,
    REVIEW1,
    REVIEW2,
    SECOND_STATUS,
    app_of,
    in_turn,
    post,
    turns,
)
from tests.settings import settings_of

HISTORY = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
KEYS = {
    "user_question", "draft_answer", "suggestions1", "revision1", "comments1", "suggestions2", "revision2", "comments2"
}  # fmt: skip


async def test_c01_a_blocking_chat_uses_the_history() -> None:
    engine = FakeEngine(script=says("Hel", "lo"))

    response = await post(engine, prompt="Again", history=HISTORY)

    assert (response.status_code, response.json()) == (200, {"reply": "Hello"})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    system, *said = turns(engine)
    assert system[0] == "system"
    assert said == [("user", "Hi"), ("assistant", "Hello!"), ("user", "Again")]
    assert engine.requests[0].sampling == SamplingParams(
        temperature=0.7, top_p=0.9, max_tokens=4096, reasoning_budget=-1
    )


async def test_c01_null_is_as_good_as_nothing() -> None:
    fields: dict[str, Any] = dict.fromkeys(("history", "improvement", "intermediate_steps", "model", "role"))
    assert (await post(FakeEngine(script=says("Hello")), **fields)).json() == {"reply": "Hello"}


async def test_c02_a_stream_is_plain_text_and_ends_with_its_mark() -> None:
    engine, request = FakeEngine(script=says("Hé", "llo")), AsgiRequest("/chat/stream", {"prompt": "Hi"})

    await request.start(app_of(engine))

    headers = dict(request.sent[0]["headers"])
    chunks = [message["body"] for message in request.sent[1:] if message["body"]]
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert b"".join(chunks[:-1]).decode() == "Héllo"
    assert chunks[-1] == b"[[END]]"


async def test_c02_a_stream_that_fails_ends_without_its_mark() -> None:
    response = await post(FakeEngine(script=in_turn(EngineDied("It died"))), "/chat/stream")

    assert (response.status_code, response.text) == (200, "Half an ")


async def test_c02_an_error_before_the_first_piece_is_a_status() -> None:
    engine = FakeEngine()
    engine.load_error = LoadFailed("No such tensor")

    response = await post(engine, "/chat/stream")

    assert (response.status_code, response.json()) == (503, {"detail": "No such tensor"})


@pytest.mark.parametrize("flag", ["true", "1", "YES", "On"])
async def test_c03_a_browser_asks_with_a_query(flag: str) -> None:
    engine = FakeEngine(script=in_turn(DRAFT, REVIEW1, REVIEW2))
    query = {"prompt": "Why?", "x_api_key": "any", "improvement": flag, "intermediate_steps": "off"}
    async with http_client(app_of(engine)) as client:
        response = await client.get("/chat/blocking", params=query)
        pong = await client.get("/ping", params={"x_api_key": "any"})

    assert response.json() == {"reply": "The sky scatters blue light."}
    assert (pong.status_code, pong.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/chat/blocking", "/chat/stream"])
async def test_c04_the_key_is_enforced(path: str) -> None:
    app = app_of(FakeEngine(script=says("Hello")), api_key="secret")
    async with http_client(app) as client:
        missing = await client.post(path, json={"prompt": "Hi"})
        in_query = await client.post(f"{path}?x_api_key=secret", json={"prompt": "Hi"})
        wrong = await client.post(path, json={"prompt": "Hi"}, headers=[(b"x-api-key", "sécret".encode())])
        right = await client.post(path, json={"prompt": "Hi"}, headers={"X-API-Key": "secret"})
        bearer = await client.post(path, json={"prompt": "Hi"}, headers={"Authorization": "Bearer secret"})

    assert [answer.status_code for answer in (missing, in_query, wrong, right, bearer)] == [
        422,
        422,
        403,
        200,
        200,
    ]
    assert wrong.json() == {"detail": "Forbidden"}
    assert [(error["type"], error["loc"]) for error in missing.json()["detail"]] == [
        ("missing", ["header", "x-api-key"])
    ]


async def test_c04_a_browser_has_the_key_in_its_query() -> None:
    app = app_of(FakeEngine(script=says("Hello")), api_key="secret")
    queries = ("", "&x_api_key=wrong", "&x_api_key=secret")
    urls = [path + query for path in ("/ping?a=1", "/chat/blocking?prompt=Hi") for query in queries]
    async with http_client(app) as client:
        answers = [(await client.get(url)).status_code for url in urls]
        health = await client.get("/health")

        [error] = (await client.get("/ping")).json()["detail"]

    assert answers == [422, 403, 200] * 2
    assert health.status_code == 200
    assert (error["type"], error["loc"]) == ("missing", ["query", "x_api_key"])


async def test_c04_the_key_of_these_paths_is_one_of_the_daemons() -> None:
    app = create_app(
        settings_of(api_key=SecretStr("another-key-1234")),
        FakeRegistry(FakeEngine(script=says("Hello"))),
        ConversationSettings(api_key="secret"),
    )
    async with http_client(app) as client:
        statuses = {
            key: [
                (
                    await client.post("/chat/blocking", json={"prompt": "Hi"}, headers={"x-api-key": key})
                ).status_code,
                (await client.get("/engines", headers={"x-api-key": key})).status_code,
            ]
            for key in ("secret", "another-key-1234", "wrong")
        }

    assert statuses == {"secret": [200, 200], "another-key-1234": [200, 200], "wrong": [403, 401]}


async def test_c04_a_long_key_goes_into_a_query_too() -> None:
    key = "k" * 512
    async with http_client(app_of(FakeEngine(script=says("Hello")), api_key=key)) as client:
        for path in ("/ping", "/chat/blocking"):
            answer = await client.get(path, params={"prompt": "Hi", "x_api_key": key})
            assert answer.status_code == 200


async def test_c04_guesses_are_counted_as_everywhere() -> None:
    async with http_client(app_of(FakeEngine(script=says("Hello")), api_key="secret")) as client:
        for number in range(10):
            await client.get("/ping", params={"x_api_key": f"guess-{number}"})
        refused = await client.get("/ping", params={"x_api_key": "secret"})

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert refused.json()["detail"].startswith("Too many wrong API keys")


@pytest.mark.parametrize("path", ["/chat/blocking", "/chat/stream"])
async def test_x03_a_refusal_has_the_shape_of_these_paths_and_costs_no_generation(path: str) -> None:
    engine = FakeEngine(script=says("Hello"))
    async with http_client(app_of(engine, api_key="secret")) as client:
        refused = await client.post(path, content=b"no JSON at all", headers={"X-API-Key": "wrong"})
        health = await client.get("/health")

    assert (refused.status_code, refused.json(), health.status_code) == (403, {"detail": "Forbidden"}, 200)
    assert engine.requests == []


async def test_c05_improvement_is_three_generations() -> None:
    engine = FakeEngine(script=in_turn(DRAFT, REVIEW1, REVIEW2))
    prompts = {"assistant": "Answer.", "reviser": "Revise."}
    async with http_client(app_of(engine, system_prompts=prompts)) as client:
        body = {"prompt": "Why?", "history": HISTORY, "improvement": True, "intermediate_steps": True}
        answer = (await client.post("/chat/blocking", json=body)).json()

    assert len(engine.requests) == 3
    assert [turns(engine, index)[0] for index in range(3)] == [
        ("system", "Answer."), ("system", "Revise."), ("system", "Revise.")
    ]  # fmt: skip
    assert all(turns(engine, index)[1:3] == turns(engine)[1:3] for index in range(3))
    assert DRAFT in turns(engine, 1)[-1][1]
    assert "The sky is blue by day." in turns(engine, 2)[-1][1]
    assert answer["reply"] == "The sky scatters blue light."
    assert answer["steps"].keys() == KEYS
    assert answer["steps"]["suggestions1"] == "1. Say more."
    assert answer["steps"]["comments2"] == "Good."


@pytest.mark.parametrize(
    ("reviews", "reply"),
    [
        (("I like it.", "Me too."), DRAFT),
        (("", "### Revised Answer\nNone"), DRAFT),
        ((REVIEW1, "### Improvements\n1. Nothing"), "The sky is blue by day."),
        (("Nothing to say.", REVIEW2), "The sky scatters blue light."),
    ],
)
async def test_c06_a_malformed_review_leaves_the_answer_before_it(
    reviews: tuple[str, str], reply: str
) -> None:
    fields: dict[str, Any] = {"improvement": True, "intermediate_steps": True}
    answer = (await post(FakeEngine(script=in_turn(DRAFT, *reviews)), **fields)).json()
    streamed = await post(FakeEngine(script=in_turn(DRAFT, *reviews)), "/chat/stream", improvement=True)

    assert (answer["reply"], answer["steps"]["revision2"]) == (reply, reply)
    assert streamed.text == DRAFT_STATUS + FIRST_STATUS + SECOND_STATUS + reply + "[[END]]"


async def test_c07_without_steps_a_stream_shows_statuses_and_the_answer() -> None:
    response = await post(
        FakeEngine(script=in_turn(DRAFT, REVIEW1, REVIEW2)), "/chat/stream", improvement=True
    )

    statuses = DRAFT_STATUS + FIRST_STATUS + SECOND_STATUS
    assert response.text == statuses + "The sky scatters blue light." + "[[END]]"


async def test_c07_with_steps_a_stream_shows_draft_and_reviews() -> None:
    fields: dict[str, Any] = {"improvement": True, "intermediate_steps": True}
    response = await post(FakeEngine(script=in_turn(DRAFT, REVIEW1, REVIEW2)), "/chat/stream", **fields)

    assert response.text == f"{DRAFT}\n{REVIEW1}\n{REVIEW2}[[END]]"


async def test_a_failure_in_a_later_stage_ends_the_stream_early() -> None:
    engine = FakeEngine(script=in_turn(DRAFT, EngineDied("It died")))

    response = await post(engine, "/chat/stream", improvement=True)

    assert response.text == DRAFT_STATUS + FIRST_STATUS


async def test_a_failure_in_a_later_stage_is_an_error_of_a_blocking_chat() -> None:
    response = await post(FakeEngine(script=in_turn(DRAFT, EngineDied("It died"))), improvement=True)

    assert (response.status_code, response.json()) == (503, {"detail": "It died"})


async def test_a_client_that_leaves_a_later_stage_frees_the_model() -> None:
    engine, request = (
        FakeEngine(script=in_turn(DRAFT)),
        AsgiRequest("/chat/stream", {"prompt": "Hi", "improvement": True}),
    )
    task = request.start(app_of(engine))
    await request.until(DRAFT_STATUS.encode())
    engine.script = None
    await eventually(lambda: len(engine.requests) == 2)
    request.leave()
    await task

    assert engine.aborted == [1]
    assert b"[[END]]" not in request.content


async def test_later_stages_stay_on_the_engine_of_the_first() -> None:
    first, second = FakeEngine("first", in_turn(DRAFT, REVIEW1, REVIEW2)), FakeEngine("second")
    async with http_client(app_of(first, second)) as client:
        response = await client.post("/chat/blocking", json={"prompt": "Hi", "improvement": True})

    assert response.status_code == 200
    assert (len(first.requests), len(second.requests)) == (3, 0)


async def test_a_role_is_a_system_prompt_of_that_name() -> None:
    engine = FakeEngine(script=says("Hello"))
    prompts = {"assistant": "Answer.", "reviser": "Revise.", "pirate": "Arr."}
    async with http_client(app_of(engine, system_prompts=prompts)) as client:
        good = await client.post("/chat/blocking", json={"prompt": "Hi", "role": "pirate"})
        bad = await client.post("/chat/blocking", json={"prompt": "Hi", "role": "poet"})

    assert good.status_code == 200
    assert turns(engine)[0] == ("system", "Arr.")
    assert bad.json()["detail"][0]["msg"] == "role must be one of assistant, pirate, reviser, not 'poet'"


async def test_c11_the_parameters_of_the_settings_reach_the_sampler() -> None:
    engine = FakeEngine(script=says("Hello"))
    parameters = GenerationParameters(max_new_tokens=7, temperature=0.3, top_p=0.8, repetition_penalty=1.1)
    async with http_client(app_of(engine, parameters=parameters)) as client:
        await client.post("/chat/blocking", json={"prompt": "Hi"})

    wanted = SamplingParams(max_tokens=7, temperature=0.3, top_p=0.8, repeat_penalty=1.1, reasoning_budget=-1)
    assert engine.requests[0].sampling == wanted


@pytest.mark.parametrize(
    ("body", "kind", "where"),
    [
        (b"", "json_invalid", ["body"]),
        (b"[1]", "json_invalid", ["body"]),
        (b"{", "json_invalid", ["body"]),
        (b'{"prompt": NaN}', "json_invalid", ["body"]),
        (b"{}", "missing", ["body", "prompt"]),
        (b'{"prompt": null}', "string_type", ["body", "prompt"]),
        (b'{"prompt": ""}', "string_too_short", ["body", "prompt"]),
        (b'{"prompt": 5}', "string_type", ["body", "prompt"]),
        (b'{"prompt": "a", "history": "b"}', "tuple_type", ["body", "history"]),
        (b'{"prompt": "a", "history": [{}]}', "missing", ["body", "history", 0, "role"]),
        (
            b'{"prompt": "a", "history": [{"role": "dog", "content": ""}]}',
            "literal_error",
            ["body", "history", 0, "role"],
        ),
        (b'{"prompt": "a", "improvement": "true"}', "bool_type", ["body", "improvement"]),
    ],
)
async def test_what_is_refused_says_where_it_is_wrong(body: bytes, kind: str, where: list[object]) -> None:
    async with http_client(app_of(FakeEngine())) as client:
        response = await client.post("/chat/blocking", content=body)

    assert response.status_code == 422
    [error] = response.json()["detail"]
    assert (error["type"], error["loc"]) == (kind, where)
    assert error.keys() == {"type", "loc", "msg", "input"}
    assert error["msg"]


async def test_what_is_wrong_with_a_query_stands_there() -> None:
    async with http_client(app_of(FakeEngine())) as client:
        response = await client.get("/chat/blocking")

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][0] == "query"


async def test_other_errors_are_a_sentence() -> None:
    engine = FakeEngine()
    engine.refusal = QueueFull("Too many")
    async with http_client(app_of(engine)) as client:
        busy = await client.post("/chat/blocking", json={"prompt": "Hi"})
        unknown = await client.post("/chat/blocking", json={"prompt": "Hi", "model": "nobody"})
        verb = await client.get("/chat/stream")
    async with http_client(app_of()) as client:
        empty = await client.post("/chat/blocking", json={"prompt": "Hi"})

    assert [answer.status_code for answer in (busy, unknown, verb, empty)] == [429, 404, 405, 404]
    assert busy.headers["retry-after"] == "1"
    assert all(
        isinstance(orjson.loads(answer.content)["detail"], str) for answer in (busy, unknown, verb, empty)
    )
