"""A bound of thoughts in every protocol, with a real model whose chat template begins a thought."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.helpers import add_engine

THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}"
)
"""As templates of models that always think begin an answer, in ChatML."""

ASKED = [{"role": "user", "content": "Why is the sky blue?"}]
RPC = {"jsonrpc": "2.0", "id": 1, "method": "create_message"}

Read = Callable[[dict[str, Any]], str]


def _chat(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"].get("reasoning_content") or "")


def _response(answer: dict[str, Any]) -> str:
    return "".join(item["content"][0]["text"] for item in answer["output"] if item["type"] == "reasoning")


def _message(answer: dict[str, Any]) -> str:
    return "".join(block.get("thinking", "") for block in answer["content"])


def _ollama(answer: dict[str, Any]) -> str:
    return str(answer["message"].get("thinking") or "")


@pytest.mark.model
def test_a_thought_ends_at_its_bound_in_every_protocol(http: httpx.Client, smollm2: Path) -> None:
    add_engine(http, "thinks", smollm2, n_ctx=1024, chat_template=THINKS)
    limits = {"temperature": 0, "max_tokens": 40}
    asks: dict[str, tuple[str, dict[str, Any], Read]] = {
        "chat": ("/v1/chat/completions", {"messages": ASKED, **limits}, _chat),
        "response": ("/v1/responses", {"input": ASKED, "temperature": 0, "max_output_tokens": 40}, _response),
        "message": ("/v1/messages", {"messages": ASKED, **limits}, _message),
        "ollama": ("/api/chat", {"messages": ASKED, "stream": False, "options": {"temperature": 0, "num_predict": 40}}, _ollama),
    }  # fmt: skip

    def thought(name: str, **fields: Any) -> str:
        path, body, read = asks[name]
        answer = http.post(path, json={"model": "thinks", **body, **fields})
        assert answer.status_code == 200, answer.text
        return read(answer.json())

    def n_words(name: str, **fields: Any) -> int:
        return len(thought(name, **fields).split())

    assert all(n_words(name) > 20 for name in asks)
    assert 0 < n_words("chat", reasoning_budget=6) <= 6
    assert 0 < n_words("response", reasoning_budget=6) <= 6
    assert 0 < n_words("chat", chat_template_kwargs={"thinking_budget": 6}) <= 6

    none: list[tuple[str, dict[str, Any]]] = [("chat", {"reasoning_budget": 0}), ("chat", {"reasoning_effort": "none"}), ("ollama", {"think": False}),
            ("response", {"reasoning": {"effort": "none"}}), ("message", {"thinking": {"type": "disabled"}})]  # fmt: skip
    assert [thought(name, **fields) for name, fields in none] == [""] * len(none)

    assert n_words("message", thinking={"type": "enabled", "budget_tokens": 1024}) > 20
    rpc = http.post(
        "/rpc",
        json=RPC
        | {
            "params": {
                "message": ASKED[0]["content"],
                "model": "thinks",
                "max_new_tokens": 40,
                "reasoning_budget": 6,
            }
        },
    )
    assert "result" in rpc.json(), rpc.text  # which may be empty: the model ends where it likes
