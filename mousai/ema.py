"""The exponential moving average of the weights, which is what encodes and generates (section 5.2)."""

import copy
import math

import torch
from torch import nn


def decay_at(update: int, beta: float, power: float) -> float:
    """Decay of update number `update` (from 1): 1 - (1 + n)^-power, at most `beta`."""
    return min(beta, 1 - math.pow(1 + update, -power))


def averaged_copy(model: nn.Module) -> nn.Module:
    """A frozen copy of `model` to average into."""
    ema = copy.deepcopy(model).eval()
    return ema.requires_grad_(False)


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the weights of `ema` towards those of `model` in place; buffers (BatchNorm's statistics) are copied."""
    torch._foreach_lerp_(list(ema.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
    for ours, theirs in zip(ema.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)
