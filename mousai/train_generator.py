"""Training of stage 2, the generator: its loss, and what is looked at on held-out tracks while it trains.

Shapes: B batch, L latent frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mousai.audio import write_audio
from mousai.batches import LatentBatch, others
from mousai.config import GeneratorConfig
from mousai.diffusion import LEVELS, v_loss, valid_mask, wiener_loss
from mousai.errors import UserError
from mousai.generator import Generator
from mousai.pictures import draw_mels
from mousai.seeds import seed_of
from mousai.storage import write_json
from mousai.text import TextEncoder

PREVIEW_STEPS = 25  # of the generator
PREVIEW_CFG = 5.0


def generator_loss(
    encoder: TextEncoder, drop: float, model: nn.Module, batch: LatentBatch, noise: torch.Generator
) -> Tensor:
    """The v-loss on latents given the prompts, one value per example [B] (sections 4.3 and 4.4).

    With probability `drop` an example's text is replaced by the learned mask.
    """
    generator = cast(Generator, model)
    latents = batch.latents.to(noise.device, non_blocking=True)
    x_0 = generator.whiten(latents)
    sigma = torch.rand(len(x_0), generator=noise, device=x_0.device)
    eps = torch.randn(x_0.shape, generator=noise, device=x_0.device)
    dropped = torch.rand(len(x_0), generator=noise, device=x_0.device) < drop
    text, mask = generator.without_text(*encoder(batch.prompts), dropped)
    valid = valid_mask(batch.valid_frames, x_0)
    return v_loss(partial(generator.velocity, text=text, mask=mask), x_0, eps, sigma, valid)


def build_generator(
    config: GeneratorConfig, statistics: tuple[Tensor, Tensor], seed: int, device: torch.device
) -> tuple[Generator, TextEncoder]:
    """A generator with the initial weights that `seed` names, and its text encoder.

    `statistics` are mean and std [32] of the training latents. UserError where the encoder's width is not the config's.
    """
    encoder = TextEncoder(config.text_encoder, config.text_length, device)
    if encoder.features != config.unet.text_features:
        raise UserError(
            f"the text encoder {config.text_encoder} has {encoder.features} features, and the generator expects "
            f"{config.unet.text_features}: set text_features = {encoder.features} under [generator.unet] in mousai.toml"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "generator"))
        generator = Generator(config)
    generator.set_statistics(*statistics)
    return generator.to(device), encoder


@dataclass(frozen=True, kw_only=True)
class GeneratorWatch:
    """The held-out examples of a run, its text encoder, and the decoder that makes its previews heard."""

    examples: LatentBatch
    encoder: TextEncoder
    decode: Callable[[Tensor, Sequence[int]], Tensor]  # raw latents [B, 32, L], seeds -> audio [B, 2, T]
    seed: int

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, Any]:
        """v-loss by noise level with the own prompt and with another track's, beside the best one-number predictor's.

        That predictor knows each channel's std over the held-out latents and nothing else; it must be beaten.
        """
        generator = cast(Generator, model)
        device = generator.latent_mean.device
        x_0 = generator.whiten(self.examples.latents.to(device))
        valid = valid_mask(self.examples.valid_frames, x_0)
        text, mask = self.encoder(self.examples.prompts)
        swap = others(self.examples.track_ids)
        noise = torch.Generator().manual_seed(seed_of(self.seed, "validation"))
        own, wrong = torch.zeros(len(LEVELS)), torch.zeros(len(LEVELS))
        for i, level in enumerate(LEVELS):
            sigma = torch.full((len(x_0),), level, device=device)
            eps = torch.randn(x_0.shape, generator=noise).to(device)
            for losses, order in ((own, list(range(len(swap)))), (wrong, swap)):
                velocity = partial(generator.velocity, text=text[order], mask=mask[order])
                losses[i] = v_loss(velocity, x_0, eps, sigma, valid).mean().cpu()
        power = x_0.transpose(0, 1)[:, valid.bool()].square().mean(dim=1).cpu()
        blind = wiener_loss(power, torch.tensor(LEVELS))
        return {
            "val_loss": own.mean().item(),
            "val_loss_wrong_prompt": wrong.mean().item(),
            "one_number_loss": blind.mean().item(),
            "levels": list(LEVELS),
            "val_by_level": own.tolist(),
            "val_wrong_prompt_by_level": wrong.tolist(),
            "one_number_by_level": blind.tolist(),
        }

    @torch.no_grad()
    def preview(self, model: nn.Module, folder: Path) -> None:
        """Generate from up to four held-out prompts at fixed seeds: WAV and mel picture of each, and whose they are."""
        generator = cast(Generator, model)
        chosen = sorted({i * len(self.examples.prompts) // 4 for i in range(4)})
        prompts = [self.examples.prompts[i] for i in chosen]
        write_json(folder / "tracks.json", [self.examples.track_ids[i] for i in chosen])
        seeds = [seed_of(self.seed, "preview", i) for i in chosen]
        text, mask = self.encoder(prompts)
        frames = self.examples.latents.shape[-1]
        latents = generator.sample(text, mask, frames, seeds, steps=PREVIEW_STEPS, cfg=PREVIEW_CFG)
        for i, (prompt, latent, seed) in enumerate(zip(prompts, latents, seeds, strict=True)):
            audio = self.decode(latent[None], [seed + 1])[0].cpu()
            write_audio(folder / f"{i}.wav", audio.numpy(), title=prompt)
            draw_mels(folder / f"{i}.png", [(prompt, audio)])
