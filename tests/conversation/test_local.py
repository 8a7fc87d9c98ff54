"""A model in a worker process of our own: asked from any thread, ended without a trace."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kolosal.conversation import ConversationEngine
from kolosal.conversation.inputs import prepare_inputs
from kolosal.conversation.local import LocalHost
from kolosal.conversation.model import Model
from kolosal.conversation.model_loading import initialize
from kolosal.conversation.outputs import get_reply
from kolosal.conversation.tokenizer import Tokenizer
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig
from kolosal.errors import EngineDied, LoadFailed
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, Message

PROMPTS = {"assistant": "Answer.", "reviser": "Revise."}

MakeWorker = Callable[..., WorkerCommand]
MakeConfig = Callable[..., EngineConfig]


@pytest.fixture
def host(fake_worker: MakeWorker, fake_config: MakeConfig) -> Iterator[LocalHost]:
    host = LocalHost(fake_config(n_ctx=4096), fake_worker())
    yield host
    host.close()


def test_a_conversation_without_a_daemon(host: LocalHost) -> None:
    engine = ConversationEngine(Tokenizer(host), Model(host), PROMPTS)

    assert "".join(engine.stream_reply("<say>Héllo 🤔</say>")) == "Héllo 🤔"
    assert engine.last_result == {"reply": "Héllo 🤔"}


def test_an_improved_answer_without_a_daemon(host: LocalHost) -> None:
    engine = ConversationEngine(Tokenizer(host), Model(host), PROMPTS, improvement=True)

    shown = "".join(engine.stream_reply("<say>### Revised Answer\nA much better answer.</say>"))

    assert shown.endswith("A much better answer.")
    assert engine.last_result["reply"] == "A much better answer."


def test_tokens_go_there_and_back(host: LocalHost) -> None:
    tok, model = Tokenizer(host), Model(host)
    inputs = prepare_inputs(tok, model, PROMPTS, "<say>Hello</say>")

    output = model.generate(**inputs, max_new_tokens=16)

    answer = output[0][inputs["input_ids"].shape[1] :]
    assert output[0][: -len(answer)] == inputs["input_ids"][0]
    assert tok.decode(answer, skip_special_tokens=True) == "Hello"
    assert tok.decode(tok.encode("Hé 🤔"), skip_special_tokens=True) == "Hé 🤔"
    assert tok.eos_token_id is None or tok.decode([tok.eos_token_id], skip_special_tokens=True) == ""


def test_an_answer_given_up_early_stops_the_model(fake_worker: MakeWorker, fake_config: MakeConfig) -> None:
    host = LocalHost(fake_config(n_ctx=4096, n_parallel=1), fake_worker("step_s=0.01"))
    try:
        engine = ConversationEngine(Tokenizer(host), Model(host), PROMPTS)
        answer = engine.stream_reply("1:")
        next(answer)
        answer.close()

        assert "".join(engine.stream_reply("<say>Free again</say>")) == "Free again"
        assert len(engine.conversation_history) == 2
    finally:
        host.close()


def test_a_model_that_cannot_be_loaded_leaves_nothing(
    fake_worker: MakeWorker, fake_config: MakeConfig
) -> None:
    with pytest.raises(LoadFailed):
        LocalHost(fake_config(), fake_worker("load_error"))


def test_a_worker_that_dies_is_an_error_and_is_started_again(
    fake_worker: MakeWorker, fake_config: MakeConfig
) -> None:
    host = LocalHost(fake_config(), fake_worker("crash@3"))
    prompt = ChatPrompt((Message("user", "<say>A long enough answer</say>"),))
    try:
        for _ in range(2):
            with pytest.raises(EngineDied):
                list(host.stream(prompt, SamplingParams()))
    finally:
        host.close()


def test_a_closed_model_says_so_and_can_be_closed_again(host: LocalHost) -> None:
    host.close()
    host.close()

    with pytest.raises(EngineDied, match="was closed"):
        host.detokenize([65])


def test_a_model_is_found_by_its_name(fake_worker: MakeWorker, tiny_gguf: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_gguf, tmp_path / "tiny.gguf")

    tok, model = initialize("cpu", "tiny", models_dir=tmp_path, command=fake_worker())

    with model:
        assert (model.host.name, model.device) == ("tiny", "cpu")
        assert get_reply(tok, model, PROMPTS, "<say>Here</say>") == "Here"


def test_a_model_that_is_forgotten_ends(fake_worker: MakeWorker, fake_config: MakeConfig) -> None:
    before = psutil.Process().children()
    host = LocalHost(fake_config(), fake_worker())
    [worker] = [child for child in psutil.Process().children() if child not in before]
    del host
    gc.collect()

    assert not worker.is_running()


def test_importing_loads_nothing_native_and_no_azure() -> None:
    import subprocess  # noqa: PLC0415 - only here

    script = (
        "import kolosal.conversation.startup, kolosal.conversation.model_loading, sys; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"llama_cpp", "numpy", "jinja2", "azure", "msal"}
