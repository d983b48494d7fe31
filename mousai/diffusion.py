"""The v-objective (Moûsai, section 3.2; Salimans & Ho, 2022) and the losses that a network must beat.

Shapes in this file: B batch, C channels, T time steps (audio samples or latent frames).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

LEVELS = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))  # noise levels at which held-out loss is measured

LOG_SNR = (-8.0, 16.0)  # log of the power ratio of signal and noise, at the ends of "log_snr"

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x [B, C, T], sigma [B]) -> v [B, C, T]


def alpha_beta(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise weights at noise level `sigma` in [0, 1]: the quarter circle."""
    phi = sigma * (math.pi / 2)
    return torch.cos(phi), torch.sin(phi)


def noise_level(place: Tensor, kind: str) -> Tensor:
    """Noise levels sigma at `place` in [0, 1], 1 the noisiest: the paper's "angle" takes them as they are.

    "log_snr" spaces them evenly in the logarithm of the signal-to-noise ratio (Kingma & Gao, 2023), down to where a
    band 60 dB below the loudest is still heard: a linear schedule has next to nothing there.
    """
    if kind == "angle":
        return place
    low, high = LOG_SNR
    return torch.atan(torch.exp((place * (high - low) - high) / 2)) * (2 / math.pi)


def noise_place(sigma: Tensor, kind: str) -> Tensor:
    """The inverse of `noise_level`, clamped to [0, 1]."""
    if kind == "angle":
        return sigma
    low, high = LOG_SNR
    log_snr = -2 * torch.tan((sigma * (math.pi / 2)).clamp(1e-6, math.pi / 2 - 1e-6)).log()
    return ((high - log_snr) / (high - low)).clamp(0, 1)


def noise_levels(steps: int, kind: str, device: torch.device) -> Tensor:
    """[steps + 1]: where a sampler stops on its way from noise to data; the last is 0."""
    if kind == "angle":
        return torch.linspace(1, 0, steps + 1, device=device)
    places = torch.linspace(1, 0, steps, device=device) if steps > 1 else torch.ones(1, device=device)
    return torch.cat([noise_level(places, kind), torch.zeros(1, device=device)])


def noised(x_0: Tensor, eps: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """x at level `sigma` [B] and its velocity: alpha·x_0 + beta·eps and alpha·eps - beta·x_0, both [B, C, T].

    The velocity is the derivative of x along phi; the paper prints x_sigma for x_0 in it, a typo.
    """
    alpha, beta = (weight[:, None, None] for weight in alpha_beta(sigma))
    return alpha * x_0 + beta * eps, alpha * eps - beta * x_0


def v_loss(network: Velocity, x_0: Tensor, eps: Tensor, sigma: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared error of the velocity (equation 1), one value per example [B].

    `valid` [B, T] is 1 where there is data; the rest of an example does not count.
    """
    x, v = noised(x_0, eps, sigma)
    error = (network(x, sigma).float() - v).square().mean(dim=1)
    if valid is None:
        return error.mean(dim=1)
    return (error * valid).sum(dim=1) / valid.sum(dim=1)


def valid_mask(valid_length: Tensor, x: Tensor) -> Tensor:
    """[B, T]: 1 on the valid samples or frames of x [B, C, T], else 0."""
    steps = torch.arange(x.shape[-1], device=x.device)
    return (steps < valid_length.to(x.device)[:, None]).float()


def wiener_loss(power: Tensor, sigma: Tensor) -> Tensor:
    """The least v-loss of any linear predictor for stationary data, averaged over frequencies; shape of `sigma`.

    `power` [F] is the data's power spectrum, scaled so that its mean is the variance. With x = alpha·x_0 + beta·eps
    the error at a frequency of power S is S / (alpha²·S + beta²). For white data the predictor knows one
    number only, and its loss averaged over sigma in [0, 1] is the data's std.
    """
    alpha, beta = (weight[..., None] for weight in alpha_beta(sigma))
    return (power / (alpha**2 * power + beta**2)).mean(dim=-1)
