"""The diffusion magnitude autoencoder: audio -> latent -> audio (Moûsai, section 4.2).

Shapes in this file: B batch, T audio samples a channel, F STFT frames, L latent frames of `config.hop` samples.
"""

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mousai.config import DMAEConfig, EncoderConfig
from mousai.diffusion import noise_levels, noise_place
from mousai.envelope import MDCT, Envelope, angles, scales
from mousai.samplers import ddim, starting_noise
from mousai.unet import ResidualBlock, UNet

LOG_FLOOR = 1e-4  # magnitude added before the log: 98 dB below the 8 of a full-scale sine
LOG_MEAN, LOG_STD = -4.5, 2.5  # bring log magnitudes of music near 0 ± 1: see docs/model.md
LATENT_SPREAD = 0.8  # std of a normalised channel before the tanh: its values stay where tanh bends but is not flat


class MagnitudeEncoder(nn.Module):
    """Audio [B, 2, T] -> latent [B, 32, L] in (-1, 1); phase is never computed."""

    window: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        bins = 2 * (config.n_fft // 2 + 1)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        layers: list[nn.Module] = [ResidualBlock(bins, channels, groups=8, in_groups=1)]
        for stride, blocks in config.downs:
            layers.append(nn.Conv1d(channels, channels, 5, stride=stride, padding=2))
            layers += [ResidualBlock(channels, channels, groups=8) for _ in range(blocks)]
        layers.append(nn.Conv1d(channels, config.latent_channels, 1))
        self.layers = nn.Sequential(*layers)
        self.bins = Standardise(bins) if config.standardise else None
        self.whitening = Whitening(config.latent_channels) if config.whiten else None

    def magnitude(self, audio: Tensor) -> Tensor:
        """STFT magnitudes [B, 2·bins, F] of audio [B, 2, T], scaled by 1/√n_fft; F = T / hop."""
        spectrum = torch.stft(
            audio.float().flatten(0, 1), self.config.n_fft, self.config.hop, window=self.window,
            center=True, pad_mode="reflect", normalized=True, return_complex=True,
        )  # fmt: skip
        magnitude: Tensor = spectrum.abs().unflatten(0, (len(audio), -1)).flatten(1, 2)
        if self.config.magnitude == "log":
            magnitude = ((magnitude + LOG_FLOOR).log() - LOG_MEAN) / LOG_STD
        return magnitude if self.bins is None else cast(Tensor, self.bins(magnitude))

    def forward(self, audio: Tensor) -> Tensor:
        if self.whitening is None:
            return torch.tanh(self.layers(self.magnitude(audio)))
        with torch.autocast(audio.device.type, enabled=False):  # whitening magnifies what is small, rounding as well
            return torch.tanh(LATENT_SPREAD * self.whitening(self.layers(self.magnitude(audio))))


class Standardise(nn.Module):
    """Rows of [B, R, F] with mean 0 and variance 1, by running statistics."""

    mean: Tensor
    variance: Tensor

    def __init__(self, rows: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(rows, 1))
        self.register_buffer("variance", torch.ones(rows, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(x.mean(dim=(0, 2))[:, None], self.momentum)
            self.variance.lerp_((x - self.mean).square().mean(dim=(0, 2))[:, None], self.momentum)
        return (x - self.mean) * torch.rsqrt(self.variance + 1e-6)


class Whitening(nn.Module):
    """Channels [B, C, L] with mean 0, variance 1 and no correlation, by running statistics (ZCA).

    Without it the encoder's channels soon all say the same or saturate the tanh (docs/model.md). Gradients do not pass
    through the statistics, so that an example's output does not depend on its batch.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, channels: int, momentum: float = 0.02, ridge: float = 1e-4) -> None:
        super().__init__()
        self.momentum, self.ridge = momentum, ridge  # ridge: of the mean variance; directions below it stay small
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("covariance", torch.eye(channels))

    @torch.no_grad()
    def observe(self, h: Tensor, weight: float) -> None:
        """Move the statistics towards those of `h` [B, C, L]; weight 1 forgets what was before."""
        vectors = h.float().transpose(0, 1).flatten(1)
        self.mean.lerp_(vectors.mean(dim=1), weight)
        centred = vectors - self.mean[:, None]
        with torch.autocast(h.device.type, enabled=False):
            self.covariance.lerp_(centred @ centred.T / centred.shape[1], weight)

    def forward(self, h: Tensor) -> Tensor:
        if self.training:
            self.observe(h.detach(), self.momentum)
        ridge = self.ridge * self.covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(self.covariance)
        with torch.autocast(h.device.type, enabled=False):
            matrix: Tensor = (vectors * (values.clamp(min=0) + ridge).rsqrt()) @ vectors.T
            return matrix @ (h.float() - self.mean[:, None])


class DMAE(nn.Module):
    """Encoder, U-Net and the learned patch stem between audio samples and U-Net channels."""

    def __init__(self, config: DMAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.unet.in_channels
        self.encoder = MagnitudeEncoder(config.encoder)
        self.stem = nn.Conv1d(2, channels, config.patch, stride=config.patch, bias=False)
        self.unet = UNet(config.unet)
        self.head = nn.ConvTranspose1d(channels, 2, config.patch, stride=config.patch, bias=False)
        bands = config.envelope.bands
        self.mdct = MDCT(bands) if bands else None
        self.envelope = Envelope(config.envelope, config.encoder.latent_channels, config.hop) if bands else None
        if config.stem_init == "dct":
            basis = stereo_dct(config.patch)
            if channels != len(basis):
                raise ValueError(f"a DCT stem has {len(basis)} channels, not {channels}")
            with torch.no_grad():
                self.stem.weight.copy_(basis)
                self.head.weight.copy_(basis)
        if self.envelope is not None:
            nn.init.zeros_(self.head.weight)

    def keep_statistics(self) -> None:
        """Leave the running statistics as they are from here on: other ones turn a trained latent into another."""
        for module in (self.encoder.bins, self.encoder.whitening, self.envelope):
            if module is not None:
                module.momentum = 0.0

    @torch.no_grad()
    def settle(self, audio: Tensor) -> None:
        """Take the statistics of latents and powers from [B, 2, T]: those of averaged weights are others."""
        whitening = self.encoder.whitening
        if whitening is not None and whitening.momentum:
            hidden = [self.encoder.layers(self.encoder.magnitude(each[None])) for each in audio]
            whitening.observe(torch.cat(hidden), 1.0)
        if self.mdct is not None and self.envelope is not None:
            pairs = [(self.envelope(self.encode(each[None])), self.mdct(self.to_signal(each[None]))) for each in audio]
            self.envelope.settle(*(torch.cat(each) for each in zip(*pairs, strict=True)))

    def encode(self, audio: Tensor) -> Tensor:
        """Audio [B, 2, T] in [-1, 1] -> latent [B, 32, T / hop]; T must be a multiple of `config.divisor`."""
        return cast(Tensor, self.encoder(audio))

    def velocity(self, x: Tensor, sigma: Tensor, latent: Tensor) -> Tensor:
        """Velocity [B, 2, T] of a noised signal [B, 2, T] at noise levels [B], given the latent [B, 32, L]."""
        if self.mdct is None or self.envelope is None:
            return self._network(x, sigma, latent)
        into, skip, out = scales(self.envelope(latent), sigma)
        coefficients = self.mdct(x)
        return self.mdct.inverse(skip * coefficients + out * self.turn(into * coefficients, sigma, latent))

    def turn(self, x: Tensor, sigma: Tensor, latent: Tensor) -> Tensor:
        """The derivative of MDCT coefficients of unit variance [B, 2, F, K] by their angle, see `envelope.angles`."""
        assert self.mdct is not None
        return -cast(Tensor, self.mdct(self._network(self.mdct.inverse(x), sigma, latent)))

    def _network(self, x: Tensor, sigma: Tensor, latent: Tensor) -> Tensor:
        place = noise_place(sigma, self.config.noise_levels)
        return cast(Tensor, self.head(self.unet(self.stem(x), place, latent=latent)))

    def decode(self, latent: Tensor, seeds: Sequence[int], steps: int) -> Tensor:
        """Latent [B, 32, L] -> audio [B, 2, L·hop] by DDIM from the noise that `seeds` (one an example) name.

        Any L works: the latent is padded to the model's divisor by repeating its last frame, and the audio trimmed.
        """
        length = latent.shape[-1] * self.config.hop
        padding = -length % self.config.divisor
        padded = functional.pad(latent, (0, padding // self.config.hop), mode="replicate")
        noise = starting_noise(seeds, 2, length + padding, latent.device)
        return self.to_audio(self._sample(noise, padded, steps))[..., :length]

    def _sample(self, noise: Tensor, latent: Tensor, steps: int) -> Tensor:
        """The signal [B, 2, T] that `noise` leads to.

        With preconditioning a step is taken in each coefficient's own angle: what the powers know is then exact at any
        number of steps, where DDIM loses 8 dB of it at 5 steps and 2 dB at 50.
        """
        levels = self.config.noise_levels
        if self.mdct is None or self.envelope is None:
            return ddim(lambda x, sigma: self.velocity(x, sigma, latent), noise, steps, levels)
        power = self.envelope(latent)
        sigmas = noise_levels(steps, levels, noise.device)[:, None].expand(-1, len(noise))
        x = self.mdct(noise)
        for sigma, following in itertools.pairwise(sigmas):
            x = x + (angles(power, following) - angles(power, sigma)) * self.turn(x, sigma, latent)
        return self.mdct.inverse(power.sqrt() * x)

    def to_signal(self, audio: Tensor) -> Tensor:
        """Audio -> the signal that is diffused, both [B, 2, T]: gain and pre-emphasis; the paper has neither."""
        if self.config.pre_emphasis:
            audio = audio - self.config.pre_emphasis * functional.pad(audio, (1, 0))[..., :-1]
        return self.config.gain * audio

    def to_audio(self, signal: Tensor) -> Tensor:
        """The inverse of `to_signal`."""
        if self.config.pre_emphasis:
            taps = 512  # 0.9^512 is below 1e-23: as good as the infinite response
            powers = torch.arange(taps - 1, -1, -1, device=signal.device, dtype=signal.dtype)
            kernel = (self.config.pre_emphasis**powers).expand(2, 1, taps)
            with torch.autocast(signal.device.type, enabled=False):  # 8 bits of mantissa would be heard
                signal = functional.conv1d(functional.pad(signal, (taps - 1, 0)), kernel, groups=2)
        return signal / self.config.gain


def stereo_dct(patch: int) -> Tensor:
    """[2·patch, 2, patch]: the orthonormal DCT-II of mid and of side, as filters over the two channels."""
    n = torch.arange(patch, dtype=torch.float64)
    basis = torch.cos(math.pi / patch * (n + 0.5) * n[:, None]) * math.sqrt(2 / patch)
    basis[0] /= math.sqrt(2)
    mid, side = torch.stack([basis, basis], dim=1), torch.stack([basis, -basis], dim=1)
    return (torch.cat([mid, side]) / math.sqrt(2)).float()
