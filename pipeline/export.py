"""The finished shards, in the form that another toolkit loads: `FORMATS` names the toolkits.

The folder belongs to the export: what an earlier run has left there and this one does not need is removed.
`export.json` marks it as ours, and is written first.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from mousai.errors import UserError
from mousai.settings import SelectSettings
from mousai.storage import read_json, write_json
from pipeline.card import card
from pipeline.contents import Content, read_contents
from pipeline.export_audiocraft import write_audiocraft
from pipeline.export_hf import write_card, write_hf
from pipeline.export_lhotse import write_lhotse
from pipeline.report import read_report
from pipeline.selection import read_selected

ExportFormat = Literal["hf", "audiocraft", "lhotse"]
Split = Literal["train", "val"]

FORMATS: Mapping[str, Callable[[Sequence[Content], Path], Counter[str]]] = {
    "hf": write_hf,
    "audiocraft": write_audiocraft,
    "lhotse": write_lhotse,
}

_MARK = "export.json"


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What lies in the folder now, and what was done for it."""

    format: str
    folder: str
    splits: tuple[str, ...]
    num_chunks: int
    duration: float  # s
    bytes: int  # of the shards that it was made from
    done: dict[str, int]  # "kept", "linked", "copied", "retagged", "extracted", "written", "removed": how many
    changed: bool


def export(
    manifests: Path,
    shards: Path,
    folder: Path,
    export_format: ExportFormat,
    *,
    splits: Sequence[Split] = ("train", "val"),
    select: SelectSettings | None = None,
) -> ExportSummary:
    """Bring `folder` up to date with the shards of `splits`, in `export_format`; what is there and current is kept."""
    contents = read_contents(shards, read_selected(manifests, select), splits)
    _claim(folder, export_format)
    done = FORMATS[export_format](contents, folder)
    if export_format == "hf":
        text = card(read_report(manifests, shards, None, select=select), version("mousai"), splits)
        done["card"] = int(write_card(folder / "README.md", text))
    return ExportSummary(
        format=export_format,
        folder=str(folder),
        splits=tuple(splits),
        num_chunks=sum(content.stats.num_chunks for content in contents),
        duration=sum(content.stats.duration for content in contents),
        bytes=sum(content.stats.bytes for content in contents),
        done={what: count for what, count in sorted(done.items()) if count},
        changed=any(count for what, count in done.items() if what != "kept"),
    )


def _claim(folder: Path, export_format: str) -> None:
    """Make `folder` one of this format; UserError where it holds anything else."""
    mark = folder / _MARK
    if mark.exists():
        try:
            there = str(read_json(mark)["format"])
        except (ValueError, KeyError, TypeError):
            there = "something else"
        if there != export_format:
            raise UserError(f"{folder} holds an export for {there}. Name another folder: --out DIR")
        return
    if folder.exists() and (not folder.is_dir() or any(path.name != f".{_MARK}.tmp" for path in folder.iterdir())):
        raise UserError(f"{folder} holds other files, and an export would not spare them. Name a new one: --out DIR")
    write_json(mark, {"format": export_format})
