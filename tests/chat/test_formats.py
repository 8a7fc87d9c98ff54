"""Which format a chat template is written for."""

# ruff: noqa: RUF001 - DeepSeek's markers have a full-width bar

from __future__ import annotations

import pytest

from kolosal.chat.formats import HARMONY_THINKING, ToolFormat, detect_thinking_tags, detect_tool_format


@pytest.mark.parametrize(
    ("template", "tool_format"),
    [
        ("{{ messages[0].content }}", ToolFormat.GENERIC),
        ("", ToolFormat.GENERIC),
        ("<|im_start|>… within <tool_call></tool_call> tags", ToolFormat.HERMES),
        ("<tool_call> … <function=name>", ToolFormat.GENERIC),
        ("<tool_call><function={{ name }}><parameter={{ key }}>", ToolFormat.QWEN_CODER),
        ("<tool_call>name<arg_key>", ToolFormat.GENERIC),
        ('<|start_header_id|> … {"name": f, "parameters": p}', ToolFormat.LLAMA3),
        ('<|header_start|> … {"name": f, "parameters": p}', ToolFormat.LLAMA3),
        ("<|start_header_id|>{{ message.role }}", ToolFormat.GENERIC),
        ("[AVAILABLE_TOOLS] … [TOOL_CALLS] [", ToolFormat.MISTRAL),
        ("[TOOL_CALLS]{{ name }}[ARGS]", ToolFormat.MISTRAL_ARGS),
        ("<｜tool▁calls▁begin｜> … ```json", ToolFormat.DEEPSEEK),
        ("<｜tool▁calls▁begin｜> … {{ arguments }}", ToolFormat.DEEPSEEK_V31),
        ("<|start|>assistant<|channel|>final<|message|>", ToolFormat.GPT_OSS),
        ("<start_of_turn>user", ToolFormat.GENERIC),
        ("<|tool_call>call:{{ name }}", ToolFormat.GEMMA),
        ("<start_function_call>call:{{ name }}", ToolFormat.FUNCTION_GEMMA),
        ("<tool_call><invoke name=", ToolFormat.GENERIC),
    ],
)
def test_template_tells_the_format(template: str, tool_format: ToolFormat) -> None:
    assert detect_tool_format(template) is tool_format


@pytest.mark.parametrize(
    ("template", "tags"),
    [
        ("{{ messages[0].content }}", None),
        ("content.split('</think>')[-1]", ("<think>", "</think>")),
        ("[THINK]{{ thinking }}[/THINK]", ("[THINK]", "[/THINK]")),
        ("<|channel>thought\n<channel|>", ("<|channel>thought", "<channel|>")),
        ("<seed:think></seed:think>", ("<seed:think>", "</seed:think>")),
        ("<|channel|>analysis<|message|>", HARMONY_THINKING),
    ],
)
def test_template_tells_the_thinking_tags(template: str, tags: tuple[str, str] | None) -> None:
    assert detect_thinking_tags(template) == tags
