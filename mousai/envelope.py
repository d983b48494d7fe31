"""Preconditioning by the latent: the decoder first learns how loud every band is, the U-Net only what is left.

Beyond the paper. Karras et al. (2022) scale what a diffusion network sees and says by one number for all data; here
every coefficient of an orthogonal transform (the MDCT) has its own, from a power that a small network predicts from
the latent. Where a band is silent, noise is then removed by construction, and the U-Net's input and target have unit
variance at every noise level.

Shapes in this file: B batch, T samples, L latent frames, K bands, F = T / K + 1 MDCT frames.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mousai.audio import SAMPLE_RATE
from mousai.config import EnvelopeConfig
from mousai.diffusion import alpha_beta

MEDIAN_BIAS = 0.237  # of a mean of three squared normal variables: log of 1 over its median
FAR = 6.0  # nats, 26 dB: a moment that is missed by more counts as missed by so much
POWER_FLOOR = 1e-8  # of a coefficient of the diffused signal: 80 dB below unit variance
REGIONS = 80  # of the mel scale, over which powers are compared as sums
SPANS = (1, 5, 17)  # MDCT frames over which as well: at 512 bands 11, 53 and 181 ms


class MDCT(nn.Module):
    """Audio [B, 2, T] -> coefficients [B, 2, F, K] of mid and side, and back; T is a multiple of K.

    The transform is orthogonal (Princen & Bradley, 1986; sine window), so that white noise stays white.
    """

    basis: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        n = torch.arange(2 * bands, dtype=torch.float64)[:, None] + 0.5
        k = torch.arange(bands, dtype=torch.float64) + 0.5
        window = torch.sin(math.pi / (2 * bands) * n) * math.sqrt(2 / bands)
        basis = window * torch.cos(math.pi / bands * (n + bands / 2) * k)
        self.register_buffer("basis", basis.float(), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        padded = functional.pad(mid_side(audio.float()), (self.bands, self.bands))
        with torch.autocast(audio.device.type, enabled=False):  # 8 bits of mantissa would be heard
            return padded.unfold(-1, 2 * self.bands, self.bands) @ self.basis

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Audio [B, 2, T] of coefficients [B, 2, F, K]: exact after `forward`."""
        with torch.autocast(coefficients.device.type, enabled=False):
            earlier, later = (coefficients @ self.basis.T).chunk(2, dim=-1)
        return mid_side((earlier[..., 1:, :] + later[..., :-1, :]).flatten(-2))


def mid_side(audio: Tensor) -> Tensor:
    """Left and right -> mid and side, or the other way: [B, 2, T], a rotation."""
    left, right = audio.unbind(dim=1)
    return torch.stack([left + right, left - right], dim=1) * math.sqrt(0.5)


class Scales(NamedTuple):
    """What coefficients are multiplied by: v = skip·x + out·turn(into·x); each [B, 2, F, K]."""

    into: Tensor
    skip: Tensor
    out: Tensor


def scales(power: Tensor, sigma: Tensor) -> Scales:
    """Scales for data of variance `power` [B, 2, F, K] at noise levels `sigma` [B].

    skip·x is the best linear guess of the velocity and out the std of what is left; both stay finite at any level.
    """
    alpha, beta = (weight[:, None, None, None] for weight in alpha_beta(sigma))
    variance = alpha.square() * power + beta.square()
    return Scales(variance.rsqrt(), alpha * beta * (1 - power) / variance, (power / variance).sqrt())


def angles(power: Tensor, sigma: Tensor) -> Tensor:
    """Where coefficients of variance `power` [B, 2, F, K] stand at noise levels [B]: 0 is data, pi/2 is noise.

    Divided by its std at that level, a coefficient is cos(angle)·clean/√power + sin(angle)·noise: the quarter circle of
    section 3.2, walked by every coefficient at its own time.
    """
    alpha, beta = (weight[:, None, None, None] for weight in alpha_beta(sigma))
    return torch.atan2(beta, alpha * power.sqrt())


class Envelope(nn.Module):
    """Latent [B, 32, L] -> variance [B, 2, F, K] of the diffused signal's MDCT coefficients, mid and side."""

    level: Tensor
    correction: Tensor
    regions: Tensor  # see `mel_regions`

    def __init__(self, config: EnvelopeConfig, latent_channels: int, hop: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.shape = (2, hop // config.bands, config.bands)  # of one latent frame
        layers: list[nn.Module] = [nn.Conv1d(latent_channels, config.channels, 3, padding=1), nn.SiLU()]
        for _ in range(config.blocks):
            layers.append(_Residual(config.channels))
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv1d(config.channels, math.prod(self.shape), 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))
        self.register_buffer("level", torch.zeros(2, 1, config.bands))  # log of the mean power, a running statistic
        self.register_buffer("correction", torch.zeros(2, 1, config.bands))  # see `settle`
        self.register_buffer("regions", mel_regions(config.bands), persistent=False)

    def observe(self, coefficients: Tensor) -> None:
        """Move the bands' mean levels towards those of [B, 2, F, K]."""
        level = (coefficients.detach().square().mean(dim=(0, 2)) + POWER_FLOOR).log()[:, None]
        self.level.lerp_(level, 1.0 if not self.level.any() else self.momentum)

    @torch.no_grad()
    def settle(self, power: Tensor, coefficients: Tensor) -> None:
        """Shift every band, so that noise of predicted powers [N, 2, F, K] is on average as loud as these coefficients.

        On average in dB. Averaged weights predict powers that are up to 3 dB off, although those of every step they
        average are not.
        """
        if self.level.any():
            noise = torch.randn(power.shape, generator=torch.Generator().manual_seed(0)).to(power)
            missed = local_power(coefficients).log() - local_power(power.sqrt() * noise).log()
            self.correction += missed.clamp(-FAR, FAR).mean(dim=(0, 2))[:, None]

    def forward(self, latent: Tensor) -> Tensor:
        h = self.last(self.layers(latent)).float()
        log_power = h.transpose(1, 2).unflatten(2, self.shape).permute(0, 2, 1, 3, 4).flatten(2, 3)
        log_power = (
            torch.cat([log_power, log_power[:, :, -1:]], dim=2) + self.level + self.correction
        )  # T / K + 1 frames
        return log_power.clamp(max=20).exp() + POWER_FLOOR

    def weigh(self, error: Tensor) -> Tensor:
        """The mean of errors [B, 2, F, K] by frame [B, F], each band as wide as on the mel scale."""
        width = self.regions.sum(dim=1)
        return (error * (width / width.mean())).mean(dim=(1, 3))

    def loss(self, power: Tensor, coefficients: Tensor) -> Tensor:
        """Distance of predicted powers to coefficients, both [B, 2, F, K]; [B, F].

        In the logarithm, since a likelihood is ruled by the rare loud moment and leaves quiet ones far too loud. First
        coefficient by coefficient, then summed over regions of the mel scale and spans of time: what is uncertain in
        detail is certain in the sum, and medians of single coefficients alone leave a band with few loud tones too
        quiet.
        """
        target = local_power(coefficients)
        total = self.weigh((power.log() - target.log() - MEDIAN_BIAS).abs())
        for span in SPANS:
            sums = (_over_frames(each @ self.regions, span).log() for each in (power, coefficients.square()))
            total = total + (next(sums) - next(sums)).abs().mean(dim=(1, 3))
        return total


class _Residual(nn.Module):
    """x + conv(SiLU(conv(x))), three frames wide each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1), nn.SiLU(), nn.Conv1d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.layers(functional.silu(x)))


def local_power(coefficients: Tensor) -> Tensor:
    """Power of coefficients [B, 2, F, K], each the mean of three frames: one alone says little, phase decides."""
    return _over_frames(coefficients.square(), 3)


def _over_frames(power: Tensor, span: int) -> Tensor:
    """The mean of [B, 2, F, K] over `span` frames around each, an odd number; at the ends over those that are there."""
    pooled = functional.avg_pool2d(power, (span, 1), stride=1, padding=(span // 2, 0), count_include_pad=False)
    return pooled + POWER_FLOOR


def mel_regions(bands: int, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """[bands, R]: what share of its region, one of the mel scale's, each MDCT band stands for; columns sum to one.

    R is REGIONS, less where bands are too wide to fall into each. Row sums fall like the derivative of the mel scale.
    """
    centres = (torch.arange(bands, device="cpu") + 0.5) / bands  # values are needed, of a model on "meta" as well
    mel = torch.log10(1 + centres * sample_rate / 1400) / math.log10(1 + sample_rate / 1400)  # in [0, 1]
    shares = functional.one_hot((mel * REGIONS).long(), REGIONS).float()
    shares = shares[:, shares.any(dim=0)]
    return shares / shares.sum(dim=0)
