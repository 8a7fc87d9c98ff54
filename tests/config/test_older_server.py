"""`INFERENCE_*` variables and `.env`: how the older server was configured."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kolosal.config.errors import ConfigError
from kolosal.config.load import load_settings
from kolosal.config.logging import LoggingSettings
from kolosal.config.older_server import inference_variables
from kolosal.config.settings import Settings
from kolosal.engines.parameters import FlashAttention
from kolosal.log import configure_logging

DOCS = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(**environ: str) -> Settings:
    return load_settings(environ=environ).settings


def test_W12_the_variables_add_an_engine(folder: Path) -> None:
    found = load(
        INFERENCE_MODEL_ID="models/Small.gguf",
        INFERENCE_ATTN_IMPLEMENTATION="flash_attention_2",
        INFERENCE_BNB_COMPUTE_DTYPE="bfloat16",
    )
    (entry,) = found.models
    assert (found.server.default_engine, entry.id, entry.path) == (
        "Small",
        "Small",
        str(folder / "models/Small.gguf"),
    )
    parameters = entry.parameters
    assert parameters.flash_attn is FlashAttention.ON
    assert (parameters.cache_type_k, parameters.cache_type_v) == ("bf16", "bf16")
    assert found.logging.file == "inference_server.log"


@pytest.mark.parametrize(
    ("value", "expected"), [("sdpa", "auto"), ("flash_attention_2", "on"), ("eager", "off")]
)
def test_W12_attention_has_three_kinds(value: str, expected: str) -> None:
    (entry,) = load(INFERENCE_MODEL_ID="a.gguf", INFERENCE_ATTN_IMPLEMENTATION=value).models
    assert entry.parameters.flash_attn == expected


@pytest.mark.parametrize("name", ["INFERENCE_ATTN_IMPLEMENTATION", "INFERENCE_BNB_COMPUTE_DTYPE"])
def test_W12_any_other_kind_aborts_the_start(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} \(environment\): must be one of \w+.*, not 'paged'$"):
        load(**{name: "paged"})
    (folder / ".env").write_text(f"\n{name}=paged")
    with pytest.raises(ConfigError, match=r"\.env:2: INFERENCE_\w+: must be one of"):
        load()


def test_W12_a_file_sets_them_and_the_environment_wins(folder: Path) -> None:
    (folder / ".env").write_text(
        "# the model\nexport INFERENCE_MODEL_ID='a b.gguf' # ours\nINFERENCE_ATTN_IMPLEMENTATION=eager # slow\n"
        'INFERENCE_BNB_COMPUTE_DTYPE="float16"\nOTHER=1\nKOLOSAL_PORT=1\nINFERENCE_MODE=x\nnonsense\n',
        encoding="utf-8-sig",
    )
    found = load_settings(
        environ={"INFERENCE_ATTN_IMPLEMENTATION": "sdpa", "INFERENCE_BNB_COMPUTE_DTYPE": ""}
    )
    (entry,) = found.settings.models
    assert (entry.id, entry.parameters.flash_attn, entry.parameters.cache_type_k) == ("a b", "auto", "f16")
    assert found.settings.server.port == Settings().server.port
    assert found.origins["server.default_engine"] == f"{folder / '.env'}:2"


def test_W12_a_model_may_be_an_engine_of_the_file_or_one_that_is_added_later(folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "models:\n  - {id: small, path: /a.gguf, load_params: {n_ctx: 512}}\n"
    )
    found = load(INFERENCE_MODEL_ID="small", INFERENCE_BNB_COMPUTE_DTYPE="bfloat16")
    (entry,) = found.models
    assert (found.server.default_engine, entry.parameters.n_ctx, entry.parameters.cache_type_k) == (
        "small",
        512,
        "bf16",
    )
    found = load(INFERENCE_MODEL_ID="later")
    assert (found.server.default_engine, len(found.models)) == ("later", 1)


def test_W12_our_own_settings_win(folder: Path) -> None:
    found = load(INFERENCE_MODEL_ID="a.gguf", KOLOSAL_DEFAULT_ENGINE="b", KOLOSAL_LOG_FILE="own.log")
    assert (found.server.default_engine, found.logging.file) == ("b", "own.log")


def test_a_folder_may_be_the_model(folder: Path) -> None:
    (folder / "model").mkdir()
    assert load(INFERENCE_MODEL_ID="model").models[0].path == str(folder / "model")


@pytest.mark.parametrize("model", ["a\0.gguf", "x" * 300, "what?"])
def test_what_is_no_name_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match=r"must be the path of a model or the id of an engine"):
        load(INFERENCE_MODEL_ID=model)


def test_without_them_nothing_changes(folder: Path) -> None:
    (folder / ".env").mkdir()
    assert load(INFERENCE_MODEL_ID="", INFERENCE_SERVER="x") == Settings()


def test_a_file_that_is_too_long_is_none_of_ours(folder: Path) -> None:
    (folder / ".env").write_bytes(b"#" * 70_000)
    with pytest.raises(ConfigError, match="no file of variables"):
        load()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200).map(lambda tail: b"INFERENCE_MODEL_ID=" + tail))
def test_any_file_is_read_without_a_fault(folder: Path, content: bytes) -> None:
    (folder / ".env").write_bytes(content)
    assert len(inference_variables({}, folder)) <= 3


def test_they_are_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    words = [
        "INFERENCE_MODEL_ID",
        "INFERENCE_ATTN_IMPLEMENTATION",
        "INFERENCE_BNB_COMPUTE_DTYPE",
        "sdpa",
        "eager",
    ]
    assert [word for word in words if f"`{word}`" not in text] == []


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, as it was when the test has ended."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for handler in handlers:
        root.removeHandler(handler)
    yield root
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_W12_log_lines_go_to_a_file_that_is_rotated_and_to_the_console(
    root_logger: logging.Logger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = io.StringIO()
    monkeypatch.setattr(sys, "stderr", console)
    settings = LoggingSettings(file=str(folder / "inference_server.log"))
    max_bytes, count = settings.file_bytes, settings.file_count
    configure_logging(settings)
    log = logging.getLogger("test")
    line = "ü" * 1_000_000
    for number in range(count * 6):
        log.info(line, extra={"number": number})
    files = sorted(path.name for path in folder.iterdir())
    assert files == [
        "inference_server.log",
        *(f"inference_server.log.{n}" for n in range(1, count + 1)),
    ]
    assert all(path.stat().st_size <= max_bytes for path in folder.iterdir())
    last = (folder / "inference_server.log").read_text(encoding="utf-8").splitlines()[-1]
    assert last.endswith(f" number={count * 6 - 1}")
    assert console.getvalue().splitlines()[-1] == last
