"""What a chat template can show, found by trying.

Templates differ and do not say how, so small conversations are rendered when it is first asked. llama.cpp does so too
(`common/jinja/caps.cpp`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from kolosal.engines.worker.templates.renderer import TemplateFailed

_NAME, _ARGUMENT, _TEXT = "needlename", "needleargument", "needletext"


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
        render: Callable[[list[dict[str, Any]]], list[str | TemplateFailed]],
        *,
        knows_developer: bool,
        writes_json: bool,
    ) -> None:
        """`render`: what the template makes of each of some sets of variables; `writes_json`: whether its model's calls have
        their arguments as JSON."""
        self._render = render
        self._writes_json = writes_json
        self.knows_developer = knows_developer

    @cached_property
    def shows_system(self) -> bool:
        """Whether a system turn reaches the model; some templates refuse it, some leave it out."""
        [shown] = self._tried([{"role": "system", "content": _TEXT}, {"role": "user", "content": "a"}])
        return _TEXT in shown

    @cached_property
    def call_style(self) -> CallStyle:
        """How calls are to be given so that they are shown with their arguments as JSON, or at least at all."""
        shown = list(zip(_STYLES, self._tried(*map(_conversation, _STYLES)), strict=True))
        signs = (f'"{_ARGUMENT}"', _ARGUMENT, _NAME)
        for wanted in signs if self._writes_json else signs[1:]:
            for style, text in shown:
                if wanted in text and _NAME in text and f'\\"{_ARGUMENT}' not in text:
                    return style
        return _STYLES[0]

    def _tried(self, *conversations: list[dict[str, Any]]) -> list[str]:
        """What is shown of each conversation: nothing where the template refuses it."""
        rendered = self._render(
            [{"messages": messages, "add_generation_prompt": True} for messages in conversations]
        )
        return [text if isinstance(text, str) else "" for text in rendered]


def _conversation(style: CallStyle) -> list[dict[str, Any]]:
    arguments: object = {_ARGUMENT: 1} if style.object_arguments else f'{{"{_ARGUMENT}": 1}}'
    call = {"id": "needle123", "type": "function", "function": {"name": _NAME, "arguments": arguments}}
    return [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None if style.null_content else "", "tool_calls": [call]},
        {"role": "tool", "content": "b", "tool_call_id": "needle123", "name": _NAME},
    ]
