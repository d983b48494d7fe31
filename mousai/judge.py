"""What an autoencoder is judged by: held-out crops, decoded from their own latents, beside crops that they are not.

Distances need a scale: a wrong crop of real music is nearer than noise, and a decoder that ignores its latent can get
as near as that. So every figure comes with that of another crop, and identification asks for the very track.

Shapes: N examples, T samples, M mel bands, L latent frames.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mousai.batches import AudioBatch, others
from mousai.centroids import count_right, make_centroids, mel_features
from mousai.dmae import DMAE
from mousai.mel import NUM_BANDS, log_mel, log_mel_distance
from mousai.seeds import seed_of

QUIET = 0.05  # quantile over time at which a band's floor is taken
REGIONS = ("low", "mid", "high")  # thirds of the mel bands


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Figures over N held-out crops; dB are log-mel distances (see `log_mel_distance`)."""

    crops: int
    decoder_steps: int
    distance: float  # dB between a crop and its decoded latent
    wrong_crop: float  # dB between a crop and one of another track
    wrong_latent: float  # dB between a crop and another track's decoded latent
    identified: int  # decoded crops whose nearest real crop by mel statistics is of the same track
    floor: dict[str, float]  # dB by which quiet moments of a band are louder than they should be
    latent_rank: float  # exp of the entropy of the latent covariance's eigenvalues: useful dimensions
    latent_saturated: float  # share of values beyond ±0.98


@torch.no_grad()
def decode_all(dmae: DMAE, audio: Tensor, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Latents [N, 32, L] of [N, 2, T] and what they decode to [N, 2, T], on the CPU; noise by place in the batch."""
    device = next(dmae.parameters()).device
    latents, decoded = [], []
    for i, each in enumerate(audio):
        latents.append(dmae.encode(each[None].to(device)))
        decoded.append(dmae.decode(latents[-1], [seed_of(seed, "judge", i)], steps).cpu())
    return torch.cat(latents).cpu(), torch.cat(decoded)


def judge(dmae: DMAE, examples: AudioBatch, *, steps: int, seed: int = 0) -> tuple[Judgement, Tensor]:
    """The figures for whole crops of several tracks, and the decoded audio [N, 2, T]."""
    latents, decoded = decode_all(dmae, examples.audio, steps, seed)
    return judgement(examples, latents, decoded, steps), decoded


def judgement(examples: AudioBatch, latents: Tensor, decoded: Tensor, steps: int) -> Judgement:
    """The figures for `decoded` [N, 2, T] of the examples."""
    real, swap = examples.audio, others(examples.track_ids)
    crops = [str(i) for i in range(len(real))]
    nearest = make_centroids(mel_features(real), crops).classify(mel_features(decoded))
    heard = [examples.track_ids[int(name)] for name in nearest]
    return Judgement(
        crops=len(real),
        decoder_steps=steps,
        distance=log_mel_distance(real, decoded).mean().item(),
        wrong_crop=log_mel_distance(real, real[swap]).mean().item(),
        wrong_latent=log_mel_distance(real, decoded[swap]).mean().item(),
        identified=count_right(heard, examples.track_ids),
        floor=_floor(real, decoded),
        latent_rank=effective_rank(latents),
        latent_saturated=(latents.abs() > 0.98).float().mean().item(),
    )


def _floor(real: Tensor, decoded: Tensor) -> dict[str, float]:
    """By how many dB the quietest moments of decoded bands lie above those of real ones, a third of the bands each."""
    a, b = log_mel(real), log_mel(decoded)
    silence = a.amax(dim=(-2, -1), keepdim=True) - 60
    floors = [mel.maximum(silence).quantile(QUIET, dim=-1) for mel in (a, b)]
    above = (floors[1] - floors[0]).mean(dim=0)
    bounds = [round(i * NUM_BANDS / len(REGIONS)) for i in range(len(REGIONS) + 1)]
    return {name: above[bounds[i] : bounds[i + 1]].mean().item() for i, name in enumerate(REGIONS)}


def effective_rank(latents: Tensor) -> float:
    """exp(entropy) of the normalised eigenvalues of the channels' covariance: C if all vary alike and independently."""
    vectors = latents.float().transpose(0, 1).flatten(1)
    values = torch.linalg.eigvalsh(torch.cov(vectors)).clamp(min=0)
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())
