"""Fields of the official OpenAI request that this daemon does not have.

A request that asks for one of them is refused and told so: an answer that quietly lacks the tools or the format that were
asked for is worse than none. Values that ask for nothing pass. Fields that no one knows are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

from kolosal.errors import UnsupportedFeature

REQUEST_FIELDS: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "top_logprobs": (0,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
    "verbosity": ("medium",),
    "store": (False,),
    "moderation": (),
    "n_probs": (0,),
    "min_keep": (0,),
    "n_indent": (0,),
    "t_max_predict_ms": (-1, 0),
    "adaptive_target": (-1, -1.0),
    "lora": ([],),
}
"""For each field of a request the values, besides null, that ask for nothing."""

MESSAGE_FIELDS: dict[str, tuple[object, ...]] = {"function_call": (), "audio": ()}
"""The same for each field of a message."""


def refuse_unsupported(
    extra: Mapping[str, object], table: Mapping[str, tuple[object, ...]], path: str = ""
) -> None:
    """Refuse what `extra` asks for in vain by a field in `table`; `path` is where the fields stand.

    Raises:
        UnsupportedFeature: a field asks for something.
    """
    for name, neutral in table.items():
        value = extra.get(name)
        if value is not None and not any(_same(value, harmless) for harmless in neutral):
            raise UnsupportedFeature(f"{path}{name} is not supported by this server", param=f"{path}{name}")


def _same(value: object, other: object) -> bool:
    """Equal as JSON: true is not 1."""
    return type(value) is type(other) and value == other
