"""From text to audio: both stages and the text encoder together (Moûsai, equation 6)."""

import dataclasses
import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mousai.audio import SAMPLE_RATE, Waveform, write_audio
from mousai.checkpoint import Checkpoint, load_checkpoint, weights_id
from mousai.config import DMAEConfig, GeneratorConfig, from_dict
from mousai.dmae import DMAE
from mousai.errors import UserError
from mousai.generator import Generator
from mousai.lineage import write_tracks
from mousai.mel import log_mel_distance
from mousai.pictures import draw_mels
from mousai.progress import progress
from mousai.seeds import seed_of
from mousai.storage import hash_of, publish_folder, read_json, write_json
from mousai.text import TextEncoder

MOST_SECONDS = 3600  # of one piece: it is made as a whole, in memory


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample; the paper says CFG above 3 and 10 to 100 steps (sections 5.3 and 6.4)."""

    seconds: float
    steps: int = 50
    decoder_steps: int = 50
    cfg: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MOST_SECONDS:
            raise UserError(f"--seconds {self.seconds:g} is not a length: from 0.1 to {MOST_SECONDS} s at once")
        if not math.isfinite(self.cfg):
            raise UserError(f"--cfg {self.cfg} is not a number: 5 is the default, 1 is no guidance")


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
        about={
            "generator": weights_id(generator),
            "step": checkpoint.step,
            "encoder": checkpoint.provenance["encoder"],
        },
    )


def frozen_dmae(latents: Path, checkpoint: Checkpoint) -> Path:
    """The folder of the DMAE that a generator's checkpoint belongs to."""
    folder = latents / str(checkpoint.provenance["encoder"]) / "dmae"
    if not (folder / "checkpoint.json").exists():
        raise UserError(
            f"the generator was trained on the latents of DMAE {checkpoint.provenance['encoder']}, and {folder} is "
            "missing. Bring it back from a backup, or run: mousai encode-latents && mousai train generator --restart"
        )
    return folder


def freeze(checkpoint: Path, latents: Path) -> Path:
    """Copy a DMAE's checkpoint, EMA weights only, to `latents`/ID/dmae, where retention does not reach; that folder."""
    loaded = load_checkpoint(checkpoint, "dmae")  # a damaged one, or one of another kind, stops here
    folder = latents / weights_id(checkpoint) / "dmae"
    if not (folder / "checkpoint.json").exists():
        with publish_folder(folder) as temporary:
            for name in ("ema.safetensors", "checkpoint.json"):
                shutil.copyfile(checkpoint / name, temporary / name)
            if loaded.tracks is not None:
                write_tracks(temporary, loaded.tracks)
    return folder


def latent_encoder(dmae: DMAE) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """The DMAE's encoder as a function of arrays: audio [B, 2, T] -> latents [B, 32, L]."""
    device = next(dmae.parameters()).device

    @torch.no_grad()
    def encode(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with _precision(device):
            return dmae.encode(torch.from_numpy(audio).to(device)).float().cpu().numpy()

    return encode


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A generated file."""

    path: Path
    prompt: str
    seed: int
    seconds: float
    took: float  # seconds of computing; 0 where the file was there already


def file_name(text: str) -> str:
    """The words of `text` as part of a file name: at most 60 bytes, no character that any file system refuses."""
    words = "-".join(re.findall(r"\w+", text.lower()))
    return words.encode(errors="ignore")[:60].decode(errors="ignore")


def write_piece(
    cascade: Cascade, prompt: str, seed: int, settings: Settings, folder: Path, audio_format: str = "wav"
) -> Piece:
    """Generate one piece into `folder`, named after its prompt and a hash of all that decides it.

    Its settings are in the file's tags and in a JSON beside it, which is written last. What is there is kept.
    """
    facts = {**dataclasses.asdict(settings), "prompt": prompt, "seed": seed, **cascade.about}
    path = folder / f"{file_name(prompt) or 'no-prompt'}-{hash_of(facts)[:8]}.{audio_format}"
    took = 0.0
    if not (path.exists() and path.with_suffix(".json").exists()):
        started = time.monotonic()
        with progress("generate", 2, "stages") as advance:
            latents = cascade.latents([prompt], [seed], settings)
            advance(1, prompt)
            audio = cascade.audio(latents, [seed], settings)[0].cpu()
        took = time.monotonic() - started
        write_audio(path, audio.numpy(), title=prompt, comment=json.dumps(facts, ensure_ascii=False))
        write_json(path.with_suffix(".json"), facts)
    return Piece(path=path, prompt=prompt, seed=seed, seconds=settings.seconds, took=took)


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What stage 1 alone made of a piece of audio."""

    path: Path
    picture: Path
    log_mel_distance: float  # dB
    made: bool  # False where it was there already


@dataclass(frozen=True, kw_only=True)
class Redraw:
    """How a reconstruction is decoded."""

    steps: int
    seed: int
    device: torch.device


@torch.no_grad()
def reconstruct_audio(dmae: Path, audio: Waveform, folder: Path, name: str, settings: Redraw) -> Reconstruction:
    """Encode and decode [2, T] in [-1, 1] with the DMAE in a checkpoint folder.

    Writes NAME-HASH-true.wav, NAME-HASH-decoded.wav, NAME-HASH.png and, last, NAME-HASH.json into `folder`; HASH is of
    all that decides them, and what is there is kept.
    """
    sound = hashlib.sha256(audio.tobytes()).hexdigest()[:16]
    facts = {"dmae": weights_id(dmae), "audio": sound, "steps": settings.steps, "seed": settings.seed}
    stem = folder / f"{file_name(name) or 'sound'}-{hash_of(facts)[:8]}"
    paths = {part: stem.with_name(stem.name + part) for part in ("-true.wav", "-decoded.wav", ".png", ".json")}
    made = not all(path.exists() for path in paths.values())
    if made:
        model = load_dmae(dmae, settings.device)
        true = torch.from_numpy(audio)
        padded = functional.pad(true, (0, -true.shape[1] % model.config.divisor))
        with _precision(settings.device):
            latent = model.encode(padded[None].to(settings.device))
            decoded = model.decode(latent, [seed_of(settings.seed, "decoder")], settings.steps)
        heard = decoded[0, :, : true.shape[1]].float().cpu()
        distance = log_mel_distance(true, heard).item()
        write_audio(paths["-true.wav"], audio)
        write_audio(paths["-decoded.wav"], heard.numpy(), title=stem.name)
        draw_mels(paths[".png"], [("true", true), (f"auto-encoded, {distance:.1f} dB apart", heard)])
        write_json(paths[".json"], {**facts, "log_mel_distance": distance})
    return Reconstruction(
        path=paths["-decoded.wav"],
        picture=paths[".png"],
        log_mel_distance=read_json(paths[".json"])["log_mel_distance"],
        made=made,
    )
