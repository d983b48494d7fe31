"""How many parameters a preset has, counted on the meta device: nothing is allocated."""

import torch
from torch import nn

from mousai.config import Preset
from mousai.dmae import DMAE
from mousai.errors import UserError
from mousai.generator import Generator
from mousai.text import load_text_model


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_parameters(preset: Preset) -> dict[str, int | None]:
    """Part -> parameters, with the paper's totals; None where the text encoder's configuration cannot be read."""
    with torch.device("meta"):
        dmae, generator = DMAE(preset.dmae), Generator(preset.generator)
        try:
            text: int | None = count(load_text_model(preset.generator.text_encoder, weights=False))
        except UserError:
            text = None
    name = preset.generator.text_encoder
    total = None if text is None else count(dmae) + count(generator) + text
    return {
        "DMAE: U-Net": count(dmae.unet),
        "DMAE: stem and head": count(dmae.stem) + count(dmae.head),
        "DMAE: magnitude encoder": count(dmae.encoder),
        "DMAE in all": count(dmae),
        "generator: U-Net": count(generator.unet),
        "generator: learned text mask": generator.null_text.numel(),
        "generator in all": count(generator),
        f"text encoder {name}, frozen": text,
        "generator with its frozen parts": total,
    }
