"""Counts the floating-point operations of a training step of every preset: the table `MODELS` of mousai/costs.py.

    python benchmarks/flops.py [PRESET …]

An example is one crop (DMAE) or chunk (generator) of the preset's length. Forward passes are counted by PyTorch,
without data where that can be; a training step is three of them, forward and backward.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mousai.config import Preset
from mousai.dmae import DMAE
from mousai.generator import Generator
from mousai.params import count
from mousai.presets import PRESETS


def forward_passes(preset: Preset) -> tuple[int, int, int]:
    """FLOPs of encoder, DMAE (encoder and U-Net) and generator for one example each."""
    length, frames = preset.train_dmae.length, preset.train_generator.length // preset.dmae.hop
    with torch.device("cpu" if preset.dmae.envelope.bands else "meta"):  # the envelope's autocast knows no meta device
        dmae = DMAE(preset.dmae).eval()
        audio, level = torch.zeros(1, 2, length), torch.full((1,), 0.5)
    with torch.device("meta"):  # on a CPU, attention would not be counted
        generator = Generator(preset.generator).eval()
        latents = torch.zeros(1, preset.generator.unet.in_channels, frames)
        text = torch.zeros(1, preset.generator.text_length, preset.generator.unet.text_features)
        mask, sigma = torch.ones(text.shape[:2], dtype=torch.bool), torch.zeros(1)
    return (
        _count(lambda: dmae.encode(audio)),
        _count(lambda: dmae.velocity(audio, level, dmae.encode(audio))),
        _count(lambda: generator.velocity(latents, sigma, text, mask)),
    )


def _count(run: Callable[[], Any]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def main() -> None:
    for name in sys.argv[1:] or PRESETS:
        preset = PRESETS[name]
        with torch.device("meta"):
            sizes = count(DMAE(preset.dmae)), count(Generator(preset.generator))
        flops = ", ".join(f"{each / 1e9:.4g}e9" for each in forward_passes(preset))
        print(f'    "{name}": Model({flops}, {sizes[0]:_}, {sizes[1]:_}),')


if __name__ == "__main__":
    main()
