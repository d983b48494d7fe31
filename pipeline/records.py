"""The nouns that flow: each frozen dataclass is the schema of a Parquet table.

Run as a module, this file prints `manifests/README.md`.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa


class Reason(StrEnum):
    """Why a file was kept out: a closed set."""

    EMPTY = "empty"
    NOT_AUDIO = "not_audio"
    NO_AUDIO_STREAM = "no_audio_stream"
    UNSUPPORTED_CODEC = "unsupported_codec"
    DRM = "drm"
    DECODE_FAILED = "decode_failed"
    TOO_SHORT = "too_short"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    REMOVED = "removed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"


REASONS = {
    Reason.EMPTY: "the file has no bytes",
    Reason.NOT_AUDIO: "an audio file by name, but not by content (a web page, AppleDouble, text)",
    Reason.NO_AUDIO_STREAM: "a media file without an audio stream",
    Reason.UNSUPPORTED_CODEC: "no decoder for its codec",
    Reason.DRM: "encrypted",
    Reason.DECODE_FAILED: "nothing, or nothing but silence and errors, came out of the decoder",
    Reason.TOO_SHORT: "shorter than `ingest.min_duration`",
    Reason.UNREADABLE: "no permission, or an I/O error",
    Reason.CHANGED: "it changed or vanished while it was read",
    Reason.REMOVED: "kept out by `mousai remove`; `detail` says by which request",
    Reason.TIMEOUT: "reading it takes longer than `ingest.time_limit` allows",
    Reason.OUT_OF_MEMORY: "reading it takes more than `ingest.memory_limit`",
    Reason.CRASHED: "the process that read it died, twice",
}


def column(doc: str, unit: str = "") -> Any:
    """A field of a record with its meaning and unit."""
    return dataclasses.field(metadata={"doc": doc, "unit": unit})


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One audio file that can be used. `tracks.parquet`, sorted by path; fields that were not measured are null."""

    path: str = column("absolute path; the row's key (bytes that are not UTF-8 are shown as \\xNN)")
    raw_path: bytes = column("the path as the file system has it")
    library: str = column("the folder that was ingested")
    size: int = column("file size", "bytes")
    mtime_ns: int = column("modification time", "ns")
    id: str | None = column("hash of the demuxed audio packets, 32 hex digits: retagging keeps it")
    pcm_id: str | None = column(
        "hash of the decoded samples in 16 bits, without digital silence around them, 32 digits"
    )
    cluster: str | None = column("id that all copies of one recording share, the smallest of theirs; null if alone")
    family: str | None = column("the same for all that share half a minute: copies, excerpts, extended cuts, medleys")
    container: str | None = column("container by content, FFmpeg's name")
    codec: str | None = column("codec, FFmpeg's name")
    header_duration: float | None = column("duration that the header claims", "s")
    decoded_length: int | None = column("samples a channel that came out of the decoder", "samples at sample_rate")
    length: int | None = column("samples a channel after resampling", "samples at 48 kHz")
    sample_rate: int | None = column("sample rate of the file", "Hz")
    channels: int | None = column("channels in the file")
    mix: str | None = column('how it becomes stereo: "stereo", "doubled" (mono) or "downmixed" (by its layout)')
    peak: float | None = column("highest absolute value after resampling and mixing; 1 is full scale")
    decode_errors: int | None = column("packets that the decoder refused")
    true_peak: float | None = column("highest absolute value at and between the samples; 1 is full scale")
    loudness: float | None = column("integrated loudness; null where nothing passes the gate of -70 LUFS", "LUFS")
    loudness_range: float | None = column("loudness range; null below 3 s or the gate", "LU")
    silence_head: float | None = column("silence (below -60 dBFS) before the first sound", "s")
    silence_tail: float | None = column("silence after the last sound", "s")
    silence_within: float | None = column("silence in pauses of a second or more between them", "s")
    clipped_runs: int | None = column("runs of 3 or more samples at full scale or above; null where downmixed")
    dc: float | None = column("offset: the mean of the channel that is further from zero; 1 is full scale")
    correlation: float | None = column("of left and right, -1 to 1; null where a channel is silent")
    balance_db: float | None = column("level of left over right, within 120; null for silence", "dB")
    side_db: float | None = column("level of left - right over left + right, within 120; null for silence", "dB")
    cutoff_hz: float | None = column("where the spectrum drops most within 500 Hz, between 2 and 20 kHz", "Hz")
    cutoff_drop_db: float | None = column("by how much it drops there", "dB")
    title: str | None = column("title")
    artists: list[str] = column("artists, in the tag's order")
    album: str | None = column("album")
    album_artist: str | None = column("album artist")
    genres: list[str] = column("genres, in the tag's order")
    year: int | None = column("year of release")
    licence: str | None = column(
        'licence: the SPDX name of a Creative Commons licence, "CC-BY-SA-3.0", else as written'
    )
    consent: str | None = column("what the owner of the rights has agreed to, as written")
    raw_tags: str = column("all text tags as they were read, JSON: tag format -> key -> values")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What a recording sounds like, to find it again. `fingerprints.parquet`, sorted by id; read by ingest alone."""

    id: str = column("id of its tracks")
    times: bytes = column("when each landmark is, little-endian uint32", "frames of 32 ms")
    words: bytes = column("what the music is like there, little-endian uint32")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """One file that cannot be used, and why. `rejected.parquet`, sorted by path."""

    path: str = column("absolute path; the row's key")
    raw_path: bytes = column("the path as the file system has it")
    library: str = column("the folder that was ingested")
    size: int = column("file size", "bytes")
    mtime_ns: int = column("modification time", "ns")
    reason: str = column("reason code: " + ", ".join(Reason))
    detail: str = column("what exactly was found")


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """What is kept out: every track that has all that a row names. `removed.parquet`, sorted by request."""

    request: str = column("what was asked for, in words: one row says it, others name the recordings that it has met")
    artist: str | None = column("an artist, featured ones too, in lower case and without accents")
    album: str | None = column("an album, written likewise")
    title: str | None = column("a title, written likewise")
    location: bytes | None = column("a file, or a folder with all that lies in it, as the file system has it")
    track_id: str | None = column("id of a recording, whatever its tags and its path")
    pcm_id: str | None = column("its samples, in whatever lossless format")


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """What a metadata file said of one file; null or empty: nothing. `metadata.parquet`, sorted by path."""

    path: str = column("absolute path; the row's key")
    raw_path: bytes = column("the path as the file system has it")
    title: str | None = column("title")
    artists: list[str] = column("artists")
    album: str | None = column("album")
    album_artist: str | None = column("album artist")
    genres: list[str] = column("genres")
    year: int | None = column("year of release")
    licence: str | None = column("licence, as in tracks.parquet")
    consent: str | None = column("what the owner of the rights has agreed to")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """One fixed stretch of one track. `chunks.parquet`, sorted by split, shard and key."""

    key: str = column("track id and index: the name of its members in the tars, [0-9a-z_]+")
    track_id: str = column("id of its track")
    index: int = column("which chunk of the track, from 1")
    count: int = column("chunks in the track")
    start: int = column("first sample", "samples at 48 kHz")
    length: int = column("length that the model sees, a multiple of its divisor", "samples at 48 kHz")
    valid_length: int = column("samples that are music; the rest, if any, is padding", "samples at 48 kHz")
    split: str = column('"train" or "val"')
    group: str = column("what must stay in one split: the linked artists, albums, folders and recordings")
    shard: int = column("number of its shard within the split")


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """The split that a track was last in. `splits.parquet`, sorted by id; it also remembers tracks that are gone."""

    track_id: str = column("id of the track")
    split: str = column('"train" or "val"')


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardMember:
    """One chunk of one audio shard, failed ones too. The `.parquet` beside each tar."""

    key: str = column("the chunk's key")
    track_id: str = column("id of its track")
    index: int = column("which chunk of the track, from 1")
    count: int = column("chunks in the track")
    valid_length: int = column("samples stored", "samples at 48 kHz")
    gain: float = column("factor that the whole track was multiplied with so that nothing clips")
    offset: int = column("where the audio member's content starts in the tar; -1 if failed", "bytes")
    size: int = column("size of the audio member's content", "bytes")
    error: str | None = column("why it is missing; null if it is there")


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentMember:
    """One chunk of one latent shard. The `.parquet` beside each tar."""

    key: str = column("the chunk's key")
    track_id: str = column("id of its track")
    index: int = column("which chunk of the track, from 1")
    count: int = column("chunks in the track")
    frames: int = column("latent frames stored", "frames of 1024 samples")
    valid_frames: int = column("frames that hold music", "frames of 1024 samples")
    mean: list[float] = column("mean of each channel over the valid frames")
    std: list[float] = column("standard deviation of each channel over the valid frames")
    offset: int = column("where the .npy member's content starts in the tar", "bytes")
    size: int = column("size of the .npy member's content", "bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """What a finished tar holds; the `_stats.json` beside it, written last, is its done marker."""

    name: str = column("file name of the tar")
    split: str = column('"train" or "val"')
    num_chunks: int = column("chunks in the tar")
    num_failed: int = column("chunks that could not be made")
    duration: float = column("music in the tar", "s")
    bytes: int = column("size of the tar", "bytes")
    sha256: str = column("SHA-256 of the tar")
    table_sha256: str = column("SHA-256 of the `.parquet` beside the tar")
    plan: str = column("hash of all that the tar was made from; another hash means that it is stale")
    seal: str = column("hash of the fields above: a file that was damaged or edited does not count")


RECORDS: dict[str, type[Any]] = {
    "tracks.parquet": Track,
    "rejected.parquet": Rejected,
    "fingerprints.parquet": Fingerprint,
    "removed.parquet": Removed,
    "metadata.parquet": Override,
    "chunks.parquet": Chunk,
    "splits.parquet": Assignment,
    "shards/SPLIT/mousai-SPLIT-NNNNNN.parquet": ShardMember,
    "latents/ENCODER/SPLIT/mousai-SPLIT-NNNNNN.parquet": LatentMember,
    "*_stats.json": Shard,
}

_ARROW = {str: pa.string(), bytes: pa.binary(), int: pa.int64(), float: pa.float64()}


def schema(record: type[Any]) -> pa.Schema:
    """The Arrow schema of a record type."""
    hints = typing.get_type_hints(record)
    return pa.schema([_arrow_field(field.name, hints[field.name]) for field in dataclasses.fields(record)])


def _arrow_field(name: str, hint: Any) -> pa.Field:
    if isinstance(hint, types.UnionType):  # X | None
        (kind,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return pa.field(name, _ARROW[kind], nullable=True)
    if typing.get_origin(hint) is list:
        return pa.field(name, pa.list_(_ARROW[typing.get_args(hint)[0]]), nullable=False)
    return pa.field(name, _ARROW[hint], nullable=False)


def describe() -> str:
    """The text of `manifests/README.md`."""
    lines = [
        "# The tables",
        "",
        "Generated from `pipeline/records.py` by `make manifests`; a test holds the two together.",
        "Tables are Parquet; every table lies in the workspace's `manifests/` unless its name says otherwise.",
        "`examples/` beside this page holds a few rows of each as JSON lines.",
    ]
    for name, record in RECORDS.items():
        first, *rest = (record.__doc__ or "").split(". ", 1)
        lines += ["", f"## `{name}`: {record.__name__}", "", ". ".join([first, *rest]), ""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        for field, arrow in zip(dataclasses.fields(record), schema(record), strict=True):
            kind = f"{arrow.type}{' or null' if arrow.nullable else ''}"
            lines.append(f"| {field.name} | {kind} | {field.metadata['unit']} | {field.metadata['doc']} |")
    lines += ["", "## Reason codes of `rejected.parquet`", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {reason} | {meaning} |" for reason, meaning in REASONS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(describe(), end="")
