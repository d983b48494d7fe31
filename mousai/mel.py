"""Log-mel spectrograms: what pictures show and what distances between sounds are taken on.

Shapes: B batch, T samples at 48 kHz, F frames, M mel bands.
"""

import functools

import torch
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from mousai.audio import SAMPLE_RATE

NUM_BANDS = 80
WINDOW = 2048  # samples
HOP = WINDOW // 4
FLOOR = 1e-10  # power: -100 dB


@functools.cache
def _transform(window: int, bands: int) -> MelSpectrogram:
    return MelSpectrogram(SAMPLE_RATE, n_fft=window, hop_length=window // 4, n_mels=bands, f_min=30, normalized=False)


def log_mel(audio: Tensor, window: int = WINDOW, bands: int = NUM_BANDS) -> Tensor:
    """[…, 2, T] -> […, M, F] in dB: power of mid, 0 dB for a power of one in a mel band."""
    mel = _transform(window, bands).to(audio.device)(audio.float().mean(dim=-2))
    return 10 * torch.log10(mel.clamp(min=FLOOR))


def log_mel_distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of two sounds' log-mel spectrograms, dB; bands below -60 dB of the peak count as there.

    Both […, 2, T]; the result has the leading dimensions.
    """
    a, b = log_mel(one), log_mel(other)
    floor = torch.maximum(a.amax(dim=(-2, -1), keepdim=True), b.amax(dim=(-2, -1), keepdim=True)) - 60
    return (a.maximum(floor) - b.maximum(floor)).abs().mean(dim=(-2, -1))
