"""What a manifest of Ollama's says of a model, as settings here."""

from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.downloads.ollama_layers import layer_settings
from kolosal.models.entry import Layer


def settings(folder: Path, **said: str) -> dict[str, object] | None:
    layers: list[tuple[Layer, Path]] = []
    for kind, text in said.items():
        (folder / kind).write_text(text)
        layers.append((kind, folder / kind))  # type: ignore[arg-type]
    found = layer_settings("m", layers)
    return None if found is None else found.model_dump(exclude_defaults=True)


def test_parameters_system_prompt_and_turns_are_taken(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        params='{"temperature": 0.6, "stop": ["<|end|>"], "num_ctx": 2048, "num_keep": 4}',
        system="You are Mario.",
        messages='[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is me"}]',
        template="{{ if .System }}{{ .System }}{{ end }}",
    )
    assert found is not None
    assert found["sampling"] == {"temperature": 0.6, "stop": ("<|end|>",)}
    assert found["parameters"] == {"n_ctx": 2048}
    assert found["system"] == "You are Mario."
    assert [turn["content"] for turn in found["messages"]] == ["Hi", "It is me"]  # type: ignore[attr-defined]
    assert "template" not in found


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"params": "{}"},
        {"params": "no JSON"},
        {"params": '{"temperature": 99}'},
        {"template": "{{ .Prompt }}"},
        {"messages": "[1]"},
    ],
)
def test_what_cannot_be_used_is_left_out(tmp_path: Path, said: dict[str, str]) -> None:
    assert settings(tmp_path, **said) is None
