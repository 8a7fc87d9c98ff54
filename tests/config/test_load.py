"""Settings: where they come from, which source wins, and that the documentation names them all."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from kolosal.config.errors import ConfigError
from kolosal.config.load import Configuration, config_file_path, load_settings
from kolosal.config.models import ModelEntry
from kolosal.config.settings import SETTING_NAMES, SettingName, Settings
from kolosal.engines.parameters import FlashAttention, LoadingParameters
from tests.settings import settings_of

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.yaml"


def load(file: Path, text: str | bytes, **environ: str) -> Configuration:
    """The configuration with a file of this text."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_settings(config_path=file, environ=environ)


def test_without_any_source_all_is_default() -> None:
    found = load_settings(environ={})
    assert found.settings == Settings()
    assert set(found.origins.values()) == {"default"}
    assert found.file is None


def test_each_source_wins_over_the_one_before(file: Path) -> None:
    file.write_text("server:\n  host: a\n  port: 1\nlogging: {level: error}\n")
    environ = {"KOLOSAL_PORT": "2", "KOLOSAL_LOG_LEVEL": "warning"}
    found = load_settings({"log_level": "debug", "host": None}, config_path=file, environ=environ)
    assert (found.settings.server.host, found.settings.server.port, found.settings.logging.level) == (
        "a",
        2,
        "debug",
    )
    assert found.origins["server.host"] == f"{file}:2"
    assert found.origins["server.port"] == "KOLOSAL_PORT"
    assert found.origins["logging.level"] == "--log-level"
    assert found.origins["logging.access_log"] == "default"


def test_a_value_equal_to_the_default_still_has_its_origin(file: Path) -> None:
    assert load(file, "server: {port: 8080}").origins["server.port"] == f"{file}:1"


VALUES = {
    "server.allowed_hosts": ["gpu-box", ".example.com"],
    "auth.api_key": "a-key-of-our-own-1234",
    "server.cors_origins": ["https://app.example.com"],
    "engines.model_roots": ["/srv/models", "~/models"],
    "library.folders": ["/srv/models", "~/more"],
    "downloads.trusted_hosts": ["nas.lan", "10.0.0.5:8000"],
    "server.trusted_proxies": ["10.0.0.0/8"],
    "store.url": "postgresql://user:password@db/kolosal",
}
"""What is written where the default is nothing; for all others any text will do."""


@pytest.mark.parametrize("name", SETTING_NAMES, ids=lambda name: name.key)
def test_every_setting_can_come_from_the_file_and_from_the_environment(file: Path, name: SettingName) -> None:
    section, _, key = name.key.partition(".")
    value = VALUES.get(name.key) or Settings().value(name.key)
    some = "http://a/b" if name.key.endswith("_url") else "some-text"
    value = some if value is None else value
    from_file = load(file, yaml.safe_dump({section: {key: value}}))
    assert from_file.origins[name.key] == f"{file}:2"
    text = ", ".join(value) if isinstance(value, list) else str(value)
    from_environment = load_settings(environ={name.variable: text})
    assert from_environment.origins[name.key] == name.variable
    found = from_file.settings.value(name.key)
    assert found == from_environment.settings.value(name.key)
    if isinstance(value, list):
        assert found == tuple(value)
    else:
        assert found == (SecretStr(str(value)) if isinstance(found, SecretStr) else value)


@pytest.mark.parametrize("name", ["auth.api_key", "store.url"])
def test_a_secret_is_shown_by_nothing(file: Path, name: str) -> None:
    section, _, key = name.partition(".")
    secret = str(VALUES[name])
    found = load(file, f"{section}: {{{key}: '{secret}'}}")
    assert secret not in repr(found) + str(found.settings) + str(found.rows())


def test_an_engine_has_all_its_parts(file: Path, tmp_path: Path) -> None:
    text = """
models:
  - id: a
    path: models/a.gguf
    load_at_startup: false
    main_gpu_id: 1
    load_params: {n_ctx: 512, flash_attn: off, tensor_split: [1, 2.5]}
"""
    expected = LoadingParameters(
        n_ctx=512, main_gpu_id=1, flash_attn=FlashAttention.OFF, tensor_split=(1.0, 2.5)
    )
    path = str(tmp_path / "models" / "a.gguf")
    entry = ModelEntry(id="a", path=path, load_immediately=False, parameters=expected)
    assert load(file, text).settings.models == (entry,)


def test_an_engine_of_another_backend_needs_no_path(file: Path) -> None:
    text = "models:\n  - {id: e, backend: echo}\n  - {id: s, backend: shout, backend_options: {mark: '?'}}\n"
    assert load(file, text).settings.models == (
        ModelEntry(id="e", backend="echo"),
        ModelEntry(id="s", backend="shout", backend_options={"mark": "?"}),
    )
    with pytest.raises(ConfigError, match=r"models\[0\].path: is missing"):
        load(file, "models:\n  - id: a\n")


def test_engines_of_flags_join_those_of_the_file_and_replace_their_namesakes(
    file: Path, tmp_path: Path
) -> None:
    file.write_text("models:\n  - {id: a, path: /a.gguf}\n  - {id: b, path: /b.gguf}\n")
    found = load_settings(models=["b=new=b.gguf", "c=c.gguf"], config_path=file, environ={})
    assert [entry.id for entry in found.settings.models] == ["a", "b", "c"]
    assert found.settings.models[1].path == str(tmp_path / "new=b.gguf")
    assert found.origins["models[a]"] == f"{file}:2"
    assert found.origins["models[b]"] == "--model"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    found = load(folder / "c.yaml", "models: [{id: a, path: ../a.gguf}]")
    assert found.settings.models[0].path == str(folder / ".." / "a.gguf")


def test_a_byte_order_mark_is_accepted(file: Path) -> None:
    text = "server: {port: 9000}\n"
    for encoding in ("utf-8-sig", "utf-16"):
        assert load(file, text.encode(encoding)).settings.server.port == 9000


@pytest.mark.parametrize("text", ["", "# nothing\n", "server:\nmodels:\n", "---\n", "~", "models: []"])
def test_empty_sections_are_empty(file: Path, text: str) -> None:
    assert load(file, text).settings == Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings(environ={"KOLOSAL_PORT": ""}).origins["server.port"] == "default"


def test_variables_that_set_nothing_are_let_pass(file: Path) -> None:
    file.write_text("server: {port: 9000}")
    environ = {"KOLOSAL_CONFIG": str(file), "KOLOSAL_TEST_MODEL": "/x.gguf", "PATH": "x", "KOLOSALX": "y"}
    assert load_settings(environ=environ).settings.server.port == 9000


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("platform", "variable", "within"),
    [
        ("linux", "HOME", ".config/kolosal"),
        ("linux", "XDG_CONFIG_HOME", "kolosal"),
        ("darwin", "HOME", "Library/Application Support/Kolosal"),
        ("win32", "APPDATA", "Kolosal"),
    ],
)
def test_the_file_is_looked_for_in_order(tmp_path: Path, platform: str, variable: str, within: str) -> None:
    environ = {variable: str(tmp_path / "home")}
    assert config_file_path(None, environ, platform) is None
    users = touch(tmp_path / "home" / within / "config.yaml")
    assert config_file_path(None, environ, platform) == users
    here = touch(tmp_path / "config.yaml")
    assert config_file_path(None, environ, platform) == here
    environ["KOLOSAL_CONFIG"] = "named.yaml"
    assert config_file_path(None, environ, platform) == tmp_path / "named.yaml"
    assert config_file_path(Path("flag.yaml"), environ, platform) == tmp_path / "flag.yaml"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_user_without_a_home_has_no_file(platform: str) -> None:
    assert config_file_path(None, {}, platform) is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("fe80::1", "http://[fe80::1]:8080"),
        ("box.local", "http://box.local:8080"),
    ],
)
def test_the_address_for_clients(host: str, url: str) -> None:
    assert settings_of(host=host).server.url == url


def complaint(file: Path, content: str | bytes) -> str:
    """What is said about a file, beginning with its path; nothing when it loads."""
    try:
        load(file, content)
    except ConfigError as exc:
        message = str(exc)
    else:
        return ""
    assert message.startswith(str(file))
    return message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.text().map(str.encode))
def test_no_file_does_anything_but_load_or_raise_one_line(file: Path, content: bytes) -> None:
    assert complaint(file, content).count("\n") == 0


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
entries = st.dictionaries(
    st.sampled_from(["id", "path", "load_params", "main_gpu_id", "load_immediately"]), yaml_values
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "server": st.dictionaries(st.sampled_from(["host", "port", "default_engine"]), yaml_values)
        | yaml_values,
        "models": st.lists(entries | yaml_values, max_size=3) | yaml_values,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents)
def test_no_value_anywhere_does_anything_but_load_or_raise_one_line(file: Path, document: object) -> None:
    assert complaint(file, yaml.safe_dump(document)).count("\n") == 0


def test_every_setting_is_documented() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    missing = [
        name.key
        for name in SETTING_NAMES
        if not name.meaning
        or not all(f in text for f in (f"`{name.key}`", f"`{name.variable}`", name.meaning))
    ]
    assert missing == []


def test_the_list_of_engines_is_documented() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert "`models`" in text
    assert str(Settings.model_fields["models"].description) in text


def test_every_loading_parameter_is_documented() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    missing = [name for name in LoadingParameters.__dataclass_fields__ if f"`{name}`" not in text]
    assert missing == []


def test_the_example_in_the_documentation_loads(file: Path) -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    found = load(file, example)
    given_in_file = {name for name, origin in found.origins.items() if origin.startswith(str(file))}
    assert {name.key for name in SETTING_NAMES} <= given_in_file
