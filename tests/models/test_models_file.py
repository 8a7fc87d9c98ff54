"""What names of `models.yaml` mean, and what is wrong in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kolosal.config.errors import ConfigError
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.models.models_file import ModelsFile
from kolosal.models.settings import ModelsSettings
from kolosal.models.settings_file import _changed as changed
from kolosal.models.settings_file import put_group, put_model, read_models_file, remove


def said(**models: Any) -> ModelsFile:
    return ModelsFile.of(ModelsSettings.model_validate({"models": models}))


FILE = said(
    qwen={"parameters": {"n_ctx": 2048}, "sampling": {"top_p": 0.5, "top_k": 9}, "system": "Base."},
    coder={
        "from": "qwen",
        "alias": ["c", "gpt-4"],
        "sampling": {"top_k": 3},
        "system": "",
        "keep_alive": "5m",
        "profiles": {
            "fast": {"sampling": {"top_k": 1}, "system": "Be quick.", "keep_alive": 0},
            "long": {"parameters": {"n_ctx": 8192}},
        },
    },
)


@pytest.mark.parametrize(
    ("name", "engine_id", "sampling", "system", "keep_alive_s"),
    [
        ("qwen", "qwen", {"top_p": 0.5, "top_k": 9}, "Base.", None),
        ("coder", "qwen", {"top_p": 0.5, "top_k": 3}, None, 300),
        ("C:latest", "qwen", {"top_p": 0.5, "top_k": 3}, None, 300),
        ("gpt-4:FAST", "qwen", {"top_p": 0.5, "top_k": 1}, "Be quick.", 0),
        ("coder:long", "coder:long", {"top_p": 0.5, "top_k": 3}, None, 300),
    ],
)
def test_a_name_means_an_engine_and_what_is_said_of_it(
    name: str, engine_id: str, sampling: dict[str, Any], system: str | None, keep_alive_s: float | None
) -> None:
    """A profile wins over its model, and that over the one it is made of; only other loading parameters are another engine."""
    found = FILE.find(name)
    assert found is not None
    assert (found.engine_id, found.root, found.sampling) == (engine_id, "qwen", sampling)
    assert (found.system, found.keep_alive_s) == (system, keep_alive_s)


def test_names_that_are_not_there_mean_nothing() -> None:
    assert [FILE.find(name) for name in ("nope", "coder:nope", ":fast", "")] == [None] * 4
    assert FILE.names_of("qwen") == ("coder", "c", "gpt-4")


def test_parameters_hold_where_whoever_added_the_engine_gave_none() -> None:
    asked = EngineConfig("qwen", "/q.gguf", LoadingParameters(n_parallel=2))
    assert FILE.config_of(asked).parameters == LoadingParameters(n_parallel=2, n_ctx=2048)
    given = EngineConfig("qwen", "/q.gguf", LoadingParameters(n_ctx=4096), given=("n_ctx",))
    assert FILE.config_of(given) == given
    assert FILE.config_of(EngineConfig("coder:long", "/q.gguf", LoadingParameters())).parameters.n_ctx == 8192
    assert (FILE.root_of("coder:long"), FILE.root_of("coder"), FILE.root_of("qwen")) == ("qwen", None, None)


def test_members_of_an_exclusive_group_are_engines() -> None:
    settings = FILE.settings.model_dump(by_alias=True) | {
        "groups": {"big": {"models": ["gpt-4", "other"], "exclusive": True}, "all": {"models": ["qwen"]}}
    }
    file = ModelsFile.of(ModelsSettings.model_validate(settings))
    groups = [file.exclusive_groups_of(name) for name in ("qwen", "other", "coder:long")]
    assert groups == [{"big"}, {"big"}, set()]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"a": {"from": "b"}, "b": {"from": "A:latest"}}, "models.a.from: 'a' is made of itself"),
        ({"a": {"from": "a"}}, "models.a.from: 'a' is made of itself"),
        ({"a": {"alias": "b"}, "b": {}}, "models.a.alias[0]: the name 'b' is taken already: models.b"),
        (
            {"a": {"alias": ["x"]}, "b": {"alias": ["y", "X"]}},
            "models.b.alias[1]: the name 'X' is taken already: models.a.alias[0]",
        ),
        ({"a": {"alias": "a"}}, "models.a.alias[0]: the name 'a' is taken already: models.a"),
        (
            {"a": {"profiles": {"x": {}}}, "a:x": {}},
            "models.a.profiles.x: the name 'a:x' is taken already: models.a:x",
        ),
    ],
)
def test_what_means_two_things_is_refused_with_its_place(models: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        said(**models)
    assert str(refused.value).startswith(message)


def test_a_name_may_not_be_an_engine_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"models.coder.alias\[0\]: 'c' is the id of an engine already"):
        FILE.refuse_taken(["qwen", "C"])
    FILE.refuse_taken(["qwen", "coder:long"])


# --- the file ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {a: {sampling: {temprature: 1}}}", "1: models.a.sampling.temprature: unknown key: did you mean 'temperature'?"),
        ("models:\n  a:\n    sampling:\n      top_p: 2", "4: models.a.sampling.top_p: must be less than or equal to 1, not 2"),
        ("models: {a: {keep_alive: soon}}", "1: models.a.keep_alive: must be a number of seconds or a duration"),
        ("models: {a: {profiles: {x: {alias: b}}}}", "1: models.a.profiles.x.alias: unknown key: known are parameters"),
        ("models: {a: {sampling: {logprobs: 1}}}", "1: models.a.sampling.logprobs: unknown key"),
        ("models: {a: {parameters: {chat_template: x}}}", "1: models.a.parameters.chat_template: unknown key"),
        ("models: {a: {parameters: {n_ctx: -1}}}", "1: models.a.parameters.n_ctx: must be greater than or equal to 0, not -1"),
        ("groups: {g: {models: []}}", "1: groups.g.models: "),
        ("model: {}", "1: model: unknown key: did you mean 'models'?"),
        ("models: [a]", "1: models: "),
        ("- a", " must be a mapping of keys to values"),
        ("models: {a: {from: b}, b: {from: a}}", "1: models.a.from: 'a' is made of itself"),
        ("models: {a: {}, a: {}}", "1: models.a: given twice"),
        ("models: {a/../b: {}}", "1: models.a/../b: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_models_file(path)
    assert str(refused.value).startswith(f"{path}:{message}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_empty_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    assert read_models_file(path).settings == read_models_file(None).settings == ModelsSettings()
    path.write_text("# later\nmodels:\n", encoding="utf-8")
    assert read_models_file(path).settings == ModelsSettings()


BY_HAND = """\
# my models
models:
  tiny:  # the small one
    alias: [a, b]
    sampling: {temperature: 0.2}  # cold
"""


def test_what_is_written_leaves_what_was_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(BY_HAND, encoding="utf-8")
    tiny = read_models_file(path).settings.models["tiny"]

    content, file = changed(path, put_model("tiny", tiny.model_copy(update={"system": "One\ntwo: #3"})))

    assert content.decode().startswith(BY_HAND)
    assert file.settings.models["tiny"].system == "One\ntwo: #3"
    path.write_bytes(content)
    content, file = changed(path, put_model("new", tiny.model_copy(update={"alias": ("on", "1:30", "~")})))
    assert file.settings.models["new"].alias == ("on", "1:30", "~")
    path.write_bytes(content)
    assert changed(path, remove("models", "new"))[1].settings.models.keys() == {"tiny"}
    with pytest.raises(ConfigError, match="the name 'a' is taken already"):
        changed(path, put_model("a", tiny))


def test_the_first_entry_and_the_last(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    group = ModelsSettings.model_validate({"groups": {"g": {"models": ["a"]}}}).groups["g"]
    content, file = changed(path, put_group("g", group))
    assert (content.decode(), [*file.settings.groups]) == ("groups:\n  g:\n    models:\n    - a\n", ["g"])
    path.write_bytes(content)
    assert changed(path, remove("groups", "g"))[0] == b""
