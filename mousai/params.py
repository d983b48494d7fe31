"""How many parameters a preset has, counted on the meta device: nothing is allocated."""

import torch
from torch import nn

from mousai.config import Preset
from mousai.dmae import DMAE
from mousai.errors import UserError
from mousai.generator import Generator
from mousai.text import load_text_model

T5_BASE = "google-t5/t5-base"  # its dimensions are public: it is counted also where its files cannot be fetched


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _count_text(name: str) -> int | None:
    if name == T5_BASE:
        from transformers import T5Config, T5EncoderModel

        return count(T5EncoderModel(T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, vocab_size=32128)))
    try:
        return count(load_text_model(name, weights=False))
    except UserError:
        return None


def count_parameters(preset: Preset) -> dict[str, int | None]:
    """Part -> parameters, with the paper's totals; None where the text encoder's configuration cannot be read."""
    with torch.device("meta"):
        dmae, generator = DMAE(preset.dmae), Generator(preset.generator)
        text = _count_text(preset.generator.text_encoder)
    name = preset.generator.text_encoder
    total = None if text is None else count(dmae) + count(generator) + text
    return {
        "DMAE: U-Net with stem and head": count(dmae) - count(dmae.encoder),
        "DMAE: magnitude encoder": count(dmae.encoder),
        "DMAE in all": count(dmae),
        "generator: U-Net": count(generator.unet),
        "generator: learned text mask": generator.null_text.numel(),
        "generator in all": count(generator),
        f"text encoder {name}, frozen": text,
        "generator with its frozen parts": total,
    }
