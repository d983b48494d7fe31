"""Samplers as free functions: from noise to data along the ODE that a velocity network describes.

Shapes in this file: B batch, C channels, T time steps.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from mousai.diffusion import Velocity, alpha_beta, noise_levels


def starting_noise(seeds: Sequence[int], channels: int, length: int, device: torch.device) -> Tensor:
    """Gaussian noise [B, channels, length], one seed an example: the same on any device and in any batch."""
    draws = [torch.randn(channels, length, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws).to(device)


def ddim(network: Velocity, noise: Tensor, steps: int, levels: str = "angle") -> Tensor:
    """DDIM (Song et al., 2021; Moûsai, equations 2-5): `noise` [B, C, T] to data in `steps` network calls.

    Noise levels are evenly spaced in what `levels` names (see `noise_level`); nothing is clipped.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    sigmas = noise_levels(steps, levels, noise.device)
    x = noise
    for sigma, following in itertools.pairwise(sigmas):
        v = network(x, sigma.expand(len(x)))  # (2)
        alpha, beta = alpha_beta(sigma)
        x_0 = alpha * x - beta * v  # (3)
        eps = beta * x + alpha * v  # (4)
        alpha, beta = alpha_beta(following)
        x = alpha * x_0 + beta * eps  # (5)
    return x


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance (Ho & Salimans, 2022): unconditional + scale·(conditional - unconditional)."""
    if scale == 1:
        return conditional

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        without = unconditional(x, sigma)
        return without + scale * (conditional(x, sigma) - without)

    return network
