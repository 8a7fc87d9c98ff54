"""The conversation engine on a real model, over a real daemon: form, not wisdom."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from kolosal.conversation import ConversationEngine
from kolosal.conversation.model_loading import initialize
from kolosal.errors import ModelFileError
from tests.conversation.models import PROMPTS
from tests.e2e.helpers import DEADLINE_S, ENGINE, ROOT, Daemon, in_flight, user_environment, wait_until
from tests.http.test_daemon import daemon as scripted_daemon

pytestmark = pytest.mark.model

KEYS = {
    "user_question", "draft_answer", "suggestions1", "revision1", "comments1", "suggestions2", "revision2", "comments2"
}  # fmt: skip


def configured_daemon(smollm2: Path, folder: Path) -> Daemon:
    """A daemon that is started without a flag: three files and four variables say what it is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "server_config.yaml").write_text(
        "server: {host: CHAT_SERVER_HOST, port: CHAT_SERVER_PORT, api_key: MY_KEY}\n"
    )
    (folder / "model_config.yaml").write_text(
        f"model: {{id: '{smollm2.absolute().as_posix()}', device: cpu, parameters: {{max_new_tokens: 12, temperature: 0}}}}\n"
    )
    (folder / "system_prompt_config.yaml").write_text(
        "system_prompts: {assistant: Be brief., pirate: You are a pirate.}\n"
    )
    environment = user_environment(folder) | {
        "LLM_SERVER_CONFIG_DIR": str(folder),
        "CHAT_SERVER_HOST": "127.0.0.1",
        "CHAT_SERVER_PORT": str(port),
        "MY_KEY": "secret",
    }
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        command = [sys.executable, "-m", "kolosal", "serve"]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, env=environment
        )
    return Daemon(process, folder, environment)


def test_c13_the_daemon_is_what_the_files_say(smollm2: Path, tmp_path: Path) -> None:
    configured = configured_daemon(smollm2, tmp_path)
    try:
        configured.wait_until_ready(smollm2.stem, "secret")
        assert configured.url == f"http://127.0.0.1:{configured.environment['CHAT_SERVER_PORT']}"
        with httpx.Client(base_url=configured.url, timeout=4 * DEADLINE_S, trust_env=False) as http:
            assert http.get("/ping").status_code == 422
            assert http.get("/ping", params={"x_api_key": "wrong"}).status_code == 403
            assert [http.get(path).status_code for path in ("/v1/models", "/engines")] == [401, 401]
            listed = subprocess.run(
                [sys.executable, "-m", "kolosal", "ps"],
                capture_output=True,
                encoding="utf-8",
                env=configured.environment,
            )
            assert (listed.returncode, smollm2.stem in listed.stdout) == (0, True), listed.stderr
            http.headers["x-api-key"] = "secret"
            assert [http.get(path).status_code for path in ("/v1/models", "/engines")] == [200, 200]
            assert http.get("/ping").json() == {"status": "ok"}

            plain = http.post("/chat/blocking", json={"prompt": "Hi", "role": "pirate"}).json()
            body = {"prompt": "Why is the sky blue?", "improvement": True, "intermediate_steps": True}
            improved = http.post("/chat/blocking", json=body).json()
            streamed = http.post("/chat/stream", json={"prompt": "Why is the sky blue?"}).text
    finally:
        configured.stop()

    assert plain["reply"].strip()
    assert improved["reply"].strip() not in ("", "None")
    assert improved["steps"].keys() == KEYS
    assert streamed == f"{improved['steps']['draft_answer']}[[END]]"  # greedy, and the same prompt
    assert "secret" not in configured.log


def test_c09_the_python_api_against_a_daemon(daemon: Daemon, http: httpx.Client) -> None:
    tok, model = initialize(model_id=ENGINE, base_url=daemon.url)
    with model:
        engine = ConversationEngine(tok, model, PROMPTS)
        model.parameters = model.parameters.changed({"max_new_tokens": 12})
        assert "".join(engine.stream_reply("Hello")) == engine.last_result["reply"] != ""

        model.parameters = model.parameters.changed({"max_new_tokens": 4000})
        answer = engine.stream_reply("Tell me a long story about a lighthouse.")
        next(answer)
        answer.close()
        wait_until(lambda: in_flight(http) == 0)
        assert len(engine.conversation_history) == 2
        assert tok.eos_token_id == 2


def test_the_python_api_adds_a_file_to_a_daemon(daemon: Daemon, http: httpx.Client, tiny_gguf: Path) -> None:
    tok, model = initialize("cpu", str(tiny_gguf), base_url=daemon.url)
    with model:
        assert http.get(f"/engines/{tiny_gguf.stem}").json()["loading_parameters"]["n_gpu_layers"] == 0
        assert tok.decode(tok.encode("Hello", add_special_tokens=False)) == "Hello"


def test_an_engine_that_a_daemon_does_not_have_is_named(daemon: Daemon) -> None:
    with pytest.raises(ModelFileError, match="has no engine 'nobody'"):
        initialize(model_id="nobody", base_url=daemon.url)


def test_the_python_example_of_the_page(tiny_gguf: Path, tmp_path: Path) -> None:
    """Over an engine whose words are given: how much a small model has to say to a greeting is chance."""
    page = (ROOT / "docs" / "api" / "conversation.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    model = {"id": "tiny", "path": str(tiny_gguf), "parameters": {"n_ctx": 2048}}
    with scripted_daemon(models=[model]) as (_, url):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                example.replace("http://127.0.0.1:8080", url).replace("Hello", "<say>Hi</say>"),
            ],
            capture_output=True,
            encoding="utf-8",
            timeout=DEADLINE_S,
            env=user_environment(tmp_path),
        )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "Hi\n")
