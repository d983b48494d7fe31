"""The efficient 1D U-Net of both stages (Moûsai, section 4.1 and Figure 2; layout as in a-unet, see docs/model.md).

Shapes in this file: B batch, C channels, T time steps at the current resolution, F time features, N text tokens,
D text features, L latent channels.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mousai.config import Level, UNetConfig


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the items of every level may look at."""

    features: Tensor  # [B, F] of the noise level, after SiLU
    latent: Tensor | None = None  # [B, L, T] at the resolution of the level that injects it
    text: Tensor | None = None  # [B, N, D]
    text_mask: Tensor | None = None  # [B, N], true at real tokens


class TimeFeatures(nn.Module):
    """Noise level [B] in [0, 1] -> features [B, F]: learned Fourier features, then an MLP whose last layer runs twice.

    The tied last layer is what the authors' package does.
    """

    def __init__(self, features: int, frequencies: int = 128) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(frequencies))
        self.first = nn.Linear(2 * frequencies + 1, features)
        self.tied = nn.Linear(features, features)

    def forward(self, sigma: Tensor) -> Tensor:
        angles = 2 * torch.pi * sigma[:, None] * self.weights
        x = torch.cat([sigma[:, None], angles.sin(), angles.cos()], dim=1)
        x = functional.gelu(self.first(x))
        for _ in range(2):
            x = functional.gelu(self.tied(x))
        return x


class ResidualBlock(nn.Module):
    """R: x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1 shortcut where the channels differ."""

    def __init__(self, in_channels: int, channels: int, *, groups: int, in_groups: int | None = None) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(in_groups or groups, in_channels)
        self.conv_1 = nn.Conv1d(in_channels, channels, 3, padding=1)
        self.norm_2 = nn.GroupNorm(groups, channels)
        self.conv_2 = nn.Conv1d(channels, channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == channels else nn.Conv1d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_1(functional.silu(self.norm_1(x)))
        h = self.conv_2(functional.silu(self.norm_2(h)))
        return cast(Tensor, self.shortcut(x) + h)


class Modulation(nn.Module):
    """M: LN(x)·(1 + scale) + shift, both from the noise level; no residual around it."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * channels)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.linear(features)[:, :, None].chunk(2, dim=1)
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)  # over channels, at each position
        normalised = (x - mean) * torch.rsqrt(variance + 1e-6)
        return normalised * (1 + cast(Tensor, scale)) + cast(Tensor, shift)


class Inject(nn.Module):
    """I: x + Conv1x1(cat[x, latent])."""

    def __init__(self, channels: int, latent_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels + latent_channels, channels, 1)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        return x + cast(Tensor, self.conv(torch.cat([x, latent.to(x.dtype)], dim=1)))


class Attention(nn.Module):
    """A and C: x + Wo·softmax(q·k / √head_features)·v over time, or over the tokens of a text.

    Queries and context have a LayerNorm each, also where the context is x itself; there is no position and no
    feed-forward.
    """

    def __init__(self, channels: int, heads: int, head_features: int, context_features: int | None = None) -> None:
        super().__init__()
        context_features = context_features or channels
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(context_features)
        self.to_q = nn.Linear(channels, heads * head_features, bias=False)
        self.to_kv = nn.Linear(context_features, 2 * heads * head_features, bias=False)
        self.to_out = nn.Linear(heads * head_features, channels, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`context` [B, N, D] defaults to x itself; `mask` [B, N] is true where it may be looked at."""
        steps = x.transpose(1, 2)  # [B, T, C]
        q = self.to_q(self.norm(steps))
        k, v = self.to_kv(self.norm_context(steps if context is None else context)).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))  # [B, heads, ·, head]
        allowed = None if mask is None else mask[:, None, None, :]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        out = self.to_out(out.transpose(1, 2).flatten(2))
        return x + cast(Tensor, out.transpose(1, 2))


class Item(nn.Module):
    """[R, M, I?, A?, C?]: what is repeated at a level, in this order."""

    def __init__(self, config: UNetConfig, level: Level) -> None:
        super().__init__()
        channels, heads = level.channels, (config.heads, config.head_features)
        self.residual = ResidualBlock(channels, channels, groups=config.groups)
        self.modulation = Modulation(channels, config.time_features)
        self.inject = Inject(channels, level.inject) if level.inject else None
        self.attention = Attention(channels, *heads) if level.attention else None
        self.cross_attention = Attention(channels, *heads, config.text_features) if level.cross_attention else None

    def forward(self, x: Tensor, given: Conditions) -> Tensor:
        x = self.modulation(self.residual(x), given.features)
        if self.inject is not None:
            assert given.latent is not None
            x = self.inject(x, given.latent)
        if self.attention is not None:
            x = self.attention(x)
        if self.cross_attention is not None:
            assert given.text is not None
            x = self.cross_attention(x, given.text, given.text_mask)
        return x


class Block(nn.Module):
    """One level around the levels inside it: x + scale·up(items(inner(items(down(x)))))."""

    def __init__(self, config: UNetConfig, depth: int, in_channels: int) -> None:
        super().__init__()
        level = config.levels[depth]
        self.factor = level.factor
        self.down = nn.Conv1d(in_channels, level.channels, level.factor, stride=level.factor)
        self.items_in = nn.ModuleList(Item(config, level) for _ in range(level.items))
        innermost = depth + 1 == len(config.levels)
        self.inner = None if innermost else Block(config, depth + 1, level.channels)
        self.items_out = nn.ModuleList(Item(config, level) for _ in range(level.items))
        self.up = nn.Conv1d(level.channels, in_channels, 3, padding=1)
        self.scale = nn.Linear(config.time_features, in_channels)
        if config.open_branches:
            nn.init.ones_(self.scale.bias)

    def forward(self, x: Tensor, given: Conditions) -> Tensor:
        h = self.down(x)
        for item in self.items_in:
            h = item(h, given)
        if self.inner is not None:
            h = self.inner(h, given)
        for item in self.items_out:
            h = item(h, given)
        if self.factor > 1:
            h = functional.interpolate(h, scale_factor=float(self.factor), mode="nearest")
        return x + cast(Tensor, self.scale(given.features)[:, :, None] * self.up(h))


class UNet(nn.Module):
    """Velocity [B, C, T] of x [B, C, T] at noise levels `sigma` [B]; T must be a multiple of `config.divisor`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time = TimeFeatures(config.time_features)
        self.outer = Block(config, 0, config.in_channels)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        *,
        latent: Tensor | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Tensor:
        """`latent` [B, L, ·] where a level injects it; `text` [B, N, D] and its mask [B, N] where levels cross-attend.

        Raises ValueError where T does not divide.
        """
        if x.shape[-1] % self.config.divisor:
            raise ValueError(f"length {x.shape[-1]} is not a multiple of {self.config.divisor}")
        features = functional.silu(self.time(sigma))  # every user of the features applies SiLU first
        given = Conditions(features=features, latent=latent, text=text, text_mask=text_mask)
        return cast(Tensor, self.outer(x, given))
