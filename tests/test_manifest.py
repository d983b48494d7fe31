"""Tables: rows come back as they were written, in their order, however many batches they fill."""

import dataclasses
from pathlib import Path

import pytest

from mousai.errors import UserError
from pipeline import manifest
from pipeline.manifest import iter_table, read_facts, read_table, write_table
from pipeline.records import Rejected

COUNT = 23


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows fill several."""
    monkeypatch.setattr(manifest, "_GROUP", 10)
    monkeypatch.setattr(manifest, "_BATCH", 4)


def rows() -> list[Rejected]:
    return [
        Rejected(
            path=f"/music/{number}.mp3", raw_path=b"\xff%d" % number, library="/music", size=number,
            mtime_ns=10**18 + number, reason="empty" if number % 3 else "drm", detail="",
        )
        for number in range(COUNT)
    ]  # fmt: skip


def test_rows_come_back_in_their_order(tmp_path: Path):
    path = tmp_path / "rejected.parquet"
    write_table(path, Rejected, (row for row in rows()), libraries=["/music"])
    assert read_table(path, Rejected) == rows()
    assert read_facts(path) == {"libraries": ["/music"]}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    for name in ("one", "other"):
        write_table(tmp_path / name, Rejected, rows())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_table_without_rows_is_a_table(tmp_path: Path):
    write_table(tmp_path / "none", Rejected, [])
    assert read_table(tmp_path / "none", Rejected) == []


def test_what_a_batch_repeats_is_held_once(tmp_path: Path):
    """Of a million tracks, most columns have few values: one string each, or memory would not do."""
    write_table(tmp_path / "table", Rejected, rows())
    libraries = {id(row.library) for row in read_table(tmp_path / "table", Rejected)}
    assert len(libraries) <= 8  # one a batch: 10, 10 and 3 rows written together, at most 4 read together


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path):
    made: list[int] = []
    write_table(tmp_path / "table", Rejected, rows())

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Counted(Rejected):
        def __post_init__(self) -> None:
            made.append(self.size)

    table = iter_table(tmp_path / "table", Counted)
    assert next(table).size == 0
    assert made == [0]


def test_a_table_of_other_columns_is_a_users_error(tmp_path: Path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Older:
        path: str

    write_table(tmp_path / "table", Older, [Older(path="a")])
    with pytest.raises(UserError, match="mousai ingest"):
        read_table(tmp_path / "table", Rejected, "mousai ingest")
