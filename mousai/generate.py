"""From text to audio: both stages and the text encoder together (Moûsai, equation 6)."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mousai.audio import SAMPLE_RATE
from mousai.checkpoint import Checkpoint, load_checkpoint
from mousai.config import DMAEConfig, GeneratorConfig, from_dict
from mousai.dmae import DMAE
from mousai.errors import UserError
from mousai.generator import Generator
from mousai.seeds import seed_of
from mousai.text import TextEncoder


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample; the paper says CFG above 3 and 10 to 100 steps (sections 5.3 and 6.4)."""

    seconds: float
    steps: int = 50
    decoder_steps: int = 50
    cfg: float = 5.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Both trained stages, with EMA weights, and the text encoder that the second was trained with."""

    dmae: DMAE
    generator: Generator
    text: TextEncoder
    about: dict[str, Any]  # which checkpoints

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], seeds: Sequence[int], settings: Settings) -> Tensor:
        """Raw latents [B, 32, L] for prompts, one seed a prompt: gen(e, eps_gen, s_gen) of equation 6."""
        frames = math.ceil(settings.seconds * SAMPLE_RATE / self.dmae.config.hop)
        text, mask = self.text(prompts)
        noises = [seed_of(seed, "generator") for seed in seeds]
        with _precision(text.device):
            return self.generator.sample(text, mask, frames, noises, steps=settings.steps, cfg=settings.cfg).float()

    @torch.no_grad()
    def audio(self, latents: Tensor, seeds: Sequence[int], settings: Settings) -> Tensor:
        """Audio [B, 2, T] of latents [B, 32, L]: dec(·, eps_dec, s_dec) of equation 6, its noise independent."""
        length = round(settings.seconds * SAMPLE_RATE)
        noises = [seed_of(seed, "decoder") for seed in seeds]
        with _precision(latents.device):
            return self.dmae.decode(latents, noises, settings.decoder_steps).float()[..., :length]


def _precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def piece_seed(seed: int, index: int) -> int:
    """The seed of piece number `index` of a run: the first has the run's own, so that a single piece can be remade."""
    return seed if index == 0 else seed_of(seed, "piece", index)


def load_dmae(folder: Path, device: torch.device) -> DMAE:
    """The DMAE in a checkpoint folder, with EMA weights, ready to encode and decode."""
    checkpoint = load_checkpoint(folder, "dmae")
    dmae = DMAE(from_dict(DMAEConfig, checkpoint.config, str(folder)))
    dmae.load_state_dict(checkpoint.ema)
    return dmae.eval().requires_grad_(False).to(device)


def load_cascade(generator: Path, latents: Path, device: torch.device) -> Cascade:
    """The generator in a checkpoint folder with the DMAE whose latents it was trained on, frozen below `latents`.

    UserError where that DMAE is missing: no other one will do.
    """
    checkpoint = load_checkpoint(generator, "generator")
    model = Generator(from_dict(GeneratorConfig, checkpoint.config, str(generator)))
    model.load_state_dict(checkpoint.ema)
    return Cascade(
        dmae=load_dmae(frozen_dmae(latents, checkpoint), device),
        generator=model.eval().requires_grad_(False).to(device),
        text=TextEncoder(model.config.text_encoder, model.config.text_length, device),
        about={"generator": str(generator), "step": checkpoint.step, "encoder": checkpoint.provenance["encoder"]},
    )


def frozen_dmae(latents: Path, checkpoint: Checkpoint) -> Path:
    """The folder of the DMAE that a generator's checkpoint belongs to."""
    folder = latents / checkpoint.provenance["encoder"] / "dmae"
    if not (folder / "checkpoint.json").exists():
        raise UserError(
            f"the generator was trained on the latents of DMAE {checkpoint.provenance['encoder']}, and {folder} is "
            "missing. Bring it back from a backup, or run: mousai encode-latents && mousai train generator --restart"
        )
    return folder


def describe(settings: Settings, prompt: str, seed: int, cascade: Cascade) -> dict[str, Any]:
    """What the JSON beside a piece, and its tags, say."""
    return {**dataclasses.asdict(settings), "seed": seed, "prompt": prompt, **cascade.about}
