"""Tables: a record type is the schema, a Parquet file the rows, and a few facts travel in its metadata.

Rows pass in batches, so that a table of millions costs the memory of its records and no more.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mousai.errors import UserError
from mousai.storage import publish
from pipeline.records import schema

R = TypeVar("R")
_FACTS = b"mousai"
_GROUP = 1 << 16  # rows that are written together
_BATCH = 1 << 13  # rows that are read together


def write_table(path: Path, record: type[R], rows: Iterable[R], **facts: Any) -> None:
    """Publish `rows` as the Parquet table at `path`, with `facts` (JSON-able) in its metadata.

    Rows are kept in the order given; the same rows and facts give the same bytes.
    """
    table_schema = schema(record).with_metadata({_FACTS: json.dumps(facts, sort_keys=True).encode()})
    remaining = iter(rows)
    with (
        publish(path) as temporary,
        pq.ParquetWriter(temporary, table_schema, compression="zstd") as writer,
    ):
        while batch := list(islice(remaining, _GROUP)):
            arrays = [pa.array([getattr(row, field.name) for row in batch], field.type) for field in table_schema]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=table_schema))


def read_table(path: Path, record: type[R], made_by: str = "") -> list[R]:
    """All rows of the table at `path`; UserError (naming the command `made_by`) when it is missing or another kind."""
    return list(iter_table(path, record, made_by))


def iter_table(path: Path, record: type[R], made_by: str = "") -> Iterator[R]:
    """The rows of `read_table`, one after the other; those of a batch share the strings and numbers they repeat."""
    names = schema(record).names
    with _opened(path, record, made_by) as table:
        for batch in table.iter_batches(_BATCH):
            for values in zip(*map(_values, batch.columns), strict=True):
                yield record(**dict(zip(names, values, strict=True)))


def read_columns(path: Path, record: type[Any], columns: Sequence[str], made_by: str = "") -> dict[str, pa.Array]:
    """Some columns of `read_table`, as Arrow has them: nothing becomes an object."""
    with _opened(path, record, made_by) as file:
        table = file.read(list(columns))
    return {name: table[name].combine_chunks() for name in columns}


@contextmanager
def _opened(path: Path, record: type[Any], made_by: str) -> Iterator[pq.ParquetFile]:
    if not path.exists():
        raise UserError(f"{path} does not exist." + (f" Make it with: {made_by}" if made_by else ""))
    try:
        with pq.ParquetFile(path) as table:
            found, wanted = table.schema_arrow.names, schema(record).names
            if found != wanted:
                lacking = f"it lacks {', '.join(sorted(set(wanted) - set(found))) or 'nothing'}"
                unknown = f"has beside them {', '.join(sorted(set(found) - set(wanted))) or 'nothing'}"
                raise UserError(
                    f"{path} has the columns of another version: {lacking}, and {unknown}. Make it anew with: {made_by}"
                )
            yield table
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet table ({error}). Delete it and run: {made_by}") from error


def _values(column: pa.Array) -> list[Any]:
    """The column as Python values, equal strings and whole numbers being one object: most columns repeat a few."""
    values: list[Any] = column.to_pylist()
    seen: dict[Any, Any] = {}
    if pa.types.is_string(column.type) or pa.types.is_integer(column.type):
        return [seen.setdefault(value, value) for value in values]
    if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
        return [[seen.setdefault(value, value) for value in row] for row in values]
    return values


def has_columns_of(path: Path, record: type[Any]) -> bool:
    """Whether the table at `path` can be read as `record`, or is not there; False for one of another version."""
    if not path.exists():
        return True
    try:
        return bool(pq.read_schema(path).names == schema(record).names)
    except (pa.ArrowInvalid, OSError):
        return True  # damaged is another matter: `read_table` says what to do


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that `write_table` put beside the table; empty when the table does not exist."""
    if not path.exists():
        return {}
    metadata = pq.read_schema(path).metadata or {}
    return dict(json.loads(metadata.get(_FACTS, b"{}")))
