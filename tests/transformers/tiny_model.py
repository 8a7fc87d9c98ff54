"""A model of the Hugging Face format, a few hundred kilobytes with random weights: tokens are bytes, and it writes no sense."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kolosal.engines.worker.templates.template import CHATML

CONTROLS = ("<|im_start|>", "<|im_end|>")


def write_tiny_model(folder: Path, template: str | None = CHATML) -> Path:
    """Write it into a folder, with this chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.add_special_tokens([AddedToken(text, special=True) for text in CONTROLS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=CONTROLS[1], pad_token=CONTROLS[1], chat_template=template
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet) + len(CONTROLS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
