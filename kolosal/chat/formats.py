"""How models write tool calls and thoughts: one row per family, and how a chat template tells which it is.

What the rows say is what the models' own chat templates write into a conversation. Parser and grammar both read these rows, so
what is enforced is what is understood.
"""

# ruff: noqa: RUF001 - DeepSeek's markers have a full-width bar

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ToolFormat(StrEnum):
    """How a model writes its tool calls."""

    HERMES = "hermes"
    """`<tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call>`: Hermes, Qwen 2.5 and 3.

    https://github.com/NousResearch/Hermes-Function-Calling"""
    LLAMA3 = "llama3"
    """`{"name": …, "parameters": {…}}` in place of an answer: Llama 3.1 to 4."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS] [{"name": …, "arguments": {…}}]`: Mistral until 2024."""
    MISTRAL_ARGS = "mistral_args"
    """`[TOOL_CALLS]name[ARGS]{…}`: Mistral since 2025."""
    DEEPSEEK = "deepseek"
    """Calls with the arguments in a block of Markdown: DeepSeek R1 and V3."""
    DEEPSEEK_V31 = "deepseek_v31"
    """Calls with bare arguments: DeepSeek V3.1."""
    GPT_OSS = "gpt_oss"
    """Channels: `<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}<|call|>`.

    https://github.com/openai/harmony"""
    GEMMA = "gemma"
    """`<|tool_call>call:name{key:<|"|>text<|"|>}<tool_call|>`: Gemma 4, in a notation of its own."""
    FUNCTION_GEMMA = "function_gemma"
    """`<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`: FunctionGemma."""
    QWEN_CODER = "qwen_coder"
    """`<tool_call>\\n<function=name>\\n<parameter=key>\\n…\\n</parameter>\\n</function>\\n</tool_call>`: Qwen 3 Coder and 3.5."""
    GENERIC = "generic"
    """As Hermes, but told to the model by us: its template knows no tools."""


SHORT_ID_CHARS = 9
"""Length of a call's id where it is short."""


@dataclass(frozen=True, slots=True)
class CallShape:
    """How calls are written around names and arguments.

    `opens (before NAME between ARGUMENTS after) separator (before …) closes`. What white space is there is what the
    grammar enforces; the parser takes any.
    """

    trigger: str
    """What announces calls in the midst of text: the beginning of `opens`, or of `before` where that is empty. Itself
    empty where calls stand in place of an answer."""
    before: str
    between: str
    after: str
    opens: str = ""
    separator: str = "\n"
    closes: str = ""
    quoted: bool = True
    """The name is a JSON string, and `after` begins with the end of an object that may have more members."""
    prefix: str = ""
    """What may stand before calls besides, and announces them too."""
    markers: tuple[str, ...] = ()
    """Parts that may be control tokens of the vocabulary."""
    quote: str = ""
    """Where not empty: arguments are in Gemma's notation, with this around strings."""
    tagged: bool = False
    """Arguments are in tags, one for each."""
    short_ids: bool = False
    """Ids of calls are nine letters and digits, which is what Mistral's templates take."""


_HERMES = CallShape(
    trigger="<tool_call>",
    before='<tool_call>\n{"name": ',
    between=', "arguments": ',
    after="}\n</tool_call>",
    markers=("<tool_call>", "</tool_call>"),
)

_DEEPSEEK_MARKERS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)

SHAPES: dict[ToolFormat, CallShape] = {
    ToolFormat.HERMES: _HERMES,
    ToolFormat.GENERIC: _HERMES,
    ToolFormat.LLAMA3: CallShape(
        trigger="",
        before='{"name": ',
        between=', "parameters": ',
        after="}",
        separator="; ",
        prefix="<|python_tag|>",
        markers=("<|python_tag|>",),
    ),
    ToolFormat.MISTRAL: CallShape(
        trigger="[TOOL_CALLS]",
        opens="[TOOL_CALLS] [",
        before='{"name": ',
        between=', "arguments": ',
        after="}",
        separator=", ",
        closes="]",
        markers=("[TOOL_CALLS]",),
        short_ids=True,
    ),
    ToolFormat.MISTRAL_ARGS: CallShape(
        trigger="[TOOL_CALLS]",
        before="[TOOL_CALLS]",
        between="[ARGS]",
        after="",
        separator="",
        quoted=False,
        markers=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        short_ids=True,
    ),
    ToolFormat.DEEPSEEK: CallShape(
        trigger="<｜tool▁calls▁begin｜>",
        opens="<｜tool▁calls▁begin｜>",
        before="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        between="\n```json\n",
        after="\n```<｜tool▁call▁end｜>",
        closes="<｜tool▁calls▁end｜>",
        quoted=False,
        markers=_DEEPSEEK_MARKERS,
    ),
    ToolFormat.DEEPSEEK_V31: CallShape(
        trigger="<｜tool▁calls▁begin｜>",
        opens="<｜tool▁calls▁begin｜>",
        before="<｜tool▁call▁begin｜>",
        between="<｜tool▁sep｜>",
        after="<｜tool▁call▁end｜>",
        separator="",
        closes="<｜tool▁calls▁end｜>",
        quoted=False,
        markers=_DEEPSEEK_MARKERS,
    ),
    ToolFormat.GEMMA: CallShape(
        trigger="<|tool_call>",
        before="<|tool_call>call:",
        between="",
        after="<tool_call|>",
        separator="",
        quoted=False,
        quote='<|"|>',
        markers=("<|tool_call>", "<tool_call|>", '<|"|>'),
    ),
    ToolFormat.FUNCTION_GEMMA: CallShape(
        trigger="<start_function_call>",
        before="<start_function_call>call:",
        between="",
        after="<end_function_call>",
        separator="",
        quoted=False,
        quote="<escape>",
        markers=("<start_function_call>", "<end_function_call>", "<escape>"),
    ),
    ToolFormat.QWEN_CODER: CallShape(
        trigger="<tool_call>",
        before="<tool_call>\n<function=",
        between=">\n",
        after="\n</tool_call>",
        quoted=False,
        tagged=True,
        markers=("<tool_call>", "</tool_call>"),
    ),
}
"""All that can be described as text around a name and JSON; gpt-oss's channels cannot."""

HARMONY_MARKERS = (
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
)
"""The tokens gpt-oss's turns are made of."""

HARMONY_THINKING = ("<|channel|>analysis<|message|>", "<|end|>")
"""What stands around thoughts there."""

_THINKING_TAGS = (
    ("<|channel>thought", "<channel|>"),
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
)


_CLOSINGS = {
    "</think>": "\n</think>\n\n",
    HARMONY_THINKING[1]: "<|end|><|start|>assistant<|channel|>final<|message|>",
}
"""What ends a thought and begins the answer, where that is more than the marker."""


def thought_closing(tags: tuple[str, str], *, calls: bool = False) -> str:
    """What a model writes between a thought and its answer. `calls`: calls may stand in the answer's place, and the model decides."""
    if tags == HARMONY_THINKING and calls:
        return "<|end|><|start|>assistant"
    return _CLOSINGS.get(tags[1], tags[1])


def control_markers(tool_format: ToolFormat, thinking_tags: tuple[str, str] | None) -> tuple[str, ...]:
    """The parts of calls and thoughts that may be control tokens of the vocabulary."""
    shape = SHAPES.get(tool_format)
    of_calls = HARMONY_MARKERS if shape is None else shape.markers
    return (*of_calls, *(tag.removesuffix("thought") for tag in thinking_tags or ()))


_NOT_HERMES = ("<function=", "<arg_key>", "<invoke")
"""In templates that put something else than JSON between Hermes' tags."""


def detect_tool_format(template: str) -> ToolFormat:
    """The format a chat template is written for; `GENERIC` where it knows no tools, or only ways we do not know."""
    if _is_harmony(template):
        return ToolFormat.GPT_OSS
    if "<｜tool▁calls▁begin｜>" in template:
        return ToolFormat.DEEPSEEK if "```json" in template else ToolFormat.DEEPSEEK_V31
    if "[TOOL_CALLS]" in template:
        return ToolFormat.MISTRAL_ARGS if "[ARGS]" in template else ToolFormat.MISTRAL
    if "<|tool_call>call:" in template:
        return ToolFormat.GEMMA
    if "<start_function_call>" in template:
        return ToolFormat.FUNCTION_GEMMA
    if all(part in template for part in ("<tool_call>", "<function=", "<parameter=")):
        return ToolFormat.QWEN_CODER
    if "<tool_call>" in template and not any(other in template for other in _NOT_HERMES):
        return ToolFormat.HERMES
    headers = ("<|start_header_id|>", "<|header_start|>")
    if any(header in template for header in headers) and '"parameters"' in template:
        return ToolFormat.LLAMA3
    return ToolFormat.GENERIC


def detect_thinking_tags(template: str) -> tuple[str, str] | None:
    """What the model writes around its thoughts; None where the template knows none."""
    if _is_harmony(template):
        return HARMONY_THINKING
    return next((tags for tags in _THINKING_TAGS if tags[1] in template), None)


def _is_harmony(template: str) -> bool:
    return "<|channel|>" in template and "<|message|>" in template
