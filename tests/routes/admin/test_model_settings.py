"""What is said of models, over HTTP: read with its origins, written into the file, and holding from the next request on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from kolosal.models.settings_file import SettingsFile
from tests.fakes import FakeEngine, FakeRegistry, app_with, http_client, says
from tests.routes.chats import HELLO


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine("fake", says("a"))


@pytest.fixture
def app(engine: FakeEngine, file: Path) -> Starlette:
    app = app_with(engine)
    app.state.services.model_settings = SettingsFile(file)
    return app


async def ask(app: Starlette, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    async with http_client(app) as client:
        answer = await client.request(method, path, json=body)
    return answer.status_code, answer.json()


def text_of(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


def write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


async def test_what_is_put_holds_and_is_in_the_file(app: Starlette, engine: FakeEngine, file: Path) -> None:
    body = {"alias": ["small"], "sampling": {"temperature": 0.25, "top_k": None}, "profiles": {"hot": {"sampling": {"temperature": 2}}}}  # fmt: skip
    assert await ask(app, "PUT", "/v1/model-settings/fake", body) == (200, {"applied": ["models.yaml: fake"]})
    assert "alias:\n    - small" in (text_of(file) or "")
    for name in ("small", "small:hot"):
        assert (await ask(app, "POST", "/v1/chat/completions", HELLO | {"model": name}))[0] == 200
    assert [request.sampling.temperature for request in engine.requests] == [0.25, 2]

    status, shown = await ask(app, "GET", "/v1/model-settings/small:hot")
    assert (status, shown["engine_id"], shown["settings"]) == (200, "fake", None)
    origins = {row["name"]: (row["value"], row["origin"]) for row in shown["holds"]}
    assert origins["sampling.temperature"][0] == 2
    assert origins["sampling.temperature"][1].endswith(": models.fake.profiles.hot.sampling.temperature")
    assert origins["sampling.temperature"][1].startswith(f"{file}:")
    assert origins["parameters.n_ctx"] == (4096, "default")

    settings = {"alias": ["small"], "sampling": {"temperature": 0.25}, "profiles": {"hot": {"sampling": {"temperature": 2.0}}}}  # fmt: skip
    _, whole = await ask(app, "GET", "/v1/model-settings")
    assert whole == {"path": str(file), "models": {"fake": settings}, "groups": {}}
    assert (await ask(app, "DELETE", "/v1/model-settings/fake"))[0] == 200
    assert (await ask(app, "DELETE", "/v1/model-settings/fake"))[0] == 404
    assert text_of(file) == ""


async def test_a_model_file_is_an_origin(app: Starlette, engine: FakeEngine) -> None:
    from tests.engines.helpers import INFO  # noqa: PLC0415

    engine.info, engine.file_sampling = INFO, {"temperature": 0.6, "top_k": 20}
    await ask(app, "PUT", "/v1/model-settings/fake", {"sampling": {"top_k": 3}})
    _, shown = await ask(app, "GET", "/v1/model-settings/fake")
    rows = {row["name"]: row["origin"] for row in shown["holds"] if row["name"].startswith("sampling.")}
    assert rows["sampling.temperature"] == "general.sampling.temp"
    assert rows["sampling.top_k"].endswith(": models.fake.sampling.top_k")


async def test_groups(app: Starlette, file: Path) -> None:
    body = {"models": ["fake", "other"], "exclusive": True}
    assert (await ask(app, "PUT", "/v1/model-groups/large", body))[0] == 200
    registry: FakeRegistry = app.state.services.registry
    assert registry.get("fake").groups == {"large"}
    assert (await ask(app, "DELETE", "/v1/model-groups/large"))[0] == 200
    assert registry.get("fake").groups == set()
    assert (await ask(app, "DELETE", "/v1/model-groups/large"))[0] == 404
    assert (await ask(app, "PUT", "/v1/model-groups/a:b", body))[1]["error"]["param"] == "group"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"sampling": {"temprature": 1}}, "Unknown field: sampling.temprature"),
        ({"parameters": {"n_ctx": -1}}, "parameters.n_ctx must be at least 0, not -1"),
        ({"keep_alive": "soon"}, 'keep_alive must be a number of seconds or a duration such as "5m" or "1h30m", not "soon"'),
        ({"profiles": {"a b": {}}}, "profiles.a b must be a word without blanks, ':', '/', '?', '#' and backslashes, not \"a b\""),
        ({"from": "fake"}, "models.yaml:3: models.fake.from: 'fake' is made of itself"),
    ],
)  # fmt: skip
async def test_what_cannot_be_changes_nothing(
    app: Starlette, file: Path, body: dict[str, Any], message: str
) -> None:
    status, answer = await ask(app, "PUT", "/v1/model-settings/fake", body)
    assert status == 400
    assert message in answer["error"]["message"]
    assert text_of(file) is None


async def test_a_file_that_is_wrong_by_hand_is_not_written_over(app: Starlette, file: Path) -> None:
    write(file, "models: {fake: {sistem: x}}")
    status, answer = await ask(app, "PUT", "/v1/model-settings/fake", {"system": "x"})
    assert (status, answer["error"]["code"]) == (400, "invalid_configuration")
    assert answer["error"]["message"].startswith(f"{file}:1: models.fake.sistem: unknown key")
    assert text_of(file) == "models: {fake: {sistem: x}}"


async def test_without_a_folder_nothing_is_written(engine: FakeEngine) -> None:
    status, answer = await ask(app_with(engine), "PUT", "/v1/model-settings/fake", {"system": "x"})
    assert (status, answer["error"]["code"]) == (400, "invalid_configuration")
    assert "there is no folder for models.yaml" in answer["error"]["message"]


async def test_an_alias_may_not_hide_an_engine(file: Path) -> None:
    app = app_with(FakeEngine("a"), FakeEngine("b"))
    app.state.services.model_settings = SettingsFile(file)
    _, answer = await ask(app, "PUT", "/v1/model-settings/a", {"alias": ["B"]})
    assert answer["error"]["message"].endswith("models.a.alias[0]: 'B' is the id of an engine already")
