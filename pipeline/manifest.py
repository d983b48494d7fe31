"""Parquet tables of records: read, write, and the facts about a table that ride in its metadata."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mousai.errors import UserError
from mousai.storage import publish
from pipeline.records import schema

R = TypeVar("R")
_FACTS = b"mousai"


def write_table(path: Path, record: type[R], rows: Iterable[R], **facts: Any) -> None:
    """Publish `rows` as the Parquet table at `path`, with `facts` (JSON-able) in its metadata.

    Rows are kept in the order given; the same rows and facts give the same bytes.
    """
    names = [field.name for field in dataclasses.fields(record)]  # type: ignore[arg-type]
    rows = list(rows)
    columns = [[getattr(row, name) for row in rows] for name in names]
    table_schema = schema(record).with_metadata({_FACTS: json.dumps(facts, sort_keys=True).encode()})
    arrays = [pa.array(column, field.type) for column, field in zip(columns, table_schema, strict=True)]
    with publish(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=table_schema), temporary, compression="zstd")


def read_table(path: Path, record: type[R], made_by: str = "") -> list[R]:
    """All rows of the table at `path`; UserError (naming the command `made_by`) when it is missing or another kind."""
    if not path.exists():
        raise UserError(f"{path} does not exist." + (f" Make it with: {made_by}" if made_by else ""))
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet table ({error}). Delete it and run: {made_by}") from error
    wanted = schema(record).names
    if table.column_names != wanted:
        raise UserError(
            f"{path} has the columns of another version ({', '.join(table.column_names)}). Delete it and run: {made_by}"
        )
    return [record(**row) for row in table.to_pylist()]


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that `write_table` put beside the table; empty when the table does not exist."""
    if not path.exists():
        return {}
    metadata = pq.read_schema(path).metadata or {}
    return dict(json.loads(metadata.get(_FACTS, b"{}")))
