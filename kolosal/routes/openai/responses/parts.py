"""The parts of a message, and of what a call gave, as a request has them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from kolosal.errors import UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required
from kolosal.routes.common.fields import ARRAY, STRING, kinds
from kolosal.routes.openai.messages import MAX_PARTS
from kolosal.routes.openai.responses.items import ContentPart, output_text

MAX_TYPE_CHARS = 64
"""Characters of the type of an item, a part or a tool."""


class InputPart(RequestBody):
    """One part of a message or of a call's output: text, or the words of a refusal."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    text: str | None = None
    refusal: str | None = None

    def to_content(self, path: str) -> ContentPart:
        """The part; `path` is where it stands.

        Raises:
            InvalidRequest: its text is missing.
            UnsupportedFeature: it is no text.
        """
        match self.type:
            case "input_text":
                return {"type": "input_text", "text": required(self.text, f"{path}.text")}
            case "output_text":
                return output_text(required(self.text, f"{path}.text"))
            case "refusal":
                return {"type": "refusal", "refusal": required(self.refusal, f"{path}.refusal")}
            case _:
                raise UnsupportedFeature(
                    f"{path}.type is {self.type!r}, but this server reads input_text, output_text and refusal only",
                    param=f"{path}.type",
                )


Content: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[InputPart, ...], Field(max_length=MAX_PARTS), ARRAY],
    kinds("a string or an array of text parts"),
]
