"""The JSON workload's object: one realistic record, its schema, and the check of an answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kolosal.bench.client import Request

MAX_TOKENS = 256
"""An order with all its white space needs about 200."""


class Item(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=24)]
    quantity: Annotated[int, Field(ge=1, le=99)]
    price_cents: Annotated[int, Field(ge=1, le=99_999)]


class Order(BaseModel):
    """What the model is made to write."""

    model_config = ConfigDict(extra="forbid", strict=True)

    customer_name: Annotated[str, Field(max_length=32)]
    delivery_city: Annotated[str, Field(max_length=24)]
    status: Literal["received", "packed", "shipped", "delivered"]
    priority: Annotated[int, Field(ge=1, le=5)]
    is_gift: bool
    items: Annotated[list[Item], Field(min_length=2, max_length=3)]
    comment: Annotated[str, Field(max_length=60)]


def json_request(story: str) -> Request:
    """Ask for an order that fits the story. The grammar ends the answer, so its length is not fixed."""
    prompt = f"{story} Write the order of this customer as a JSON object."
    schema = {"name": "order", "strict": True, "schema": Order.model_json_schema()}
    return Request.chat(
        [{"role": "user", "content": prompt}],
        MAX_TOKENS,
        fixed_length=False,
        response_format={"type": "json_schema", "json_schema": schema},
    )


def matches_schema(text: str) -> bool:
    """Whether an answer is one whole JSON object that the schema allows."""
    try:
        Order.model_validate_json(text)
    except ValidationError:
        return False
    return True
