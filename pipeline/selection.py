"""Which tracks are trained on: the one place that decides it, from the columns of `tracks.parquet` and `[select]`.

A track that is left out stays in `tracks.parquet` with all that was measured, and is not in the plan of the chunks. So
another threshold needs no new reading: `mousai shard` plans again, and makes again only the shards that are affected.

A new code is a member of `Exclusion`, its line in `MEANINGS`, and a rule: a function of one track in `_RULES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mousai.audio import SAMPLE_RATE
from mousai.settings import SelectSettings
from pipeline.manifest import read_table
from pipeline.prompts import tracks_by_id
from pipeline.records import Track


class Exclusion(StrEnum):
    """Why a usable track is left out of training: a closed set."""

    DECODE_ERRORS = "decode_errors"


MEANINGS = {
    Exclusion.DECODE_ERRORS: "damaged: more than `select.max_errors_per_minute` packets were refused by the decoder",
}


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """How much one code leaves out."""

    num_tracks: int
    duration: float  # s


@dataclass(frozen=True, kw_only=True)
class SelectionSummary:
    """How much is trained on and how much is left out; a track with two codes counts under both, and once in all."""

    num_tracks: int  # that remain
    duration: float  # s
    num_left_out: int
    duration_left_out: float  # s
    left_out: dict[str, LeftOut]  # by code


def _has_decode_errors(track: Track, settings: SelectSettings) -> bool:
    minutes = (track.length or 0) / SAMPLE_RATE / 60
    return (track.decode_errors or 0) > settings.max_errors_per_minute * minutes


_RULES: dict[Exclusion, Callable[[Track, SelectSettings], bool]] = {
    Exclusion.DECODE_ERRORS: _has_decode_errors,
}


def exclusions(tracks: Sequence[Track], settings: SelectSettings) -> dict[str, list[str]]:
    """Path -> the codes of all that speaks against a track; those that are trained on are absent.

    Tracks that are not decoded yet are absent too: nothing is known of them.
    """
    codes = {
        track.path: [code.value for code, speaks_against in _RULES.items() if speaks_against(track, settings)]
        for track in tracks
        if track.length
    }
    return {path: found for path, found in codes.items() if found}


def selected(tracks: Sequence[Track], settings: SelectSettings) -> list[Track]:
    """The tracks without an exclusion, in their order; with one path of a recording left out, another may speak."""
    excluded = exclusions(tracks, settings)
    return [track for track in tracks if track.path not in excluded]


def read_selected(manifests: Path, settings: SelectSettings | None = None) -> dict[str, Track]:
    """Id -> track, of all that are trained on, from `tracks.parquet`; the settings should be those of the plan."""
    rows = read_table(manifests / "tracks.parquet", Track, "mousai ingest LIBRARY")
    return tracks_by_id(selected(rows, settings or SelectSettings()))


def summarise(tracks: Sequence[Track], excluded: Mapping[str, Sequence[str]]) -> SelectionSummary:
    """What `excluded`, as `exclusions` gave it, leaves of the decoded tracks."""
    duration = {track.path: track.length / SAMPLE_RATE for track in tracks if track.length}
    kept = [path for path in duration if path not in excluded]
    paths = {code: [path for path, codes in excluded.items() if code in codes] for code in Exclusion}
    return SelectionSummary(
        num_tracks=len(kept),
        duration=sum(duration[path] for path in kept),
        num_left_out=len(excluded),
        duration_left_out=sum(duration[path] for path in excluded),
        left_out={
            code.value: LeftOut(num_tracks=len(found), duration=sum(duration[path] for path in found))
            for code, found in paths.items()
            if found
        },
    )
