"""The application as a whole: what importing it costs, and that no input makes it fail."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeEngine, app_with, http_client, says


def test_importing_the_application_loads_no_native_code() -> None:
    code = "import sys, kolosal.app, kolosal.daemon; print([m for m in ('llama_cpp', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


BAD_BODIES = [
    b"", b"null", b"[]", b"{", b'{"model":NaN}', b'{"model":"\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000,
    b'{"model":"fake","prompt":"x","seed":' + b"1" * 5000 + b"}", b'{"model":"fake","prompt":"x","temperature":1e999}',
    b'{"model":"fake","messages":' + b"[" * 300 + b"]" * 300 + b"}", b"\xff\xfe", b"\x00", b"\xef\xbb\xbf",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/engines", "/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_a_bad_body_is_a_400_in_the_one_shape(path: str, body: bytes) -> None:
    async with http_client(app_with(FakeEngine(script=says("a")))) as client:
        response = await client.post(path, content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].startswith("Invalid JSON: ") or error["param"]
    assert len(response.content) < 500


async def test_a_large_body_is_decoded_all_the_same() -> None:
    engine = FakeEngine(script=says("a"))
    prompt = "é" * 300_000
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/completions", json={"model": "fake", "prompt": prompt})
        refused = await client.post(
            "/v1/completions", content=b'{"model":"fake","prompt":"' + b"x" * 600_000 + b"\xff"
        )
    assert (response.status_code, refused.status_code) == (200, 400)
    assert engine.requests[0].prompt.text == prompt  # type: ignore[union-attr]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["messages", "prompt", "stream", "temperature", "max_tokens", "stop", "seed", "tools", "n", "engine_id",
                          "model_path", "loading_parameters", "n_ctx", "top_k", "stream_options", "model"])  # fmt: skip


@given(
    st.dictionaries(FIELDS, VALUES), st.sampled_from(["/engines", "/v1/chat/completions", "/v1/completions"])
)
async def test_no_json_makes_a_500(fields: dict[str, object], path: str) -> None:
    async with http_client(app_with(FakeEngine(script=says("a")))) as client:
        response = await client.post(path, content=orjson.dumps({"model": "fake"} | fields))
    assert response.status_code in (200, 201, 400, 404, 409)
