"""Names of models that can be fetched."""

from __future__ import annotations

import pytest

from kolosal.downloads.source import (
    FileSource,
    HubSource,
    OllamaSource,
    Source,
    is_source,
    parse_source,
    with_quant,
)
from kolosal.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf.co/org/repo", HubSource("org/repo")),
        ("hf.co/org/repo:Q4_K_M", HubSource("org/repo", "Q4_K_M")),
        ("hf.co/org/repo:latest", HubSource("org/repo")),
        ("HF.co/org/repo.v2:sub/model-Q4_0.gguf", HubSource("org/repo.v2", "sub/model-Q4_0.gguf")),
        ("hf:org/repo@v1.0:Q8_0", HubSource("org/repo", "Q8_0", "v1.0")),
        ("huggingface.co/org/repo/", HubSource("org/repo")),
        ("https://huggingface.co/org/repo", HubSource("org/repo")),
        (
            "https://huggingface.co/org/repo/resolve/main/a/m.gguf?download=true",
            HubSource("org/repo", "a/m.gguf"),
        ),
        ("https://hf.co/org/repo/blob/0f0f/m.gguf", HubSource("org/repo", "m.gguf", "0f0f")),
        ("ollama:llama3.2", OllamaSource("library", "llama3.2", "latest")),
        ("ollama:me/model:7b-q4", OllamaSource("me", "model", "7b-q4")),
    ],
)
def test_a_name_means(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert is_source(text)


def test_a_url_is_a_file_and_its_query_is_not_shown() -> None:
    source = parse_source("https://Example.com/a%20b/m.gguf?sig=secret")
    assert isinstance(source, FileSource)
    assert (source.file, source.url.text) == ("m.gguf", "https://example.com/a%20b/m.gguf?sig=secret")
    assert source.text == "https://example.com/a%20b/m.gguf"


def test_a_bare_name_is_ollamas_where_that_is_meant() -> None:
    assert parse_source("llama3.2:3b", bare_is_ollama=True) == OllamaSource("library", "llama3.2", "3b")
    assert parse_source("hf.co/org/repo:Q8_0", bare_is_ollama=True) == HubSource("org/repo", "Q8_0")
    assert not is_source("llama3.2:3b")
    assert not is_source("/models/hf/a.gguf")


@pytest.mark.parametrize(
    "text", ["hf.co/org/repo:Q4_0", "hf.co/org/repo@dev", "ollama:me/a:b", "https://h.example/m.gguf"]
)
def test_the_text_of_a_source_means_the_source(text: str) -> None:
    assert parse_source(parse_source(text).text) == parse_source(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "tiny", "org/repo", "hf.co/", "hf.co/org", "hf.co/org/repo/more", "hf.co/../repo", "hf.co/org/..",
        "hf.co/org/re..po", "hf.co/org/repo:../x.gguf", "hf.co/org/repo:/etc/x.gguf", "hf.co/org/repo:a//b.gguf",
        "hf.co/org/repo:Q4\x00", "hf.co/org/repo:a\\b.gguf", "hf.co/org/repo@../x", "ollama:",
        "ollama:../x", "ollama:a:b:c", "ollama:a/b/c", "ollama:a..b", "file:///etc/x.gguf", "gopher://h/x.gguf",
        "https://h.example/", "https://h.example/model.bin", "https://h.example/.gguf", "https://u:p@h.example/x.gguf",
        "https://u@h.example/x.gguf", "https:\\\\h.example\\x.gguf", "https://h.example\\@evil.example/x.gguf",
        "https://h.example:99999/x.gguf", "https://h.example:0/x.gguf", "https:///x.gguf", "https://h exa.example/x.gguf",
        "https://h.example/..%2f..%2fx.gguf", "x" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_source(text)
    assert caught.value.param == "source"
    assert caught.value.message.isprintable()


def test_a_quantisation_beside_the_name() -> None:
    assert with_quant(HubSource("o/r"), "Q4_0") == HubSource("o/r", "Q4_0")
    assert with_quant(HubSource("o/r", "Q4_0"), "q4_0") == HubSource("o/r", "q4_0")
    with pytest.raises(InvalidRequest, match="The name says Q8_0 and quant 'Q4_0'"):
        with_quant(HubSource("o/r", "Q8_0"), "Q4_0")
    with pytest.raises(InvalidRequest, match="for Hugging Face's repositories only"):
        with_quant(OllamaSource("library", "a", "b"), "Q4_0")
