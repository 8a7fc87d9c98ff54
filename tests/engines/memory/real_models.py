"""Shapes of real models: the numbers in their headers, as tables. No file of any of them is needed.

From the models' published configurations. Weights are what those numbers make of them, at a quantisation that is usual for
the size; small tensors, such as norms, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kolosal.engines.memory.ggml import GGML_TYPES
from kolosal.engines.memory.gguf import GgufHeader, TensorInfo, Value
from kolosal.engines.memory.model_shape import ModelShape

_BY_NAME = {kind.name: kind for kind in GGML_TYPES.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The experts of a layer."""

    count: int
    used: int
    n_ff: int
    shared_ff: int = 0
    dense_layers: int = 0
    """The first layers, which have none."""
    every: int = 1


@dataclass(frozen=True, slots=True)
class RealModel:
    """What the header of one model says."""

    name: str
    architecture: str
    n_layers: int
    n_embd: int
    n_heads: int
    kv_heads: int
    head_width: int
    n_ff: int
    n_vocab: int
    n_ctx: int
    tied: bool = False
    experts: Experts | None = None
    window: int = 0
    latent: int = 0
    """Numbers of a latent key, where there is one."""
    state: tuple[int, int, int] | None = None
    """Inner size, state size and width of the convolution of a recurrent layer."""
    attention_every: int = 0
    """One layer in so many has attention; 0: each, or none where there are states and no heads."""
    wkv_head: int = 0
    quantisation: str = "q4_k"

    def shape(self) -> ModelShape:
        """As the daemon reads it."""
        return ModelShape.of(
            [GgufHeader(self._metadata(), {"tokenizer.ggml.tokens": self.n_vocab}, self._tensors())]
        )

    def _metadata(self) -> dict[str, Value]:
        own: dict[str, Value] = {
            "block_count": self.n_layers, "embedding_length": self.n_embd, "feed_forward_length": self.n_ff,
            "context_length": self.n_ctx,
        }  # fmt: skip
        if self.n_heads:
            own |= {"attention.head_count": self.n_heads, "attention.key_length": self.head_width}
            own |= {"attention.value_length": self.head_width, "attention.head_count_kv": self.kv_heads}
        if self.latent:
            own |= {"attention.key_length": self.latent, "attention.value_length": self.latent - 64}
            own |= {"attention.key_length_mla": 192, "attention.value_length_mla": 128}
        if self.attention_every and self.state and self.architecture != "qwen3next":
            own["attention.head_count_kv"] = tuple(map(self._heads_of, range(self.n_layers)))
        if self.architecture == "qwen3next":
            own["full_attention_interval"] = self.attention_every
        if self.window:
            own["attention.sliding_window"] = self.window
        if self.state:
            own |= {
                "ssm.inner_size": self.state[0],
                "ssm.state_size": self.state[1],
                "ssm.conv_kernel": self.state[2],
            }
        if self.wkv_head:
            own["wkv.head_size"] = self.wkv_head
        if self.experts:
            own |= {"expert_count": self.experts.count, "expert_used_count": self.experts.used}
            own["expert_feed_forward_length"] = self.experts.n_ff
        return {"general.architecture": self.architecture} | {
            f"{self.architecture}.{name}": value for name, value in own.items()
        }

    def _heads_of(self, layer: int) -> int:
        return self.kv_heads if not self.attention_every or (layer + 1) % self.attention_every == 0 else 0

    def _tensors(self) -> tuple[TensorInfo, ...]:
        kind = _BY_NAME[self.quantisation]
        names = [("token_embd.weight", self.n_vocab * self.n_embd)]
        for layer in range(self.n_layers):
            names += [(f"blk.{layer}.{name}.weight", size) for name, size in self._layer(layer)]
        if not self.tied:
            names.append(("output.weight", self.n_vocab * self.n_embd))
        return tuple(
            TensorInfo(name, size, int(size * kind.bytes_per_value), 0, kind.number) for name, size in names
        )

    def _layer(self, layer: int) -> Iterator[tuple[str, int]]:
        width, heads, kv_heads = (
            self.n_embd,
            self.n_heads * self.head_width,
            self._heads_of(layer) * self.head_width,
        )
        if kv_heads or self.latent:
            kv = self.latent or kv_heads
            yield from (("attn_q", width * heads), ("attn_k", width * kv), ("attn_v", width * kv))
            yield "attn_output", width * heads
        elif self.state:
            inner = self.state[0]
            yield from (("ssm_in", 2 * width * inner), ("ssm_out", width * inner))
        elif self.wkv_head:
            yield from (
                (name, width * width)
                for name in ("time_mix_r", "time_mix_k", "time_mix_v", "time_mix_output")
            )
        experts = self.experts
        if experts and layer >= experts.dense_layers and (layer + 1) % experts.every == 0:
            size = experts.count * width * experts.n_ff
            yield from ((f"ffn_{part}_exps", size) for part in ("gate", "up", "down"))
            yield "ffn_gate_inp", width * experts.count
            if experts.shared_ff:
                yield from (
                    (f"ffn_{part}_shexp", width * experts.shared_ff) for part in ("gate", "up", "down")
                )
        elif self.n_ff:
            yield from ((f"ffn_{part}", width * self.n_ff) for part in ("gate", "up", "down"))


_DENSE = tuple(
    RealModel(*row)
    for row in (
        # name, architecture, layers, width, heads, of keys, head's width, feed forward, vocabulary, context, tied
        ("llama-3.2-1b", "llama", 16, 2048, 32, 8, 64, 8192, 128_256, 131_072, True),
        ("llama-3.2-3b", "llama", 28, 3072, 24, 8, 128, 8192, 128_256, 131_072, True),
        ("llama-3.1-8b", "llama", 32, 4096, 32, 8, 128, 14_336, 128_256, 131_072),
        ("llama-3.3-70b", "llama", 80, 8192, 64, 8, 128, 28_672, 128_256, 131_072),
        ("llama-3.1-405b", "llama", 126, 16_384, 128, 8, 128, 53_248, 128_256, 131_072),
        ("llama-2-7b", "llama", 32, 4096, 32, 32, 128, 11_008, 32_000, 4096),
        ("llama-2-13b", "llama", 40, 5120, 40, 40, 128, 13_824, 32_000, 4096),
        ("mistral-7b", "llama", 32, 4096, 32, 8, 128, 14_336, 32_768, 32_768),
        ("mistral-nemo-12b", "llama", 40, 5120, 32, 8, 128, 14_336, 131_072, 131_072),
        ("mistral-small-24b", "llama", 40, 5120, 32, 8, 128, 32_768, 131_072, 32_768),
        ("mistral-large-123b", "llama", 88, 12_288, 96, 8, 128, 28_672, 32_768, 131_072),
        ("qwen2.5-0.5b", "qwen2", 24, 896, 14, 2, 64, 4864, 151_936, 32_768, True),
        ("qwen2.5-1.5b", "qwen2", 28, 1536, 12, 2, 128, 8960, 151_936, 32_768, True),
        ("qwen2.5-7b", "qwen2", 28, 3584, 28, 4, 128, 18_944, 152_064, 32_768),
        ("qwen2.5-14b", "qwen2", 48, 5120, 40, 8, 128, 13_824, 152_064, 32_768),
        ("qwen2.5-32b", "qwen2", 64, 5120, 40, 8, 128, 27_648, 152_064, 32_768),
        ("qwen2.5-72b", "qwen2", 80, 8192, 64, 8, 128, 29_568, 152_064, 32_768),
        ("qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151_936, 40_960, True),
        ("qwen3-4b", "qwen3", 36, 2560, 32, 8, 128, 9728, 151_936, 40_960, True),
        ("qwen3-8b", "qwen3", 36, 4096, 32, 8, 128, 12_288, 151_936, 40_960),
        ("qwen3-14b", "qwen3", 40, 5120, 40, 8, 128, 17_408, 151_936, 40_960),
        ("qwen3-32b", "qwen3", 64, 5120, 64, 8, 128, 25_600, 151_936, 40_960),
        ("phi-3-mini", "phi3", 32, 3072, 32, 32, 96, 8192, 32_064, 4096),
        ("phi-4", "phi3", 40, 5120, 40, 10, 128, 17_920, 100_352, 16_384),
        ("gemma-2b", "gemma", 18, 2048, 8, 1, 256, 16_384, 256_000, 8192, True),
        ("gemma-7b", "gemma", 28, 3072, 16, 16, 256, 24_576, 256_000, 8192, True),
        ("smollm2-135m", "llama", 30, 576, 9, 3, 64, 1536, 49_152, 8192, True),
        ("smollm2-1.7b", "llama", 24, 2048, 32, 32, 64, 8192, 49_152, 8192, True),
        ("yi-34b", "llama", 60, 7168, 56, 8, 128, 20_480, 64_000, 4096),
        ("falcon-7b", "falcon", 32, 4544, 71, 1, 64, 18_176, 65_024, 2048),
        ("command-r", "command-r", 40, 8192, 64, 64, 128, 22_528, 256_000, 131_072, True),
        ("command-r-plus", "command-r", 64, 12_288, 96, 8, 128, 33_792, 256_000, 131_072, True),
        ("granite-3-8b", "granite", 40, 4096, 32, 8, 128, 12_800, 49_155, 131_072, True),
        ("olmo2-7b", "olmo2", 32, 4096, 32, 32, 128, 11_008, 100_352, 4096),
        ("deepseek-coder-33b", "llama", 62, 7168, 56, 8, 128, 19_200, 32_256, 16_384),
        ("exaone-3.5-7.8b", "exaone", 32, 4096, 32, 8, 128, 14_336, 102_400, 32_768),
        ("glm-4-9b", "glm4", 40, 4096, 32, 2, 128, 13_696, 151_552, 131_072),
    )
)  # fmt: skip

_WINDOWED = (
    RealModel("gemma-2-2b", "gemma2", 26, 2304, 8, 4, 256, 9216, 256_000, 8192, tied=True, window=4096),
    RealModel("gemma-2-9b", "gemma2", 42, 3584, 16, 8, 256, 14_336, 256_000, 8192, tied=True, window=4096),
    RealModel("gemma-2-27b", "gemma2", 46, 4608, 32, 16, 128, 36_864, 256_000, 8192, tied=True, window=4096),
    RealModel("gemma-3-1b", "gemma3", 26, 1152, 4, 1, 256, 6912, 262_144, 32_768, tied=True, window=512),
    RealModel("gemma-3-4b", "gemma3", 34, 2560, 8, 4, 256, 10_240, 262_208, 131_072, tied=True, window=1024),
    RealModel("gemma-3-12b", "gemma3", 48, 3840, 16, 8, 256, 15_360, 262_208, 131_072, tied=True, window=1024),
    RealModel("gemma-3-27b", "gemma3", 62, 5376, 32, 16, 128, 21_504, 262_208, 131_072, tied=True, window=1024),
    RealModel("command-r7b", "cohere2", 32, 4096, 32, 8, 128, 14_336, 256_000, 131_072, tied=True, window=4096),
    RealModel(
        "gpt-oss-20b", "gpt-oss", 24, 2880, 64, 8, 64, 2880, 201_088, 131_072, window=128, quantisation="mxfp4",
        experts=Experts(count=32, used=4, n_ff=2880),
    ),
    RealModel(
        "gpt-oss-120b", "gpt-oss", 36, 2880, 64, 8, 64, 2880, 201_088, 131_072, window=128, quantisation="mxfp4",
        experts=Experts(count=128, used=4, n_ff=2880),
    ),
    RealModel(
        "llama-4-scout", "llama4", 48, 5120, 40, 8, 128, 16_384, 202_048, 1_000_000, window=8192,
        experts=Experts(count=16, used=1, n_ff=8192, shared_ff=8192),
    ),
)  # fmt: skip

_EXPERTS = tuple(
    RealModel(*row, experts=experts)
    for row, experts in (
        (("mixtral-8x7b", "llama", 32, 4096, 32, 8, 128, 14_336, 32_000, 32_768), Experts(count=8, used=2, n_ff=14_336)),
        (("mixtral-8x22b", "llama", 56, 6144, 48, 8, 128, 16_384, 32_768, 65_536), Experts(count=8, used=2, n_ff=16_384)),
        (("qwen3-30b-a3b", "qwen3moe", 48, 2048, 32, 4, 128, 6144, 151_936, 40_960), Experts(count=128, used=8, n_ff=768)),
        (("qwen3-235b-a22b", "qwen3moe", 94, 4096, 64, 4, 128, 12_288, 151_936, 40_960), Experts(count=128, used=8, n_ff=1536)),
        (("qwen3-coder-480b", "qwen3moe", 62, 6144, 96, 8, 128, 8192, 151_936, 262_144), Experts(count=160, used=8, n_ff=2560)),
        (("qwen1.5-moe-a2.7b", "qwen2moe", 24, 2048, 16, 16, 128, 5632, 151_936, 8192), Experts(count=60, used=4, n_ff=1408, shared_ff=5632)),
        (("phi-3.5-moe", "phimoe", 32, 4096, 32, 8, 128, 6400, 32_064, 131_072), Experts(count=16, used=2, n_ff=6400)),
        (("olmoe-7b", "olmoe", 16, 2048, 16, 16, 128, 1024, 50_304, 4096), Experts(count=64, used=8, n_ff=1024)),
        (("dbrx", "dbrx", 40, 6144, 48, 8, 128, 10_752, 100_352, 32_768), Experts(count=16, used=4, n_ff=10_752)),
        (("glm-4.5-air", "glm4moe", 47, 4096, 96, 8, 128, 10_944, 151_552, 131_072), Experts(count=128, used=8, n_ff=1408, shared_ff=1408, dense_layers=1)),
        (("granite-3-moe-3b", "granitemoe", 32, 1536, 24, 8, 64, 512, 49_155, 4096), Experts(count=40, used=8, n_ff=512)),
    )
)  # fmt: skip

_LATENT = tuple(
    RealModel(*row, latent=576, experts=experts)
    for row, experts in (
        (("deepseek-v2-lite", "deepseek2", 27, 2048, 16, 1, 192, 10_944, 102_400, 163_840), Experts(count=64, used=6, n_ff=1408, shared_ff=2816, dense_layers=1)),
        (("deepseek-v2", "deepseek2", 60, 5120, 128, 1, 192, 12_288, 102_400, 163_840), Experts(count=160, used=6, n_ff=1536, shared_ff=3072, dense_layers=1)),
        (("deepseek-v3", "deepseek2", 61, 7168, 128, 1, 192, 18_432, 129_280, 163_840), Experts(count=256, used=8, n_ff=2048, shared_ff=2048, dense_layers=3)),
        (("kimi-k2", "deepseek2", 61, 7168, 64, 1, 192, 18_432, 163_840, 131_072), Experts(count=384, used=8, n_ff=2048, shared_ff=2048, dense_layers=1)),
    )
)  # fmt: skip

_RECURRENT = (
    RealModel("mamba-2.8b", "mamba", 64, 2560, 0, 0, 0, 0, 50_280, 1_048_576, tied=True, state=(5120, 16, 4)),
    RealModel("falcon-mamba-7b", "mamba", 64, 4096, 0, 0, 0, 0, 65_024, 1_048_576, state=(8192, 16, 4)),
    RealModel("rwkv6-7b", "rwkv6", 32, 4096, 0, 0, 0, 14_336, 65_536, 1_048_576, wkv_head=64),
    RealModel(
        "jamba-mini", "jamba", 32, 4096, 32, 8, 128, 14_336, 65_536, 262_144, state=(8192, 16, 4), attention_every=8,
        experts=Experts(count=16, used=2, n_ff=14_336, every=2),
    ),
    RealModel(
        "granite-4-h-tiny", "granitehybrid", 40, 1536, 12, 4, 128, 512, 100_352, 131_072, tied=True, state=(3072, 128, 4),
        attention_every=10, experts=Experts(count=64, used=6, n_ff=512, shared_ff=1024),
    ),
    RealModel(
        "nemotron-h-8b", "nemotron_h", 52, 4096, 32, 8, 128, 21_504, 131_072, 8192, state=(8192, 128, 4), attention_every=13,
    ),
    RealModel(
        "qwen3-next-80b", "qwen3next", 48, 2048, 16, 2, 256, 5120, 151_936, 262_144, state=(4096, 128, 4), attention_every=4,
        experts=Experts(count=512, used=10, n_ff=512, shared_ff=512),
    ),
)  # fmt: skip

REAL_MODELS = (*_DENSE, *_WINDOWED, *_EXPERTS, *_LATENT, *_RECURRENT)
