"""Training of stage 1, the DMAE: its loss, and what is looked at on held-out tracks while it trains.

Shapes: B batch, T samples.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mousai.audio import write_audio
from mousai.batches import AudioBatch, others
from mousai.config import DMAEConfig
from mousai.diffusion import LEVELS, noise_level, v_loss, valid_mask, wiener_loss
from mousai.dmae import DMAE
from mousai.envelope import angles, local_power
from mousai.mel import log_mel_distance
from mousai.pictures import draw_mels
from mousai.seeds import seed_of
from mousai.storage import write_json
from mousai.texture import texture_distance

PREVIEW_STEPS = 25  # of the decoder
SURPRISE = 10.0  # stds


def dmae_loss(model: nn.Module, batch: AudioBatch, generator: torch.Generator, texture: float = 0.0) -> Tensor:
    """The v-loss of the decoder given the encoder's latent, one value per example [B] (section 4.2).

    `texture` weighs the texture of what the predicted powers say, for a decoder that is preconditioned.
    """
    dmae = cast(DMAE, model)
    audio = batch.audio.to(generator.device, non_blocking=True)
    signal = dmae.to_signal(audio)
    place = torch.rand(len(audio), generator=generator, device=audio.device)
    sigma = noise_level(place, dmae.config.noise_levels)
    eps = torch.randn(signal.shape, generator=generator, device=audio.device)
    latent = dmae.encode(audio)
    if dmae.mdct is not None and dmae.envelope is not None:
        clean = dmae.mdct(signal)
        if dmae.training:
            dmae.envelope.observe(clean)
        power = dmae.envelope(latent)
        loss = _preconditioned_loss(dmae, latent, power, clean, dmae.mdct(eps), sigma, batch.valid_length)
        if texture:
            loss = loss + texture * _texture_loss(dmae, power, signal, batch.valid_length, generator)
        return loss
    return v_loss(partial(dmae.velocity, latent=latent), signal, eps, sigma, valid_mask(batch.valid_length, audio))


def _preconditioned_loss(
    dmae: DMAE, latent: Tensor, power: Tensor, clean: Tensor, noise: Tensor, sigma: Tensor, valid_length: Tensor
) -> Tensor:
    """Error of the network's own output, plus that of the predicted powers, for coefficients [B, 2, F, K]; [B].

    Beyond the paper. A band counts by its width on the mel scale, however quiet; the v-loss hears the loudest. Where a
    power is predicted far too low the network cannot know better, and counts for less: else such moments, a beat that
    the latent missed, make losses a hundred times as large as others. Nor does it see coefficients of more than
    SURPRISE times their predicted std: in decoding there are none, and one of a thousand spoils all around it.
    """
    assert dmae.mdct is not None and dmae.envelope is not None
    target, known = local_power(clean), torch.maximum(power.detach(), (clean / SURPRISE).square())
    angle, unit = angles(known, sigma), clean / known.sqrt()
    turn = dmae.turn(angle.cos() * unit + angle.sin() * noise, sigma, latent)
    error = (turn - (angle.cos() * noise - angle.sin() * unit)).square() * (known / target).clamp(max=1)
    frames = torch.arange(clean.shape[2], device=clean.device) * dmae.mdct.bands
    valid = (frames <= valid_length.to(frames.device)[:, None]).float()
    return ((dmae.envelope.weigh(error) + dmae.envelope.loss(power, clean)) * valid).sum(dim=1) / valid.sum(dim=1)


def _texture_loss(
    dmae: DMAE, power: Tensor, signal: Tensor, valid_length: Tensor, generator: torch.Generator
) -> Tensor:
    """Distance of a signal's texture to that of noise of the predicted powers: what the decoder starts from; [B].

    Powers that are right in the median of single moments leave the gaps between beats too loud.
    """
    assert dmae.mdct is not None
    noise = torch.randn(power.shape, generator=generator, device=power.device)
    told = dmae.mdct.inverse(power.sqrt() * noise) * valid_mask(valid_length, signal)[:, None]
    return texture_distance(told, signal)


def power_spectrum(dmae: DMAE, audio: Tensor, size: int = 1024) -> Tensor:
    """[size // 2 + 1]: mean power spectrum of the diffused signal of [B, 2, T]; its mean is the variance."""
    signal = dmae.to_signal(audio).flatten(0, 1).unfold(-1, size, size)
    window = torch.hann_window(size, device=audio.device)
    power = torch.fft.rfft(signal * window).abs().square().mean(dim=(0, 1)) / window.square().sum()
    return cast(Tensor, power)


def build_dmae(config: DMAEConfig, seed: int, device: torch.device) -> DMAE:
    """A DMAE with the initial weights that `seed` names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "dmae"))
        return DMAE(config).to(device)


@dataclass(frozen=True, kw_only=True)
class DMAEWatch:
    """The held-out examples of a run, and what it must know of its training data."""

    examples: AudioBatch
    demo: AudioBatch  # held out as well, and long enough to listen to
    calibration: AudioBatch  # of the training split
    power: Tensor
    seed: int

    def settle(self, model: nn.Module) -> None:
        """Bring the statistics of the averaged model's latents up to date."""
        dmae = cast(DMAE, model)
        dmae.settle(self.calibration.audio.to(next(dmae.parameters()).device))

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, Any]:
        """v-loss by noise level with the own latent and with another track's, beside the closed-form Wiener loss."""
        dmae = cast(DMAE, model)
        device = next(dmae.parameters()).device
        own, wrong = torch.zeros(len(LEVELS)), torch.zeros(len(LEVELS))
        swap = others(self.examples.track_ids)
        latents = torch.cat([dmae.encode(audio[None].to(device)) for audio in self.examples.audio])
        for i, audio in enumerate(self.examples.audio):
            signal = dmae.to_signal(audio[None].to(device)).expand(len(LEVELS), -1, -1)
            sigma = torch.tensor(LEVELS, device=device)
            generator = torch.Generator().manual_seed(seed_of(self.seed, "validation", i))
            eps = torch.randn(signal.shape, generator=generator).to(device)
            valid = valid_mask(self.examples.valid_length[i : i + 1].expand(len(LEVELS)), signal)
            for losses, source in ((own, i), (wrong, swap[i])):
                latent = latents[source : source + 1].expand(len(LEVELS), -1, -1)
                losses += v_loss(partial(dmae.velocity, latent=latent), signal, eps, sigma, valid).cpu()
        own, wrong = own / len(swap), wrong / len(swap)
        wiener = wiener_loss(self.power.cpu(), torch.tensor(LEVELS))
        return {
            "val_loss": own.mean().item(),
            "val_loss_wrong_latent": wrong.mean().item(),
            "wiener_loss": wiener.mean().item(),
            "levels": list(LEVELS),
            "val_by_level": own.tolist(),
            "val_wrong_latent_by_level": wrong.tolist(),
            "wiener_by_level": wiener.tolist(),
            "latent_std": latents.std(dim=(0, 2)).mean().item(),
            "latent_saturated": (latents.abs() > 0.98).float().mean().item(),
        }

    @torch.no_grad()
    def preview(self, model: nn.Module, folder: Path) -> None:
        """Write the demo set and its reconstructions as WAV, a mel picture of each pair, and whose they are."""
        dmae = cast(DMAE, model)
        device = next(dmae.parameters()).device
        write_json(folder / "tracks.json", self.demo.track_ids)
        for i, (padded, length) in enumerate(zip(self.demo.audio, self.demo.valid_length.tolist(), strict=True)):
            latent = dmae.encode(padded[None].to(device))
            decoded = dmae.decode(latent, [seed_of(self.seed, "preview", i)], PREVIEW_STEPS)[0].cpu()
            audio, decoded = padded[:, :length], decoded[:, :length]
            distance = log_mel_distance(audio, decoded).item()
            write_audio(folder / f"{i}-true.wav", audio.numpy())
            write_audio(folder / f"{i}-decoded.wav", decoded.numpy())
            draw_mels(folder / f"{i}.png", [("true", audio), (f"auto-encoded, {distance:.1f} dB apart", decoded)])
