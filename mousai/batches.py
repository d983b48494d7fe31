"""What the loaders hand to the losses and to validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AudioBatch:
    """Crops of audio at 48 kHz."""

    audio: Tensor  # [B, 2, T] in [-1, 1]
    valid_length: Tensor  # [B], samples that are music; zeros follow
    track_ids: list[str]


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """Pre-encoded chunks with the prompts of one step."""

    latents: Tensor  # [B, 32, L], raw
    valid_frames: Tensor  # [B], frames that are music; zeros follow
    prompts: list[str]
    track_ids: list[str]


def others(track_ids: list[str]) -> list[int]:
    """For each example the next one of another track; where all are of one track, the one half the batch away."""
    count = len(track_ids)
    return [
        next(
            (j % count for j in range(i + 1, i + count) if track_ids[j % count] != track_ids[i]),
            (i + count // 2) % count,
        )
        for i in range(count)
    ]
