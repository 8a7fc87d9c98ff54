"""What a chat template can show, found by trying.

Templates differ and do not say how, so small conversations are rendered when it is first asked. llama.cpp does so too
(`common/jinja/caps.cpp`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from kolosal.engines.worker.templates.renderer import TemplateFailed

Render: TypeAlias = Callable[[list[dict[str, Any]]], list[str | TemplateFailed]]
"""What a template makes of each of some sets of variables."""

_NAME, _SECOND, _ARGUMENT, _TEXT = "needlename", "needlesecond", "needleargument", "needletext"


class CallStyle(NamedTuple):
    """How an earlier call is given to a template."""

    object_arguments: bool
    """The arguments as an object; else as the text of one."""
    null_content: bool
    """No content beside calls is none; else it is empty text."""


_STYLES = (CallStyle(True, True), CallStyle(True, False), CallStyle(False, True), CallStyle(False, False))


class TemplateCapabilities:
    """The answers for one template."""

    def __init__(
        self,
        render: Render,
        *,
        knows_developer: bool,
        knows_functions: bool,
        writes_json: bool,
    ) -> None:
        """`writes_json`: whether its model's calls have
        their arguments as JSON."""
        self._render = render
        self._writes_json = writes_json
        self.knows_developer = knows_developer
        self.knows_functions = knows_functions
        """Whether tools also go by this name, as in the templates of older families."""

    @cached_property
    def wants_parts(self) -> bool:
        """Whether a text is shown only where it is an array of parts: models that see are given some of those."""
        text, parts = self._tried(
            [{"role": "user", "content": _TEXT}], [{"role": "user", "content": as_parts(_TEXT)}]
        )
        return _TEXT in parts and _TEXT not in text

    @cached_property
    def functions_as_text(self) -> bool:
        """Whether `functions` are written as they come, and so have to be JSON already."""
        [shown] = self._render(
            [{"messages": [{"role": "user", "content": "a"}], "functions": f'["{_NAME}"]'}]
        )
        return isinstance(shown, str) and f'["{_NAME}"]' in shown

    @cached_property
    def call_style(self) -> CallStyle:
        """How calls are to be given so that they are shown with their arguments as JSON, or at least at all."""
        shown = list(
            zip(_STYLES, self._tried(*(_conversation(style, _NAME) for style in _STYLES)), strict=True)
        )
        signs = (f'"{_ARGUMENT}"', _ARGUMENT, _NAME)
        for wanted in signs if self._writes_json else signs[1:]:
            for style, text in shown:
                if wanted in text and _NAME in text and f'\\"{_ARGUMENT}' not in text:
                    return style
        return _STYLES[0]

    @cached_property
    def shows_several_calls(self) -> bool:
        """Whether a turn that made two calls is shown with both, where one with a single call is shown at all."""
        one, two = (_conversation(self.call_style, *names) for names in ((_NAME,), (_NAME, _SECOND)))
        shown_one, shown_two = self._tried(one, two)
        return _SECOND in shown_two or _NAME not in shown_one

    def _tried(self, *conversations: list[dict[str, Any]]) -> list[str]:
        """What is shown of each conversation: nothing where the template refuses it."""
        rendered = self._render(
            [{"messages": messages, "add_generation_prompt": True} for messages in conversations]
        )
        return [text if isinstance(text, str) else "" for text in rendered]


def as_parts(text: str) -> list[dict[str, str]]:
    """A text as an array of parts."""
    return [{"type": "text", "text": text}]


def _conversation(style: CallStyle, *names: str) -> list[dict[str, Any]]:
    arguments: object = {_ARGUMENT: 1} if style.object_arguments else f'{{"{_ARGUMENT}": 1}}'
    ids = [f"needle12{index}" for index in range(len(names))]
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call_id, name in zip(ids, names, strict=True)
    ]
    results = [{"role": "tool", "content": "b", "tool_call_id": call_id, "name": _NAME} for call_id in ids]
    return [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None if style.null_content else "", "tool_calls": calls},
        *results,
    ]
