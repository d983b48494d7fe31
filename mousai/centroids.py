"""A classifier that nobody can doubt: the nearest centroid on means and standard deviations.

Shapes: N examples, D features, L latent frames, T samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mousai.mel import log_mel


@dataclass(frozen=True, kw_only=True)
class Centroids:
    """One point a class, in features scaled to unit variance over the examples it was made from."""

    names: tuple[str, ...]
    points: Tensor  # [classes, D]
    mean: Tensor  # [D]
    std: Tensor  # [D]

    def classify(self, features: Tensor) -> list[str]:
        """The class of each of [N, D]."""
        distances = torch.cdist((features - self.mean) / self.std, self.points)
        return [self.names[i] for i in distances.argmin(dim=1).tolist()]


def make_centroids(features: Tensor, labels: Sequence[str]) -> Centroids:
    """The centroids of [N, D] by label."""
    names = tuple(sorted(set(labels)))
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    scaled = (features - mean) / std
    points = [scaled[[label == name for label in labels]].mean(dim=0) for name in names]
    return Centroids(names=names, points=torch.stack(points), mean=mean, std=std)


def latent_features(latents: Tensor, valid_frames: Tensor | None = None) -> Tensor:
    """[N, 2C]: mean and std of each channel of latents [N, C, L] over time."""
    lengths = [latents.shape[-1]] * len(latents) if valid_frames is None else valid_frames.tolist()
    return torch.stack([_statistics(latent[:, :length]) for latent, length in zip(latents, lengths, strict=True)])


def mel_features(audio: Tensor) -> Tensor:
    """[N, 2M]: mean and std of each log-mel band of [N, 2, T], each example brought to the same loudness first."""
    loudness = audio.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-4)
    return torch.stack([_statistics(log_mel(example)) for example in 0.1 * audio / loudness])


def _statistics(rows: Tensor) -> Tensor:
    return torch.cat([rows.mean(dim=-1), rows.std(dim=-1)])


def confusion(names: Sequence[str], asked: Sequence[str], heard: Sequence[str]) -> list[list[int]]:
    """Counts: a row for each class asked for, a column for each class recognised."""
    pairs = list(zip(asked, heard, strict=True))
    return [[pairs.count((row, column)) for column in names] for row in names]


def count_right(heard: Sequence[str], true: Sequence[str]) -> int:
    """In how many places the two agree."""
    return sum(a == b for a, b in zip(heard, true, strict=True))


def chance_of(right: int, total: int, classes: int) -> float:
    """The probability that guessing among `classes` is right at least `right` times of `total`."""
    p = 1 / classes
    return sum(math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(right, total + 1))
