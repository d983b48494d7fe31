"""The text-conditional latent generator (Moûsai, sections 4.3 and 4.4).

Shapes in this file: B batch, L latent frames, N text tokens, D text features.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mousai.config import GeneratorConfig
from mousai.samplers import ddim, guided, starting_noise
from mousai.unet import UNet


class Generator(nn.Module):
    """The U-Net on latents, the learned mask that stands for "no text", and the statistics that whiten latents."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.unet.in_channels
        self.unet = UNet(config.unet)
        self.null_text = nn.Parameter(torch.randn(config.text_length, config.unet.text_features))
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Remember the training latents' per-channel mean and std [32]; used only where `config.whiten` is on."""
        if self.config.whiten:
            self.latent_mean.copy_(mean)
            self.latent_std.copy_(std.clamp(min=1e-4))  # a dead channel stays finite

    def whiten(self, latent: Tensor) -> Tensor:
        """Raw latents [B, 32, L] -> what is diffused."""
        return (latent - self.latent_mean[:, None]) / self.latent_std[:, None]

    def unwhiten(self, x: Tensor) -> Tensor:
        """The inverse of `whiten`."""
        return x * self.latent_std[:, None] + self.latent_mean[:, None]

    def velocity(self, x: Tensor, sigma: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Velocity [B, 32, L] at noise levels [B], given text [B, N, D] and its mask [B, N]."""
        return cast(Tensor, self.unet(x, sigma, text=text, text_mask=mask))

    def without_text(self, text: Tensor, mask: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Text and mask with the learned mask in place of the examples where `dropped` [B] is true.

        The learned mask fills all N positions, and all are attended.
        """
        where = dropped[:, None]
        return torch.where(where[:, :, None], self.null_text.to(text.dtype), text), mask | where

    def sample(
        self, text: Tensor, mask: Tensor, frames: int, seeds: Sequence[int], *, steps: int, cfg: float
    ) -> Tensor:
        """Raw latents [B, 32, frames] by DDIM with classifier-free guidance of scale `cfg`, from one seed an example.

        Any number of frames works: the U-Net sees the next multiple of its divisor, and the result is trimmed.
        """
        padded = frames + -frames % self.config.unet.divisor
        noise = starting_noise(seeds, self.config.unet.in_channels, padded, text.device)
        null, null_mask = self.without_text(text, mask, torch.ones(len(text), dtype=torch.bool, device=text.device))
        network = guided(
            lambda x, sigma: self.velocity(x, sigma, text, mask),
            lambda x, sigma: self.velocity(x, sigma, null, null_mask),
            cfg,
        )
        return self.unwhiten(ddim(network, noise, steps))[..., :frames]
