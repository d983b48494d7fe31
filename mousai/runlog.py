"""The log of a run: `log.jsonl`, one JSON object a line, each with a "step"; what lies ahead of a resume is cut off."""

import json
from pathlib import Path
from typing import Any

from mousai.storage import publish

Row = dict[str, Any]


def append_row(run: Path, row: Row) -> None:
    """Add a line to the log."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(run: Path) -> list[Row]:
    """All rows; a last line that a kill cut short is left out."""
    path = run / "log.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # every whole line ends with a newline


def truncate(run: Path, step: int) -> None:
    """Drop the rows after `step`: training goes on from there and writes them again."""
    rows = read_rows(run)
    kept = [row for row in rows if row["step"] <= step]
    if (run / "log.jsonl").exists():
        with publish(run / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def last_value(run: Path, key: str) -> Any:
    """The newest value of `key` in the log; None where there is none."""
    return next((row[key] for row in reversed(read_rows(run)) if key in row), None)
