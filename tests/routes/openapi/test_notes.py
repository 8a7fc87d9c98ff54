"""Docstrings under fields, found in the source."""

from __future__ import annotations

from kolosal.engines.parameters import LoadingParameters
from kolosal.routes.openai.chat import ChatCompletionBody
from kolosal.routes.openai.chat_encode import ChatCompletion
from kolosal.routes.openapi.notes import FieldNotes
from kolosal.sampling import SamplingParams


def test_what_stands_under_a_field_is_found() -> None:
    assert (
        FieldNotes().of(LoadingParameters)["n_parallel"]
        == "Requests generated at the same time; more wait in a queue."
    )


def test_a_field_without_a_docstring_has_none() -> None:
    assert "cache_type_k" not in FieldNotes().of(LoadingParameters)


def test_null_is_called_what_clients_call_it() -> None:
    assert "null and -1 take the engine's" in FieldNotes().of(SamplingParams)["seed"]


def test_foreign_classes_have_no_notes() -> None:
    assert FieldNotes().of(int) == {}


def test_inherited_fields_have_theirs() -> None:
    assert set(FieldNotes().of(ChatCompletionBody.__mro__[1])) <= set(FieldNotes().of(ChatCompletionBody))
    assert FieldNotes().of(ChatCompletion)["created"] == "Unix time in seconds."
