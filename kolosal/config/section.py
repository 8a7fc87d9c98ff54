"""What all sections of the configuration have in common. A leaf, as the sections are: every part of the daemon may take its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class SettingsSection(BaseModel):
    """One section of the configuration file, valid and unchangeable.

    A field's name is its key in the file. `section.key` is set by the variable `KOLOSAL_` + `variable_prefix` + the name
    in capitals, or by the one that a `Variable` names. Its docstring is what the documentation and `kolosal config show`
    say of it.
    """

    model_config = STRICT

    variable_prefix: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """The environment variable of a setting, without `KOLOSAL_`, where its name does not follow from the setting's."""

    name: str


def _parts(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for text in value.split(",") if (part := text.strip()))
    return tuple(value) if isinstance(value, list) else value


COMMAS = BeforeValidator(_parts)
"""A list that may also be written as one text with commas, as in an environment variable."""

FilePath: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096)]
"""A path in the configuration; `~` is the user's home."""
