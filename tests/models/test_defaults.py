"""What is said of a model in requests that do not say it: in every dialect, and what of it the client's own words leave."""

from __future__ import annotations

import pytest

from kolosal.engines.gguf_sampling import sampling_of_file
from kolosal.models.defaults import with_defaults
from kolosal.models.models_file import ModelsFile
from kolosal.models.settings import ModelsSettings
from kolosal.models.settings_file import SettingsFile
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.test_error_shapes import SURFACES, Surface

GENERATING = [
    pytest.param(surface, id=name)
    for name, surface in SURFACES.items()
    if not surface.path.endswith(("/embeddings", "/embed"))
]

FILE = ModelsFile.of(
    ModelsSettings.model_validate(
        {
            "models": {
                "fake": {
                    "sampling": {"temperature": 0.25, "top_k": 7, "stop": ["END"], "max_tokens": 33},
                    "system": "Be brief.",
                    "messages": [{"role": "user", "content": "Before"}],
                    "keep_alive": "7m",
                    "profiles": {"wild": {"sampling": {"temperature": 1.5}}},
                }
            }
        }
    )
)
OF_FILE = {"top_k": 5, "top_p": 0.75}


async def asked(surface: Surface, name: str, **fields: object) -> FakeEngine:
    """The engine, after a request to a model of which much is said."""
    engine = FakeEngine(script=says("a"))
    engine.file_sampling = OF_FILE
    app = app_with(engine)
    app.state.services.model_settings = SettingsFile(None, FILE)
    app.state.services.registry.known = FILE
    async with http_client(app) as client:
        response = await client.post(surface.path, content=surface.content(name, fields))
    assert response.status_code == 200, response.text
    return engine


@pytest.mark.parametrize("surface", GENERATING)
async def test_every_dialect_has_them(surface: Surface) -> None:
    engine = await asked(surface, "fake:wild")
    [request] = engine.requests
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (1.5, 7, 0.75)  # profile, model, file
    assert (sampling.stop, sampling.given) == (("END",), None)
    if surface.path not in LIMIT_REQUIRED:
        assert sampling.max_tokens == 33
    if (
        isinstance(request.prompt, ChatPrompt) and surface.path not in CONVERSATION
    ):  # which has prompts of its own
        assert [turn.content for turn in request.prompt.messages][:2] == ["Be brief.", "Before"]
    assert engine.idle_limit_s == 420


WITH_SAMPLING = [each for each in GENERATING if "conversation" not in str(each.id)]

LIMIT_REQUIRED = ("/v1/messages",)
CONVERSATION = ("/chat/blocking", "/chat/stream")


@pytest.mark.parametrize("surface", WITH_SAMPLING)
async def test_what_a_client_gives_holds(surface: Surface) -> None:
    """Also where it gives what the dialect would have taken anyway."""
    fields = {"temperature": 1, "top_p": 1}
    given = {"options": fields} if surface.path.startswith("/api/") else fields
    [request] = (await asked(surface, "fake", **given)).requests
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) == (1, 1, 7)


async def test_a_system_prompt_of_the_chat_stays_the_only_one() -> None:
    messages = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Hi"}]
    [request] = (await asked(SURFACES["chat"], "fake", messages=messages)).requests
    assert isinstance(request.prompt, ChatPrompt)
    assert [turn.content for turn in request.prompt.messages] == ["Mine.", "Before", "Hi"]


def test_a_model_file_says_how_its_tokens_are_chosen() -> None:
    """Native code gives text, headers give numbers; what is out of bounds, or no stage of ours, is left out."""
    said = {
        "temp": "0.6",
        "top_k": 20,
        "min_p": "nan",
        "top_p": 7,
        "penalty_repeat": 1.1,
        "sequence": "top_k;adaptive_p;temp",
    }
    assert sampling_of_file(said.get) == {
        "temperature": 0.6, "top_k": 20, "repeat_penalty": 1.1, "samplers": ("top_k", "temperature"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "budget"),
    [
        ({}, 64),
        ({"enable_thinking": True}, 64),
        ({"reasoning_effort": "high"}, None),
        ({"thinking_budget": 9}, None),
        ({"enable_thinking": False}, None),
    ],
)
def test_a_request_that_bounds_thoughts_in_other_words_comes_first(
    variables: dict[str, bool | int | float | str], budget: int | None
) -> None:
    asked = GenerateRequest(ChatPrompt((), template_kwargs=variables), SamplingParams(given=()))
    assert with_defaults(asked, None, {"reasoning_budget": 64}).sampling.reasoning_budget == budget
