"""What weights were trained on: each checkpoint carries `tracks.txt`, an id a line, of every track that could be drawn.

The list grows from sitting to sitting, begins with that of the weights a run has started from, and goes with a
checkpoint wherever it is copied. Where it is missing, the weights are from before it was kept: nothing can be said.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from mousai.storage import read_json

FILE = "tracks.txt"


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a checkpoint has to do with some tracks."""

    path: str
    kind: str  # "dmae" or "generator"
    step: int
    num_tracks: int | None  # of those asked for, that it was trained on; None: it does not say
    dmae: str | None  # id of the DMAE whose latents a generator was trained on
    dmae_num_tracks: int | None  # the same of that DMAE

    @property
    def is_concerned(self) -> bool:
        """Whether it, or the DMAE that it rests on, was trained on any of them."""
        return bool(self.num_tracks or self.dmae_num_tracks)

    @property
    def is_unknown(self) -> bool:
        """Whether it may be concerned without saying so."""
        return not self.is_concerned and (self.num_tracks is None or (self.dmae is not None and not self._dmae_says))

    @property
    def _dmae_says(self) -> bool:
        return self.dmae_num_tracks is not None


def read_tracks(checkpoint: Path) -> frozenset[str] | None:
    """The ids of the tracks that a checkpoint was trained on; None where it does not say."""
    path = checkpoint / FILE
    return frozenset(path.read_text(encoding="ascii").split()) if path.exists() else None


def write_tracks(checkpoint: Path, tracks: Collection[str]) -> None:
    """Put the list into a checkpoint's folder, which is not published yet."""
    (checkpoint / FILE).write_text("".join(f"{track_id}\n" for track_id in sorted(tracks)), encoding="ascii")


def trained_with(tracks: Collection[str], runs: Path, latents: Path, others: Iterable[Path]) -> list[Lineage]:
    """All checkpoints of a workspace, and those in `others`, with how many of `tracks` each has been trained on."""
    wanted = frozenset(tracks)
    frozen = sorted(path.parent for path in latents.glob("*/dmae/checkpoint.json"))
    folders = [*sorted(path.parent for path in runs.glob("*/checkpoints/*/checkpoint.json")), *frozen, *others]
    of_dmae = {folder.parent.name: _count(folder, wanted) for folder in frozen}
    return [_lineage(folder, wanted, of_dmae) for folder in folders]


def _count(folder: Path, wanted: frozenset[str]) -> int | None:
    tracks = read_tracks(folder)
    return None if tracks is None else len(wanted & tracks)


def _lineage(folder: Path, wanted: frozenset[str], of_dmae: dict[str, int | None]) -> Lineage:
    about = read_json(folder / "checkpoint.json")
    dmae = about["provenance"].get("encoder")
    return Lineage(
        path=str(folder),
        kind=about["kind"],
        step=about["step"],
        num_tracks=_count(folder, wanted),
        dmae=dmae,
        dmae_num_tracks=of_dmae.get(dmae),
    )
