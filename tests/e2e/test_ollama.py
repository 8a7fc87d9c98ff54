"""The official Ollama client against the running daemon and a real model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import ollama
import pytest
from pydantic import BaseModel, Field

from tests.e2e.helpers import DEADLINE_S, ENGINE, ROOT, Daemon, add_engine
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.model

CAPITAL = "Name the capital city of France."
PARIS = "The capital city of France is Paris."
GREEDY = {"temperature": 0, "num_predict": 64}


@pytest.fixture
def sdk(daemon: Daemon) -> Iterator[ollama.Client]:
    """The official client, as the documentation says to set it up."""
    with ollama.Client(host=daemon.url, timeout=DEADLINE_S) as client:
        yield client


def weather(city: str, days: int) -> str:
    """The weather of a city.

    Args:
        city: its name
        days: how many days ahead
    """
    return f"Rain in {city} for {days} days"


def test_models_are_listed_shown_and_watched(sdk: ollama.Client, smollm2: Path) -> None:
    [listed] = [model for model in sdk.list().models if model.model == ENGINE]
    assert listed.details is not None
    assert (listed.details.family, listed.details.parameter_size) == ("llama", "134.52M")
    assert listed.size == smollm2.stat().st_size
    shown = sdk.show(ENGINE)
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.details is not None
    assert shown.details.quantization_level == "Q4_1"
    assert shown.capabilities == ["completion", "tools"]
    [running] = [model for model in sdk.ps().models if model.name == f"{ENGINE}"]
    assert (running.size or 0) > 80_000_000
    assert running.size_vram == 0 or running.size_vram == running.size
    assert running.context_length == 4096
    assert running.expires_at is not None
    assert 0 < (running.expires_at - datetime.now(UTC)).total_seconds() <= 3600


def test_O03_a_model_says_the_same_before_it_is_loaded(
    sdk: ollama.Client, http: httpx.Client, smollm2: Path
) -> None:
    add_engine(http, "later", smollm2, n_ctx=512, load_immediately=False)
    before = sdk.show("later")
    assert "later" not in [model.name for model in sdk.ps().models]
    assert sdk.generate("later", keep_alive=-1).done_reason == "load"
    after = sdk.show("later")
    assert before == after
    assert before.details is not None
    assert (before.details.parameter_size, before.details.quantization_level) == ("134.52M", "Q4_1")
    assert before.template is not None
    assert "<|im_start|>" in before.template
    [running] = [model for model in sdk.ps().models if model.name == "later"]
    assert running.expires_at is not None
    assert running.expires_at.year == 2318


def test_num_ctx_bounds_prompt_and_answer(sdk: ollama.Client) -> None:
    options = {"temperature": 0, "num_ctx": 64}
    story = sdk.generate(ENGINE, "Tell me a long story about a lighthouse.", options=options)
    assert story.done_reason == "length"
    assert (story.prompt_eval_count or 0) + (story.eval_count or 0) == 64
    turns = [ollama.Message(role=role, content="word " * 30) for role in ("user", "assistant") * 2]
    chat = sdk.chat(ENGINE, [*turns, ollama.Message(role="user", content="Hi")], options=options)
    assert (chat.prompt_eval_count or 0) < 64
    long_turn = [ollama.Message(role="user", content="word " * 100)]
    whole = sdk.chat(ENGINE, long_turn, options=options | {"num_predict": 2})
    assert (whole.prompt_eval_count or 0) > 100
    larger = sdk.generate(ENGINE, "Hi", options={"num_ctx": 1_000_000, "num_predict": 2})
    assert larger.eval_count == 2


def test_a_prompt_is_answered_whole_and_in_pieces(sdk: ollama.Client) -> None:
    whole = sdk.generate(ENGINE, CAPITAL, options=GREEDY)
    assert (whole.response, whole.done_reason) == (PARIS, "stop")
    assert (whole.total_duration or 0) > (whole.eval_duration or 0) > 0
    parts = list(sdk.generate(ENGINE, CAPITAL, options=GREEDY, stream=True))
    assert len(parts) > 5
    assert "".join(part.response or "" for part in parts) == PARIS
    assert parts[-1].context == whole.context
    assert parts[-1].prompt_eval_count == whole.prompt_eval_count
    assert len(whole.context or ()) >= (whole.prompt_eval_count or 0) + (whole.eval_count or 0) - 1


def test_a_context_is_continued(sdk: ollama.Client) -> None:
    first = sdk.generate(ENGINE, CAPITAL, options=GREEDY)
    second = sdk.generate(ENGINE, "And of Italy?", context=first.context, options=GREEDY)
    assert second.context is not None
    assert first.context is not None
    assert second.context[: len(first.context)] == first.context


def test_a_raw_prompt_goes_on(sdk: ollama.Client) -> None:
    raw = sdk.generate(ENGINE, "The capital of France is", raw=True, options=GREEDY | {"num_predict": 3})
    bare = sdk.generate(
        ENGINE, "The capital of France is", template="{{ .Prompt }}", options=GREEDY | {"num_predict": 3}
    )
    assert raw.response == bare.response
    assert (raw.eval_count, raw.done_reason, raw.context) == (3, "length", None)


def test_control_tokens_of_a_raw_prompt_are_read_as_such(sdk: ollama.Client) -> None:
    prompt = "<|im_start|>user\nHi<|im_end|>\n"
    assert sdk.generate(ENGINE, prompt, raw=True, options={"num_predict": 1}).prompt_eval_count == 6


def test_a_gap_is_filled_by_a_model_made_for_that(
    sdk: ollama.Client, http: httpx.Client, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "fim.gguf", fim=("PRE", "SUF", "MID"))
    add_engine(http, "fim", tmp_path / "fim.gguf", n_ctx=256)
    filled = sdk.generate("fim", "def f(", suffix=")", options={"num_predict": 3})
    gap = {"model": "fim", "input_prefix": "def f(", "input_suffix": ")", "n_predict": 1}
    asked = http.post("/infill", json=gap).json()["tokens_evaluated"]
    assert (filled.prompt_eval_count, filled.eval_count, filled.context) == (asked, 3, None)


def test_a_chat_with_tools_whole_and_in_pieces(sdk: ollama.Client, tiny: str) -> None:
    """Whether a small model calls is its own choice; that it may, and what a result does, is seen here.

    The second chat finds the first one's cells, so that of two words that are as likely the other may be chosen: that
    whole and in pieces are the same is seen where numbers are exact.
    """
    messages = [
        ollama.Message(role="user", content="Will it rain in Oslo?"),
        ollama.Message(
            role="assistant",
            tool_calls=[
                ollama.Message.ToolCall(
                    function=ollama.Message.ToolCall.Function(
                        name="weather", arguments={"city": "Oslo", "days": 2}
                    )
                )
            ],
        ),
        ollama.Message(role="tool", content=weather("Oslo", 2), tool_name="weather"),
    ]
    for engine in (ENGINE, tiny):
        whole = sdk.chat(engine, messages, tools=[weather], options=GREEDY)
        parts = list(sdk.chat(engine, messages, tools=[weather], options=GREEDY, stream=True))
        assert whole.done
        assert parts[-1].done
        if engine == tiny:
            assert "".join(part.message.content or "" for part in parts) == whole.message.content
            assert parts[-1].done_reason == whole.done_reason
        else:
            assert whole.message.content or whole.message.tool_calls
            assert any(part.message.content or part.message.tool_calls for part in parts)


class City(BaseModel):
    """What the model is asked for."""

    name: str = Field(max_length=20)
    large: bool


def test_an_answer_follows_a_schema(sdk: ollama.Client) -> None:
    messages = [ollama.Message(role="user", content=CAPITAL)]
    answer = sdk.chat(
        ENGINE, messages, format=City.model_json_schema(), options={"num_predict": 200, "temperature": 0}
    )
    assert City.model_validate_json(answer.message.content or "").name is not None


def test_vectors_have_length_1_and_long_texts_are_cut(sdk: ollama.Client) -> None:
    answer = sdk.embed(ENGINE, ["Hello", "Good evening"])
    assert [round(sum(number * number for number in vector), 3) for vector in answer.embeddings] == [1, 1]
    assert sdk.embeddings(ENGINE, "Hello").embedding == pytest.approx(answer.embeddings[0], abs=1e-3)


def test_a_long_text_is_cut_off_unless_it_may_not_be(sdk: ollama.Client, tiny: str) -> None:
    cut = sdk.embed(tiny, "x" * 5000)
    assert cut.prompt_eval_count is not None
    assert 0 < cut.prompt_eval_count <= 2048
    with pytest.raises(ollama.ResponseError, match="the input length exceeds the context length"):
        sdk.embed(tiny, "x" * 5000, truncate=False)


def test_a_long_chat_loses_its_oldest_turns(sdk: ollama.Client, tiny: str) -> None:
    messages = [ollama.Message(role=role, content="x" * 600) for role in ("user", "assistant") * 3]
    messages.append(ollama.Message(role="user", content="end"))
    answer = sdk.chat(tiny, messages, options={"num_predict": 2})
    assert answer.eval_count == 2
    assert (answer.prompt_eval_count or 0) < 2048


def test_a_model_is_freed_and_loaded(sdk: ollama.Client, http: httpx.Client, tiny_gguf: Path) -> None:
    add_engine(http, "brief", tiny_gguf, n_ctx=256)
    assert sdk.generate("brief", keep_alive=0).done_reason == "unload"
    assert "brief" not in [model.name for model in sdk.ps().models]
    assert sdk.generate("brief:latest").done_reason == "load"
    assert "brief" in [model.name for model in sdk.ps().models]
    answer = sdk.generate("brief", "a", options={"num_predict": 2}, keep_alive="0s")
    assert (answer.done, answer.eval_count) == (True, 2)
    assert "brief" not in [model.name for model in sdk.ps().models]
    assert sdk.copy("brief", "other").status == "success"
    assert sdk.delete("other").status == "success"


def test_errors_are_the_clients_own_class(sdk: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as missing:
        sdk.chat("nobody", [ollama.Message(role="user", content="a")])
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="fill in the middle"):
        sdk.generate(ENGINE, "a", suffix="b")
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        sdk.generate(ENGINE, "a", think=True)


def test_the_example_of_the_documentation_runs(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "api" / "ollama.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    example = example.replace("http://127.0.0.1:8080", daemon.url).replace('"tiny"', f'"{ENGINE}"')
    example = example.replace(
        "stream=True", "stream=True, options={'num_predict': 16}"
    )  # small models find no end
    variables: dict[str, object] = {}
    exec(example, variables)  # noqa: S102 - our own page
    client = variables["client"]
    assert isinstance(client, ollama.Client)
    with client:
        pass  # closes it
    assert capsys.readouterr().out.strip()
