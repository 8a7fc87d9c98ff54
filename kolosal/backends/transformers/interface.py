"""TransformersInterface: a model of the Hugging Face format, loaded and computed by transformers and PyTorch."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from functools import cached_property
from typing import Any, ClassVar

from kolosal.backends.interface import BackendFacts, BackendInterfaceBase, Finish, Messages, Piece
from kolosal.backends.thread_context import ThreadContext
from kolosal.backends.transformers.answer_text import AnswerText
from kolosal.backends.transformers.batches import BatchedAnswer, Batches
from kolosal.backends.transformers.options import TransformersOptions, options_of
from kolosal.chat.formats import ToolFormat, control_markers, detect_thinking_tags, detect_tool_format
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.worker.templates.special_tokens import SpecialTokenEscaper
from kolosal.engines.worker.templates.template import CHATML
from kolosal.errors import InsufficientMemory, InvalidRequest, UnsupportedFeature

_CLOSE_S = 2.0
"""How long the token at hand may take when the process is to end."""


class TransformersThreadContext(ThreadContext):
    """A conversation for a chat template of Hugging Face. Where that takes no instructions of the system, they stand before what the
    user says first: they are never left out."""

    def get_local_messages(self) -> list[dict[str, Any]]:
        turns = super().get_local_messages()
        assert isinstance(self.interface, TransformersInterface)  # noqa: S101 - its pair
        if self.interface.takes_system or not turns or turns[0]["role"] != "system":
            return turns
        system, *others = turns
        first = next((turn for turn in others if turn["role"] == "user"), None)
        if first is None:
            return [system | {"role": "user"}, *others]
        told = first | {"content": f"{system['content']}\n\n{first['content']}"}
        return [told if turn is first else turn for turn in others]


class TransformersInterface(BackendInterfaceBase):
    """See above. PyTorch is imported when the model is loaded."""

    thread_context: ClassVar[type[ThreadContext]] = TransformersThreadContext
    supports = frozenset({
        "repeat_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "ignore_eos", "tools", "text_prompts",
        "continued_turns", "template_kwargs", "cache_scope",
    })  # fmt: skip
    can_resume = True

    def __init__(self, args: EngineConfig) -> None:
        super().__init__(args)
        self._options: TransformersOptions = options_of(args.backend_options)
        self._tokenizer: Any = None
        self._model: Any = None
        self._batches: Batches | None = None
        self._escaper = SpecialTokenEscaper(self)

    # --- loading ---

    def load(self, on_progress: Callable[[float], None]) -> BackendFacts:
        os.environ |= {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }  # what is not in the folder is not fetched
        import torch  # noqa: PLC0415 - an extra, and slow
        import transformers  # noqa: PLC0415

        on_progress(0.1)
        if self.args.parameters.n_threads is not None:
            torch.set_num_threads(self.args.parameters.n_threads)
        where = self.args.model_path
        given = {"trust_remote_code": self._options.trust_remote_code, "local_files_only": True}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(where, **given)
            on_progress(0.2)
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                where, use_safetensors=True, dtype=self._options.dtype, **given, **self._quantization()
            )
            if self._options.quantization is None:
                self._model.to(self._device())
        except torch.OutOfMemoryError as exc:
            raise MemoryError(str(exc)) from exc
        self._model.eval()
        # what the model's files say of sampling is not asked for: requests say it, and protocols have their defaults
        self._model.generation_config = transformers.GenerationConfig(pad_token_id=self._pad)
        on_progress(1.0)
        self._batches = Batches(self._model, self._pad, _translated)
        return self._facts()

    def _device(self) -> str:
        import torch  # noqa: PLC0415

        if self._options.device != "auto":
            return self._options.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _quantization(self) -> dict[str, Any]:
        if self._options.quantization is None:
            return {}
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415

        config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
        return {"quantization_config": config, "device_map": self._device()}

    def _facts(self) -> BackendFacts:
        config = self._model.config.get_text_config()
        parameters = [*self._model.parameters()]
        return BackendFacts(
            description=f"{config.model_type} {self._model.dtype} {self._model.device}".replace("torch.", ""),
            architecture=config.model_type,
            n_params=self._model.num_parameters(),
            size_bytes=sum(each.numel() * each.element_size() for each in parameters),
            n_vocab=config.vocab_size,
            n_ctx_train=getattr(config, "max_position_embeddings", 0) or 0,
            chat_template=self._tokenizer.chat_template or "",
        )

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close(_CLOSE_S)

    # --- generating ---

    async def inference(self, messages: Messages, **kwargs: Any) -> AsyncGenerator[str, None]:
        assert self._batches is not None  # noqa: S101 - loaded
        text = self.render(messages, **kwargs)
        prompt = self._prompt(messages, text)
        ends = frozenset() if kwargs["ignore_eos"] else self._ends
        answer = BatchedAnswer(prompt, kwargs["generated"], kwargs["max_tokens"], ends, kwargs)
        words = AnswerText(self._tokenizer, self._markers)
        if front := self._open_tag(text, messages, **kwargs):
            yield Piece(front)
        for token in kwargs["generated"]:
            yield Piece(words.push(token), (token,))
        self._batches.add(answer)
        n_tokens, token = len(kwargs["generated"]), -1
        try:
            while token not in ends and n_tokens < kwargs["max_tokens"]:
                token = await answer.token()
                n_tokens += 1
                yield Piece(
                    "" if token in ends else words.push(token), (token,), cached_tokens=answer.n_cached
                )
        finally:
            answer.over = True
        yield Finish("stop" if token in ends else "length")

    def _open_tag(self, text: str, messages: Messages, **kwargs: Any) -> str:
        """What begins thoughts, where the prompt ends with it: the answer is told apart by it."""
        if self._thinking_tags is None or isinstance(messages, str) or kwargs["continued_turns"]:
            return ""
        begin = self._thinking_tags[0]
        return begin if text.rstrip().endswith(begin) else ""

    # --- prompts and tokens ---

    def count_tokens(self, messages: Messages, **kwargs: Any) -> int:
        return len(self._prompt(messages, self.render(messages, **kwargs)))

    def _prompt(self, messages: Messages, text: str) -> list[int]:
        if isinstance(messages, str):
            return self.tokenize(text, add_special=True, parse_special=True)
        return self._escaper.tokenize(text, add_special=False)

    def render(self, messages: Messages, **kwargs: Any) -> str:
        if isinstance(messages, str):
            return messages
        tools, continues = kwargs.get("tools") or None, bool(kwargs.get("continued_turns"))
        if tools and self._tool_format is ToolFormat.GENERIC:
            raise UnsupportedFeature("The chat template of this model knows no tools", param="tools")
        variables = {"enable_thinking": self.args.parameters.enable_thinking} | kwargs.get(
            "template_kwargs", {}
        )
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    self._escaper.escape_all(messages),
                    tools=self._escaper.escape_all(tools),
                    chat_template=self._template,
                    tokenize=False,
                    add_generation_prompt=not continues,
                    continue_final_message=continues,
                    **self._escaper.escape_all(variables),
                )
            )
        except Exception as exc:
            raise InvalidRequest(
                f"The model's chat template refused the messages: {exc}", param="messages"
            ) from exc

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(
            self._tokenizer(
                text, add_special_tokens=add_special, split_special_tokens=not parse_special, verbose=False
            )["input_ids"]
        )

    def token_bytes(self, token: int) -> bytes:
        text: str = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text.encode(errors="replace")

    def control_texts(self) -> frozenset[str]:
        """How control tokens are written."""
        added = self._tokenizer.added_tokens_decoder.values()
        return frozenset(map(str, self._tokenizer.all_special_tokens)) | {
            str(each) for each in added if each.special
        }

    @cached_property
    def takes_system(self) -> bool:
        """Whether the chat template takes instructions of the system."""
        turns: Messages = [{"role": "system", "content": "needle"}, {"role": "user", "content": "a"}]
        try:
            return "needle" in self.render(turns)
        except InvalidRequest:
            return False

    @cached_property
    def _template(self) -> str:
        return self.args.parameters.chat_template or self._tokenizer.chat_template or CHATML

    @cached_property
    def _tool_format(self) -> ToolFormat:
        return detect_tool_format(self._template)

    @cached_property
    def _thinking_tags(self) -> tuple[str, str] | None:
        return detect_thinking_tags(self._template)

    @cached_property
    def _markers(self) -> dict[int, str]:
        """Control tokens that are shown, because answers are read for thoughts and calls by them."""
        vocabulary = self._tokenizer.get_vocab()
        special = {*self._tokenizer.all_special_ids}
        written = control_markers(self._tool_format, self._thinking_tags)
        return {vocabulary[each]: each for each in written if vocabulary.get(each) in special}

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        import transformers  # noqa: PLC0415

        try:
            said = transformers.GenerationConfig.from_pretrained(self.args.model_path).eos_token_id
        except OSError:  # a model without that file
            said = self._model.config.get_text_config().eos_token_id
        found = said if isinstance(said, list) else [said]
        return frozenset(each for each in (*found, self._tokenizer.eos_token_id) if each is not None)

    @cached_property
    def _pad(self) -> int:
        own = self._tokenizer.pad_token_id
        return next(iter(self._ends), 0) if own is None else int(own)


def _translated(error: Exception) -> Exception:
    import torch  # noqa: PLC0415

    if isinstance(error, torch.OutOfMemoryError):
        return InsufficientMemory(f"There is no memory for this batch: {str(error)[:200]}")
    return error
