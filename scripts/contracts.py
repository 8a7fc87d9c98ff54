"""Prints, as JSON, which fields the official clients' requests have: by the packages of the Python that runs this.

`scripts/test.py --newest` compares the newest packages with the locked ones. A field that appears is one that the daemon
should know soon: honour it, refuse it by name, or list it as ignored.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import sys
from typing import Any

REQUESTS = {
    "POST /v1/chat/completions": "openai.types.chat.completion_create_params:CompletionCreateParamsBase",
    "POST /v1/completions": "openai.types.completion_create_params:CompletionCreateParamsBase",
    "POST /v1/embeddings": "openai.types.embedding_create_params:EmbeddingCreateParams",
    "POST /v1/responses": "openai.types.responses.response_create_params:ResponseCreateParamsBase",
    "POST /v1/responses/input_tokens": "openai.types.responses.input_token_count_params:InputTokenCountParams",
    "POST /v1/messages": "anthropic.types.message_create_params:MessageCreateParamsBase",
    "POST /v1/messages/count_tokens": "anthropic.types.message_count_tokens_params:MessageCountTokensParams",
    "POST /api/chat": "ollama:Client.chat",
    "POST /api/generate": "ollama:Client.generate",
    "POST /api/embed": "ollama:Client.embed",
    "options of Ollama": "ollama:Options",
}
"""Request → where its fields are declared: a typed dictionary, a model, or a method that takes them."""


def fields_of(place: str) -> list[str]:
    """The names of the fields that are declared there."""
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    if inspect.isfunction(found):
        return sorted(set(inspect.signature(found).parameters) - {"self"})
    return sorted({name for base in inspect.getmro(found) for name in inspect.get_annotations(base)})


def changes(locked: dict[str, list[str]], newest: dict[str, list[str]]) -> list[str]:
    """One line for each request whose fields differ."""
    lines = []
    for request in sorted(locked | newest):
        before, after = set(locked.get(request, ())), set(newest.get(request, ()))
        signs = [f"+{name}" for name in sorted(after - before)] + [
            f"-{name}" for name in sorted(before - after)
        ]
        if signs:
            lines.append(f"{request}: {' '.join(signs)}")
    return lines


def main() -> int:
    versions = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
    fields = {request: fields_of(place) for request, place in REQUESTS.items()}
    json.dump({"versions": versions, "fields": fields}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
