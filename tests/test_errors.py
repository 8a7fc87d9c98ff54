from __future__ import annotations

import pytest

from kolosal import errors
from kolosal.errors import (
    ERROR_TABLE,
    ContextLengthExceeded,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    KolosalError,
    NotFound,
    Overloaded,
    QueueFull,
    error_named,
    error_row,
)


def all_classes(base: type[KolosalError] = KolosalError) -> set[type[KolosalError]]:
    return {base}.union(*(all_classes(sub) for sub in base.__subclasses__()))


CLASSES = sorted(all_classes(), key=repr)
LEAVES = [cls for cls in CLASSES if not cls.__subclasses__()]


@pytest.mark.parametrize("cls", LEAVES)
def test_every_error_has_its_row(cls: type[KolosalError]) -> None:
    assert cls in ERROR_TABLE


@pytest.mark.parametrize("row", ERROR_TABLE.values())
def test_status_is_an_error_status(row: errors.ErrorRow) -> None:
    assert 400 <= row.status <= 599


def test_message_is_what_the_error_says() -> None:
    assert str(InvalidRequest("no such field", param="n")) == "no such field"


def test_row_of_an_error_is_its_classs() -> None:
    assert error_row(QueueFull("full")) == ERROR_TABLE[QueueFull]


def test_code_of_an_instance_goes_before_its_classs() -> None:
    assert error_row(NotFound("no", code="model_not_found")).openai_code == "model_not_found"


def test_internal_error_has_a_fixed_text() -> None:
    assert InternalError().message == "Internal server error"


@pytest.mark.parametrize("cls", [cls for cls in LEAVES if issubclass(cls, Overloaded)])
def test_overload_says_when_to_come_back(cls: type[Overloaded]) -> None:
    assert cls("full", retry_after_s=7).retry_after_s == 7


def test_error_of_a_worker_has_its_class() -> None:
    assert type(error_named("ContextLengthExceeded", "too long")) is ContextLengthExceeded


@pytest.mark.parametrize(
    "name", ["", "Exception", "KolosalError", "InternalError", "LoadFailed", "AuthenticationFailed"]
)
def test_worker_cannot_name_any_other_class(name: str) -> None:
    assert type(error_named(name, "x")) is GenerationFailed


def test_error_of_a_worker_keeps_its_parameter() -> None:
    assert error_named("InvalidRequest", "x", param="messages").param == "messages"
