"""Which tracks are trained on: the one place that decides it, from the columns of `tracks.parquet` and `[select]`.

A track that is left out stays in `tracks.parquet` with all that was measured, and is not in the plan of the chunks. So
another threshold needs no new reading: `mousai shard` plans again, and makes again only the shards that are affected.

A new code is a member of `Exclusion`, its line in `MEANINGS`, and a rule: a function of one track in `_RULES`. Only
`duplicate` looks at several: of the copies of a recording against which nothing else speaks, the best one is kept.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mousai.audio import SAMPLE_RATE
from mousai.settings import SelectSettings
from pipeline.licences import is_among
from pipeline.manifest import read_table
from pipeline.prompts import tracks_by_id
from pipeline.records import Track

LOUDNESS_BLOCK = 0.4  # s: shorter tracks have no loudness, whatever they hold
CUTOFF_DROP_DB = 30.0  # within 500 Hz; real music was seen to fall by up to 21 on its own, codecs by 23 to 75

_CONSENTED = frozenset({"yes", "true", "1", "given", "granted", "signed"})  # anything else may be a no


class Exclusion(StrEnum):
    """Why a usable track is left out of training: a closed set."""

    DECODE_ERRORS = "decode_errors"
    TRUNCATED = "truncated"
    SILENT = "silent"
    QUIET = "quiet"
    CLIPPED = "clipped"
    DC_OFFSET = "dc_offset"
    DEAD_CHANNEL = "dead_channel"
    ANTI_PHASE = "anti_phase"
    MONO = "mono"
    BAND_LIMITED = "band_limited"
    LICENCE = "licence"
    CONSENT = "consent"
    DUPLICATE = "duplicate"


MEANINGS = {
    Exclusion.DECODE_ERRORS: "damaged: the decoder refused more than `max_errors_per_minute` packets",
    Exclusion.TRUNCATED: "more than `max_missing_share` of the duration that the header claims did not decode",
    Exclusion.SILENT: "silence makes up more than `max_silence_share`",
    Exclusion.QUIET: "below `min_loudness`",
    Exclusion.CLIPPED: "more than `max_clips_per_minute` runs of clipped samples",
    Exclusion.DC_OFFSET: "an offset beyond `max_dc`",
    Exclusion.DEAD_CHANNEL: "one channel is louder than the other by more than `max_balance_db`",
    Exclusion.ANTI_PHASE: "left and right correlate less than `min_correlation`: in mono they cancel each other",
    Exclusion.MONO: "the channels differ by less than `min_side_db`: mono, or stereo by name only",
    Exclusion.BAND_LIMITED: f"the spectrum ends below `min_cutoff_hz`, with a drop of {CUTOFF_DROP_DB:.0f} dB or more",
    Exclusion.LICENCE: "no licence, or none that `only_licences` names",
    Exclusion.CONSENT: "no consent that says yes, where `require_consent` asks for one",
    Exclusion.DUPLICATE: "there is a better copy of the same recording; kept with `keep_duplicates`",
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


_Rule = Callable[[Track, SelectSettings], bool]


def _seconds(track: Track) -> float:
    return (track.length or 0) / SAMPLE_RATE


def _is_damaged(track: Track, settings: SelectSettings) -> bool:
    return (track.decode_errors or 0) * 60 > settings.max_errors_per_minute * _seconds(track)


def _is_truncated(track: Track, settings: SelectSettings) -> bool:
    claimed = track.header_duration or 0
    return claimed - _seconds(track) > settings.max_missing_share * claimed


def _is_silent(track: Track, settings: SelectSettings) -> bool:
    silence = (track.silence_head or 0) + (track.silence_within or 0) + (track.silence_tail or 0)
    return silence > settings.max_silence_share * _seconds(track)


def _is_quiet(track: Track, settings: SelectSettings) -> bool:
    if track.loudness is not None:
        return track.loudness < settings.min_loudness
    below_the_gate = track.true_peak is not None and _seconds(track) >= LOUDNESS_BLOCK
    return below_the_gate and settings.min_loudness > -math.inf


def _is_clipped(track: Track, settings: SelectSettings) -> bool:
    return (track.clipped_runs or 0) * 60 > settings.max_clips_per_minute * _seconds(track)


def _has_offset(track: Track, settings: SelectSettings) -> bool:
    return (track.dc or 0) > settings.max_dc


def _has_dead_channel(track: Track, settings: SelectSettings) -> bool:
    return abs(track.balance_db or 0) > settings.max_balance_db


def _is_anti_phase(track: Track, settings: SelectSettings) -> bool:
    return track.correlation is not None and track.correlation < settings.min_correlation


def _is_mono(track: Track, settings: SelectSettings) -> bool:
    return track.side_db is not None and track.side_db < settings.min_side_db


def _is_band_limited(track: Track, settings: SelectSettings) -> bool:
    if track.cutoff_hz is None or track.cutoff_drop_db is None:
        return False
    return track.cutoff_hz < settings.min_cutoff_hz and track.cutoff_drop_db >= CUTOFF_DROP_DB


def _has_other_licence(track: Track, settings: SelectSettings) -> bool:
    return bool(settings.only_licences) and not is_among(track.licence, settings.only_licences)


def _has_no_consent(track: Track, settings: SelectSettings) -> bool:
    return settings.require_consent and (track.consent or "").strip().casefold() not in _CONSENTED


_RULES: dict[Exclusion, _Rule] = {
    Exclusion.DECODE_ERRORS: _is_damaged,
    Exclusion.TRUNCATED: _is_truncated,
    Exclusion.SILENT: _is_silent,
    Exclusion.QUIET: _is_quiet,
    Exclusion.CLIPPED: _is_clipped,
    Exclusion.DC_OFFSET: _has_offset,
    Exclusion.DEAD_CHANNEL: _has_dead_channel,
    Exclusion.ANTI_PHASE: _is_anti_phase,
    Exclusion.MONO: _is_mono,
    Exclusion.BAND_LIMITED: _is_band_limited,
    Exclusion.LICENCE: _has_other_licence,
    Exclusion.CONSENT: _has_no_consent,
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
