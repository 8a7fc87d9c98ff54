"""Turns as models of each family write them, and what they mean."""

# ruff: noqa: RUF001 - DeepSeek's markers have a full-width bar

from __future__ import annotations

from dataclasses import dataclass

from kolosal.chat.formats import HARMONY_THINKING, ToolFormat
from kolosal.schema import Tool

THINK = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a model wrote, and its text, thoughts and calls."""

    tool_format: ToolFormat
    written: str
    text: str = ""
    thinking: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.tool_format}: {self.written[:40]}"


WEATHER = ("get_weather", '{"city": "Paris", "unit": "c"}')
NESTED = (
    "plan",
    '{"days": [{"at": "9:00", "what": "say \\"}\\" \\u00e9\\n"}, []], "ok": true, "n": -1.5e3, "x": null}',
)
EMPTY = ("now", "{}")


def _tool(name: str, *strings: str) -> Tool:
    properties = {string: {"type": "string"} for string in strings}
    return Tool(name, parameters={"type": "object", "properties": properties})


TOOLS = (
    _tool("get_weather", "city", "unit"),
    _tool("plan"),
    _tool("now"),
    _tool("f"),
    _tool("write", "text"),
)
"""What turns are read with."""


def hermes(*calls: tuple[str, str]) -> str:
    return "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        for name, arguments in calls
    )


_SEP = "<｜tool▁sep｜>"
_BEGIN, _END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_ALL_BEGIN, _ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"

RECORDED = [
    Recorded(
        ToolFormat.HERMES, "Just text, 1 < 2 and <b>tags</b>.", text="Just text, 1 < 2 and <b>tags</b>."
    ),
    Recorded(ToolFormat.HERMES, hermes(WEATHER), calls=(WEATHER,)),
    Recorded(
        ToolFormat.HERMES,
        f"Let me see.\n\n{hermes(WEATHER, NESTED, EMPTY)}\n",
        text="Let me see.",
        calls=(WEATHER, NESTED, EMPTY),
    ),
    Recorded(
        ToolFormat.HERMES,
        '<tool_call> {"name" : "get_weather" , "arguments":{ "city":"Oslo" } } </tool_call>',
        calls=(("get_weather", '{ "city":"Oslo" }'),),
    ),
    Recorded(
        ToolFormat.HERMES,
        f"<think>\nI could write <tool_call> here.\n</think>\n\nSure.\n{hermes(WEATHER)}",
        text="Sure.",
        thinking="I could write <tool_call> here.",
        calls=(WEATHER,),
        tags=THINK,
    ),
    Recorded(ToolFormat.HERMES, "<think>\n\n</think>\n\nHello.\n\nWorld", text="Hello.\n\nWorld", tags=THINK),
    Recorded(ToolFormat.HERMES, "The tag <think> opens.", text="The tag <think> opens.", tags=THINK),
    Recorded(ToolFormat.HERMES, "<think>never closed", thinking="never closed", tags=THINK),
    Recorded(
        ToolFormat.HERMES,
        f"a\n{hermes(WEATHER)}\nb\n{hermes(EMPTY)}\nc",
        text="a",
        calls=(WEATHER,),
    ),
    Recorded(ToolFormat.GENERIC, hermes(EMPTY, EMPTY, WEATHER), calls=(EMPTY,)),
    Recorded(
        ToolFormat.LLAMA3,
        '{"name": "get_weather", "parameters": {"city": "Paris", "unit": "c"}}',
        calls=(WEATHER,),
    ),
    Recorded(
        ToolFormat.LLAMA3,
        '<|python_tag|>{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Paris", "unit": "c"}}',
        calls=(EMPTY, WEATHER),
    ),
    Recorded(ToolFormat.LLAMA3, '{"answer": {"name": "x"}}', text='{"answer": {"name": "x"}}'),
    Recorded(
        ToolFormat.LLAMA3,
        'Like {"name": "now", "parameters": {}}',
        text='Like {"name": "now", "parameters": {}}',
    ),
    Recorded(
        ToolFormat.LLAMA3,
        "<|python_tag|>import this",
        text="<|python_tag|>import this",
    ),
    Recorded(
        ToolFormat.MISTRAL,
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "unit": "c"}, "id": "Ab1Cd2Ef3"},'
        ' {"name": "now", "arguments": {}}]',
        calls=(WEATHER, EMPTY),
    ),
    Recorded(
        ToolFormat.MISTRAL,
        'I will look. [TOOL_CALLS][{"name":"now","arguments":{}}]',
        text="I will look.",
        calls=(EMPTY,),
    ),
    Recorded(
        ToolFormat.MISTRAL_ARGS,
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "unit": "c"}[TOOL_CALLS]now[CALL_ID]Ab1Cd2Ef3[ARGS]{}',
        calls=(WEATHER, EMPTY),
    ),
    Recorded(
        ToolFormat.MISTRAL_ARGS,
        "[THINK]Which one?[/THINK]Fine.[TOOL_CALLS]now[ARGS]{}",
        text="Fine.",
        thinking="Which one?",
        calls=(EMPTY,),
        tags=("[THINK]", "[/THINK]"),
    ),
    Recorded(
        ToolFormat.DEEPSEEK,
        f"<think>\nTwo calls.\n</think>\n\nOn it.{_ALL_BEGIN}{_BEGIN}function{_SEP}get_weather\n```json\n"
        f"{WEATHER[1]}\n```{_END}\n{_BEGIN}function{_SEP}now\n```json\n{{}}\n```{_END}{_ALL_END}",
        text="On it.",
        thinking="Two calls.",
        calls=(WEATHER, EMPTY),
        tags=THINK,
    ),
    Recorded(
        ToolFormat.DEEPSEEK_V31,
        f"{_ALL_BEGIN}{_BEGIN}get_weather{_SEP}{WEATHER[1]}{_END}{_BEGIN}now{_SEP}{{}}{_END}{_ALL_END}",
        calls=(WEATHER, EMPTY),
    ),
    Recorded(
        ToolFormat.GPT_OSS,
        "<|channel|>analysis<|message|>The user wants weather.<|end|><|start|>assistant"
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        + WEATHER[1]
        + "<|call|>",
        thinking="The user wants weather.",
        calls=(WEATHER,),
        tags=HARMONY_THINKING,
    ),
    Recorded(
        ToolFormat.GPT_OSS,
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>It is **noon**.\n<|return|>",
        text="It is **noon**.\n",
        thinking="Easy.",
        tags=HARMONY_THINKING,
    ),
    Recorded(
        ToolFormat.GPT_OSS,
        "<|channel|>commentary<|message|>I will look first.<|end|><|start|>assistant to=functions.now"
        "<|channel|>commentary json<|message|>{}",
        text="I will look first.",
        calls=(EMPTY,),
        tags=HARMONY_THINKING,
    ),
    Recorded(
        ToolFormat.GEMMA,
        '<|channel>thought\nWeather, then time.\n<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>,unit:<|"|>c<|"|>}<tool_call|>'
        "<|tool_call>call:now{}<tool_call|>",
        thinking="Weather, then time.",
        calls=(WEATHER, EMPTY),
        tags=("<|channel>thought", "<channel|>"),
    ),
    Recorded(
        ToolFormat.GEMMA,
        'Well. <|tool_call>call:plan{days:[{at:<|"|>9:00<|"|>,<|"|>what<|"|>:<|"|>say "}" \né\n<|"|>},[]],ok:true, n:-1.5e3,x:null,o:{}}<tool_call|>',
        text="Well.",
        calls=(
            (
                "plan",
                '{"days": [{"at": "9:00", "what": "say \\"}\\" \\né\\n"}, []], "ok": true, "n": -1.5e3, "x": null, "o": {}}',
            ),
        ),
    ),
    Recorded(
        ToolFormat.FUNCTION_GEMMA,
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,unit:<escape>c<escape>}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call>",
        calls=(WEATHER, EMPTY),
    ),
    Recorded(
        ToolFormat.QWEN_CODER,
        "Fine.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=unit>\nc\n</parameter>\n"
        "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        text="Fine.",
        calls=(WEATHER, EMPTY),
    ),
    Recorded(
        ToolFormat.QWEN_CODER,
        '<tool_call>\n<function=write>\n<parameter=text>\ndef f():\n    return "<b>"\n\n</parameter>\n<parameter=lines>\n[1, 2]\n'
        "</parameter>\n<parameter=on>true</parameter>\n</function>\n</tool_call>",
        calls=(("write", '{"text": "def f():\\n    return \\"<b>\\"\\n", "lines": [1, 2], "on": true}'),),
    ),
    Recorded(ToolFormat.GPT_OSS, "No channel at all.", text="No channel at all.", tags=HARMONY_THINKING),
]
"""Whole turns of every family; read with tools."""

BROKEN = [
    (ToolFormat.HERMES, "<tool_call>\nnot json\n</tool_call>"),
    (ToolFormat.HERMES, '<tool_call>\n{"nam": "f", "arguments": {}}\n</tool_call>'),
    (ToolFormat.HERMES, '<tool_call>\n{"name": 5, "arguments": {}}\n</tool_call>'),
    (ToolFormat.HERMES, '<tool_call>\n{"name": "", "arguments": {}}\n</tool_call>'),
    (ToolFormat.HERMES, '<tool_call>\n{"name": "f", "arguments": "{}"}\n</tool_call>'),
    (ToolFormat.HERMES, '<tool_call>\n{"name": "f'),
    (ToolFormat.HERMES, "text <tool_ca"),
    (ToolFormat.HERMES, "<tool_call>"),
    (ToolFormat.LLAMA3, '{"name": "f", "arguments": {}}'),
    (ToolFormat.LLAMA3, '{"name"'),
    (ToolFormat.MISTRAL, "[TOOL_CALLS] none"),
    (ToolFormat.MISTRAL_ARGS, "[TOOL_CALLS]f[ARGS]now"),
    (ToolFormat.DEEPSEEK_V31, "<｜tool▁calls▁begin｜>x"),
    (ToolFormat.QWEN_CODER, "<tool_call>\n<function=>\n</function>\n</tool_call>"),
    (ToolFormat.QWEN_CODER, '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'),
    (ToolFormat.GEMMA, "<|tool_call>now{}<tool_call|>"),
    (ToolFormat.GEMMA, "<|tool_call>call:now<tool_call|>"),
]
"""What looks like a call and is none: shown as it is."""
