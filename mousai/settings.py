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
    """Thresholds that keep a file out."""

    min_duration: float = 1.0  # seconds

    def __post_init__(self) -> None:
        if not 0 <= self.min_duration < math.inf:
            raise ValueError(f"min_duration is {self.min_duration}, and should be 0 or more")


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """Thresholds that keep a track out of training: it stays in `tracks.parquet`, and out of the plan of the chunks.

    Each has its reason code in `pipeline/selection.py`; inf switches one off.
    """

    max_errors_per_minute: float = 60.0  # packets of a minute of music that the decoder refused
    keep_duplicates: bool = False  # whether all copies of one recording are trained on, and not the best one alone

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"{name} is {value}, and should be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How audio is stored."""

    audio_format: Literal["flac", "wav"] = "flac"
