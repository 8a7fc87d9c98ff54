"""ChatTemplate: a conversation → the tokens the model was trained to see.

What a user writes is text: where it contains the spelling of a control token, it stays characters and never becomes the
token. What a template does not know (tools, a system role) is told to the model in other words, see `conversation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from kolosal.chat.formats import (
    SHAPES,
    ToolFormat,
    control_markers,
    detect_thinking_tags,
    detect_tool_format,
)
from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.input_checks import begins_with_bos, check_chars
from kolosal.engines.worker.templates.capabilities import TemplateCapabilities
from kolosal.engines.worker.templates.conversation import Conversation
from kolosal.engines.worker.templates.renderer import TemplateFailed, TemplateRenderer
from kolosal.engines.worker.templates.special_tokens import END_MARK, SpecialTokenEscaper
from kolosal.schema import ChatPrompt, Message

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models without a template: the format most instruction models since 2023 understand."""

_TAIL_TOKENS = 32
"""Tokens at the end of a prompt that a thinking tag and white space after it take at most."""


def n_chars(message: Message) -> int:
    """Characters of a turn that a template may show."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return len(message.content) + len(message.thinking or "") + calls


class ChatTemplate:
    """One model's template. Used by the preprocessor's thread only."""

    def __init__(
        self,
        backend: Backend,
        configured: str | None,
        renderer: TemplateRenderer,
        *,
        enable_thinking: bool = True,
        keep_client_metadata: bool = False,
    ) -> None:
        """Compile `configured`, else the model's own. ChatML, where there is neither, is compiled for the first chat.

        The others are the loading parameters of these names.

        Raises:
            TemplateFailed: it is no Jinja template, or one that costs too much.
        """
        source = backend.template
        text = configured or source.text or CHATML
        self._backend = backend
        self.origin: Literal["model", "configured", "chatml"] = (
            "configured" if configured else "model" if source.text else "chatml"
        )
        self.tool_format = detect_tool_format(text)
        self.thinking_tags = detect_thinking_tags(text)
        self._context = {"bos_token": source.bos, "eos_token": source.eos}
        self._enable_thinking = enable_thinking
        self._escaper = SpecialTokenEscaper(backend)
        self._text = text
        self._renderer = renderer
        self._is_new_request = True
        if text is not CHATML:
            renderer.compile(text)
        shape = SHAPES.get(self.tool_format)
        self._capabilities = TemplateCapabilities(
            self._rendered,
            knows_developer="developer" in text,
            knows_functions="functions" in text,
            writes_json=shape is None or not (shape.quote or shape.tagged),
        )
        self._conversation = Conversation(
            self.tool_format,
            self._capabilities,
            self._escaper,
            self._rendered,
            keep_client_metadata=keep_client_metadata,
        )

    def tokenize(self, prompt: ChatPrompt) -> list[int]:
        """The prompt that asks for the assistant's next turn, or for more of its last one. Raises as `written`."""
        return self._tokens(self._marked(prompt))

    def written(self, prompt: ChatPrompt) -> tuple[str, list[int]]:
        """The same as the template wrote it, and as tokens. That text as a prompt of its own has these tokens again, unless somebody
        spelled a control token in what was said.

        Raises:
            TemplateFailed: the template refuses the conversation, e.g. because roles do not alternate.
            ContextLengthExceeded: what it makes is too long for any number of tokens to fit.
        """
        text = self._marked(prompt)
        return self._escaper.plain(text), self._tokens(text)

    def _tokens(self, text: str) -> list[int]:
        add_special = not begins_with_bos(text, self._backend)
        return self._escaper.tokenize(text, add_special=add_special)

    def _marked(self, prompt: ChatPrompt) -> str:
        """What the template makes of a prompt, with marks for what must stay characters."""
        if prompt.continues and (not prompt.messages or prompt.messages[-1].role != "assistant"):
            raise TemplateFailed("Only a turn of the assistant can be continued, and only the last one")
        self._is_new_request = True
        variables: dict[str, Any] = self._escaper.escape_all(prompt.template_kwargs)
        if "enable_thinking" in variables:
            variables.setdefault("thinking", variables["enable_thinking"])
        variables |= self._conversation.variables(prompt)
        [text] = self._rendered([variables])
        if isinstance(text, TemplateFailed):
            raise text
        if prompt.continues:
            text, found, _ = text.rpartition(END_MARK)
            if not found:
                raise TemplateFailed(
                    "The model's chat template does not show the message that is to be continued"
                )
        check_chars(len(text), self._backend.info.n_ctx)  # tools, and what the template itself adds
        return text

    def ends_in_thoughts(self, prompt: ChatPrompt, tokens: list[int]) -> bool:
        """Whether the answer to a prompt begins within thoughts."""
        if self.thinking_tags is None or self.tool_format is ToolFormat.GPT_OSS:
            return False
        begin, end = self.thinking_tags
        if prompt.continues:
            content = prompt.messages[-1].content
            return content.rfind(begin) > content.rfind(end)
        hidden = self._hidden_markers
        tail = b"".join(
            hidden.get(token) or self._backend.token_bytes(token) for token in tokens[-_TAIL_TOKENS:]
        )
        return tail.decode(errors="replace").rstrip().endswith(begin)

    @property
    def shows_several_calls(self) -> bool:
        """Whether one turn may make several calls: a template that knows calls, but not several, is of a model that makes one."""
        return self.tool_format is ToolFormat.GENERIC or self._capabilities.shows_several_calls

    def markers(self, prompt: ChatPrompt) -> Mapping[int, bytes]:
        """Control tokens that are shown in the text of the answer, so that it can be read as thoughts and calls."""
        tools = bool(prompt.tool_use.callable)
        return self._hidden_markers if tools or self.thinking_tags is not None else {}

    @cached_property
    def _hidden_markers(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for marker in control_markers(self.tool_format, self.thinking_tags):
            tokens = self._backend.tokenize(marker, add_special=False, parse_special=True)
            if len(tokens) == 1 and not self._backend.token_bytes(tokens[0]):
                found[tokens[0]] = marker.encode()
        return found

    def _rendered(self, variables: list[dict[str, Any]]) -> list[str | TemplateFailed]:
        """What the template makes of each; all of one request together has the processor time of one."""
        renew, self._is_new_request = self._is_new_request, False
        thinks = {"enable_thinking": self._enable_thinking, "thinking": self._enable_thinking}
        given = [thinks | each | self._context for each in variables]
        return self._renderer.render(self._text, given, renew=renew)
