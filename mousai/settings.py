"""What `mousai.toml` can set of the stages that know no models: paths and thresholds, each with its unit."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the stages leave their output."""

    manifests: str = "manifests"
    shards: str = "shards"
    latents: str = "latents"
    runs: str = "runs"
    generated: str = "generated"
    exports: str = "exports"

    def __post_init__(self) -> None:
        for name, path in vars(self).items():
            if "://" in path:
                raise ValueError(f"{name} is {path!r}: folders only, URLs are not read yet")


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """What keeps a file out."""

    min_duration: float = 1.0  # seconds
    time_limit: float = 60.0  # seconds of work on a file, and as many again for each 4 MB of it; 0: no limit
    memory_limit: int = 2000  # MB that reading a file may take; 0: no limit

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, and should be 0 or more")


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """Thresholds that keep a track out of training: it stays in `tracks.parquet`, and out of the plan of the chunks.

    Each has its reason code in `pipeline/selection.py`. The defaults leave out what nobody would train on; inf, or
    -inf for a minimum, switches a threshold off.
    """

    max_errors_per_minute: float = 60.0  # packets of a minute of music that the decoder refused
    max_missing_share: float = 1.0  # of the duration that the header claims
    max_silence_share: float = 0.9  # of the track
    min_loudness: float = -60.0  # LUFS
    max_clips_per_minute: float = math.inf  # runs of clipped samples
    max_dc: float = 0.5  # offset; 1 is full scale
    max_balance_db: float = 40.0  # level of one channel over the other
    min_correlation: float = -0.95  # of left and right
    min_side_db: float = -math.inf  # level of left - right over left + right
    min_cutoff_hz: float = 0.0  # where the spectrum ends
    only_licences: tuple[str, ...] = ()  # names or patterns, "CC0" or "CC-BY*"; none: any licence, and no licence
    require_consent: bool = False  # whether only tracks are trained on whose consent says yes
    keep_duplicates: bool = False  # whether all copies of one recording are trained on, and not the best one alone

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{name} is nan, and should be a number; inf or -inf switches it off")
            if name.startswith("max_") and value < 0:
                raise ValueError(f"{name} is {value}, and should be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How audio is stored."""

    audio_format: Literal["flac", "wav"] = "flac"
