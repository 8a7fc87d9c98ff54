"""What is no request, and what is no model: told in one sentence, and the daemon answers on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.helpers import ENGINE, chat, content_of
from tests.gguf_files import STRING, gguf

pytestmark = pytest.mark.model

CHAT, TEXT, ENGINES = "/v1/chat/completions", "/v1/completions", "/engines"

NOT_JSON = {
    "nothing": b"",
    "unclosed": b'{"model": "smollm2"',
    "no object": b"[]",
    "NaN": b'{"model": "smollm2", "prompt": "x", "temperature": NaN}',
    "infinity": b'{"model": "smollm2", "prompt": "x", "temperature": -Infinity}',
    "a number without end": b'{"model": "smollm2", "prompt": "x", "temperature": 1' + b"0" * 400 + b"}",
    "lone surrogate": rb'{"model": "smollm2", "prompt": "\ud800"}',
    "deep arrays": b'{"model": "smollm2", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"model":' * 100_000,
    "not UTF-8": b'{"model": "smollm2", "prompt": "caf\xe9"}',
    "half a code point": b'{"model": "smollm2", "prompt": "\xf0\x9f\x92"}',
}

HELLO = {"role": "user", "content": "Hello"}
WRONG: list[tuple[str, dict[str, object], str]] = [
    (CHAT, {"model": 5, "messages": [HELLO]}, "model"),
    (CHAT, {"model": ENGINE}, "messages"),
    (CHAT, {"model": ENGINE, "messages": []}, "messages"),
    (CHAT, {"model": ENGINE, "messages": "Hello"}, "messages"),
    (CHAT, {"model": ENGINE, "messages": ["Hello"]}, "messages.0"),
    (CHAT, {"model": ENGINE, "messages": [{"content": "Hello"}]}, "messages.0.role"),
    (CHAT, {"model": ENGINE, "messages": [{"role": "king", "content": "Hello"}]}, "messages.0.role"),
    (CHAT, {"model": ENGINE, "messages": [HELLO, {"role": "user", "content": 5}]}, "messages.1.content"),
    (CHAT, {"model": ENGINE, "messages": [HELLO], "max_completion_tokens": -2}, "max_completion_tokens"),
    (TEXT, {"model": ENGINE}, "prompt"),
    (TEXT, {"model": ENGINE, "prompt": 5}, "prompt"),
    (TEXT, {"model": ENGINE, "prompt": ""}, "prompt"),
    (TEXT, {"model": ENGINE, "prompt": ["Hello", 5]}, "prompt.1"),
    (ENGINES, {"model_path": "x.gguf"}, "engine_id"),
    (ENGINES, {"engine_id": "x"}, "model_path"),
    (ENGINES, {"engine_id": "a/..", "model_path": "x.gguf"}, "engine_id"),
    (ENGINES, {"engine_id": "x", "model_path": 5}, "model_path"),
    (ENGINES, {"engine_id": "x", "model_path": "x.gguf", "n_ctx": "big"}, "n_ctx"),
    (ENGINES, {"engine_id": "x", "model_path": "x.gguf", "n_ctx": -1}, "n_ctx"),
    (ENGINES, {"engine_id": "x", "model_path": "x.gguf", "n_ctxx": 512}, "n_ctxx"),
    (ENGINES, {"engine_id": "x", "model_path": "x.gguf", "load_immediately": "yes"}, "load_immediately"),
    (
        ENGINES,
        {"engine_id": "x", "model_path": "x.gguf", "loading_parameters": {"n_ctx": -1}},
        "loading_parameters.n_ctx",
    ),
]

SAMPLING: list[tuple[str, object]] = [
    ("temperature", "hot"),
    ("temperature", 2.5),
    ("top_p", -0.1),
    ("max_tokens", -2),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("seed", 1.5),
    ("stop", 5),
    ("stream", "yes"),
    ("stream_options", "usage"),
    ("presence_penalty", -3),
    ("frequency_penalty", 1e300),
    ("n", 0),
    ("n", 129),
]
for _name, _value in SAMPLING:
    WRONG.append((CHAT, {"model": ENGINE, "messages": [HELLO], _name: _value}, _name))
    WRONG.append((TEXT, {"model": ENGINE, "prompt": "x", _name: _value}, _name))


@pytest.fixture(autouse=True)
def _daemon_answers_on(http: httpx.Client) -> Iterator[None]:
    """After every test the daemon lives, and has the engines that it had."""
    before = http.get("/engines").json()["engines"]
    yield
    assert http.get("/v1/health").json()["status"] == "healthy"
    after = http.get("/engines").json()["engines"]
    assert [engine["engine_id"] for engine in after] == [engine["engine_id"] for engine in before]


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) - {"details"} == {"message", "type", "param", "code"}
    assert len(error["message"]) < 400
    return error


@pytest.mark.fault("H7")
@pytest.mark.parametrize("path", [CHAT, TEXT, ENGINES])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_json_is_refused(http: httpx.Client, path: str, body: bytes) -> None:
    error = error_of(http.post(path, content=body), 400)
    assert error["message"].startswith("Invalid JSON: ")
    assert (error["type"], error["param"]) == ("invalid_request_error", None)


@pytest.mark.parametrize(
    ("path", "body", "param"), WRONG, ids=[f"{path} {param}" for path, _, param in WRONG]
)
def test_a_wrong_field_is_named(http: httpx.Client, path: str, body: dict[str, object], param: str) -> None:
    error = error_of(http.post(path, json=body), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert param in error["message"]


def test_unknown_paths_and_verbs_are_errors_of_the_same_shape(http: httpx.Client) -> None:
    assert error_of(http.get("/v1/nothing"), 404)["type"] == "invalid_request_error"
    assert error_of(http.put("/engines"), 405)["code"] == "method_not_allowed"
    assert error_of(http.delete("/engines/nothing"), 404)["type"] == "not_found_error"


class TestModelFiles:
    def test_a_missing_file(self, http: httpx.Client, tmp_path: Path) -> None:
        error = self.refused(http, tmp_path / "nothing.gguf", 400, "model_path_not_found")
        assert "does not exist on the machine the server runs on" in error["message"]

    def test_a_text_in_the_clothes_of_a_model(self, http: httpx.Client, tmp_path: Path) -> None:
        (tmp_path / "poem.gguf").write_text("Roses are red.", encoding="utf-8")
        error = self.refused(http, tmp_path / "poem.gguf", 400, "invalid_model_format")
        assert "has the name of a GGUF model, but is something else" in error["message"]

    def test_a_model_in_the_clothes_of_a_text(
        self, http: httpx.Client, tmp_path: Path, tiny_gguf: Path
    ) -> None:
        (tmp_path / "model.txt").write_bytes(tiny_gguf.read_bytes())
        error = self.refused(http, tmp_path / "model.txt", 400, "invalid_model_format")
        assert "is not a .gguf file" in error["message"]

    def test_an_empty_folder(self, http: httpx.Client, tmp_path: Path) -> None:
        error = self.refused(http, tmp_path, 400, "model_file_not_found")
        assert "holds no .gguf model" in error["message"]

    @pytest.mark.fault("G1")
    @pytest.mark.parametrize(
        ("kept", "reason"),
        [
            (0.9, "it was cut off, or not fully downloaded"),
            (0.01, "more than the file holds"),
            (0.0, "ends at byte 4"),
        ],
    )
    def test_a_truncated_model(
        self, http: httpx.Client, tmp_path: Path, tiny_gguf: Path, kept: float, reason: str
    ) -> None:
        whole = tiny_gguf.read_bytes()
        (tmp_path / "half.gguf").write_bytes(whole[: max(4, int(len(whole) * kept))])
        error = self.refused(http, tmp_path / "half.gguf", 400, "invalid_model_format")
        assert reason in error["message"]
        assert content_of(http.post(CHAT, json=chat("Hello", max_tokens=1)))

    def test_a_model_that_llama_cpp_does_not_know(self, http: httpx.Client, tmp_path: Path) -> None:
        (tmp_path / "strange.gguf").write_bytes(gguf({"general.architecture": (STRING, "strange")}))
        error = self.refused(http, tmp_path / "strange.gguf", 422, "model_loading_failed")
        assert error["type"] == "model_loading_error"
        assert error["details"] == {
            "engine_id": "x",
            "model_path": str(tmp_path / "strange.gguf"),
            "n_ctx": 512,
            "n_gpu_layers": "auto",
            "main_gpu_id": 0,
        }
        assert content_of(http.post(CHAT, json=chat("Hello", max_tokens=1)))

    def test_a_name_that_is_taken(self, http: httpx.Client, tiny_gguf: Path) -> None:
        answer = http.post("/engines", json={"engine_id": ENGINE, "model_path": str(tiny_gguf)})
        error = error_of(answer, 409)
        assert (error["param"], error["code"]) == ("engine_id", "engine_id_exists")
        assert error["message"].startswith(f"Engine ID '{ENGINE}' already exists.")

    def refused(self, http: httpx.Client, path: Path, status: int, code: str) -> dict[str, Any]:
        answer = http.post("/engines", json={"engine_id": "x", "model_path": str(path), "n_ctx": 512})
        error = error_of(answer, status)
        assert (error["param"], error["code"]) == ("model_path", code)
        assert path.name in error["message"] or status == 422
        return error
