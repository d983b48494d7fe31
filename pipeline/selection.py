"""Which tracks are trained on: the one place that decides it, from the columns of `tracks.parquet` and `[select]`.

A track that is left out stays in `tracks.parquet` with all that was measured, and is not in the plan of the chunks. So
another threshold needs no new reading: `mousai shard` plans again, and makes again only the shards that are affected.

A new code is a member of `Exclusion`, its line in `MEANINGS`, and a rule: a function of one track in `_RULES`. Only
`duplicate` looks at several: of the copies of a recording against which nothing else speaks, the best one is kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    DUPLICATE = "duplicate"


MEANINGS = {
    Exclusion.DECODE_ERRORS: "damaged: more than `select.max_errors_per_minute` packets were refused by the decoder",
    Exclusion.DUPLICATE: "there is a better copy of the same recording; kept with `select.keep_duplicates`",
}

_LOSSLESS = frozenset({
    "alac", "ape", "dsd_lsbf", "dsd_lsbf_planar", "dsd_msbf", "dsd_msbf_planar", "flac", "mlp", "mp4als", "shorten",
    "tak", "truehd", "tta", "wavpack", "wmalossless",
})  # fmt: skip
_PADDING = 1.0  # s by which encoders lengthen a track: such lengths are equal


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
    if not settings.keep_duplicates:
        for track in worse_copies(track for track in tracks if codes.get(track.path) == []):
            codes[track.path].append(Exclusion.DUPLICATE.value)
    return {path: found for path, found in codes.items() if found}


def worse_copies(tracks: Iterable[Track]) -> list[Track]:
    """All tracks of which there is a better copy.

    Lossless is better, then longer, then more samples a second, more bits a second (of lossy ones), more tags.
    """
    clusters: dict[str, list[Track]] = {}
    for track in tracks:
        if track.cluster is not None:
            clusters.setdefault(track.cluster, []).append(track)
    return [track for cluster in clusters.values() for track in _best_first(cluster)[1:]]


def _best_first(cluster: Sequence[Track]) -> list[Track]:
    longest = max(track.length or 0 for track in cluster) / SAMPLE_RATE

    def rank(track: Track) -> tuple[bool, bool, int, float, int, str]:
        duration = (track.length or 0) / SAMPLE_RATE
        codec = track.codec or ""
        lossless = codec in _LOSSLESS or (codec.startswith("pcm_") and not codec.endswith("law"))
        bit_rate = track.size / duration if duration and not lossless else 0.0
        num_tags = sum(map(bool, (track.title, track.artists, track.album, track.genres, track.year)))
        is_short = duration < longest - _PADDING
        return not lossless, is_short, -(track.sample_rate or 0), -bit_rate, -num_tags, track.path

    return sorted(cluster, key=rank)


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
