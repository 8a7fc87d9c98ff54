"""Statements about objects. Each is made once: making one takes SQLAlchemy as long as executing it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Insert, Select, Table, Update, bindparam, insert, select, update

from kolosal.store.tables import METADATA

Shape: TypeAlias = tuple[tuple[str, bool], ...]
"""Columns that rows are looked for by; true where one of several values will do."""


def shape_of(columns: Mapping[str, str | tuple[str, ...]]) -> Shape:
    """What a statement looks for, without the values."""
    return tuple((name, isinstance(value, tuple)) for name, value in columns.items())


def _matching(table: Table, shape: Shape) -> list[ColumnElement[bool]]:
    """What the rows have in these columns, where several values are as good as one."""
    return [
        table.c.owner == bindparam("owner_is"),
        *(
            table.c[name].in_(bindparam(f"{name}_is", expanding=True))
            if several
            else table.c[name] == bindparam(f"{name}_is")
            for name, several in shape
        ),
    ]


@cache
def select_one(table_name: str, shape: Shape, *, lock: bool) -> Select[Any]:
    """`seq`, `size` and `data` of the object of an id."""
    table = METADATA.tables[table_name]
    query = select(table.c.seq, table.c.size, table.c.data).where(
        table.c.id == bindparam("object_id"), *_matching(table, shape)
    )
    return query.with_for_update() if lock else query


@cache
def select_rows(
    table_name: str,
    shape: Shape,
    after: bool,
    before: bool,
    ascending: bool,
    lock: bool,
) -> Select[Any]:
    """Rows that were made after or before these, as many as are asked for."""
    table = METADATA.tables[table_name]
    conditions = _matching(table, shape)
    conditions += [table.c.seq > bindparam("after")] if after else []
    conditions += [table.c.seq < bindparam("before")] if before else []
    query = (
        select(table.c.seq, table.c.id, table.c.size, table.c.data)
        .where(*conditions)
        .order_by(table.c.seq.asc() if ascending else table.c.seq.desc())
        .limit(bindparam("rows"))
    )
    return query.with_for_update() if lock else query


@cache
def insert_objects(table_name: str) -> Insert:
    """Several objects."""
    return insert(METADATA.tables[table_name])


@cache
def update_object(table_name: str) -> Update:
    """Other values of one object."""
    table = METADATA.tables[table_name]
    return update(table).where(table.c.id == bindparam("object_id"), table.c.owner == bindparam("owner_is"))


def parts_of(table: Table) -> list[tuple[Table, str]]:
    """The tables whose rows are deleted with a row of this one, each with the column that has its id."""
    return [
        (other, key.parent.name)
        for other in METADATA.sorted_tables
        for key in other.foreign_keys
        if key.column.table is table
    ]
