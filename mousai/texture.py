"""What bands of a sound do over time: how loud they are and how far they swing, which is what an ear calls texture.

Beyond the paper, whose section 7 proposes spectral losses for what the magnitudes of short moments miss. McDermott &
Simoncelli (2011) recognise textures by such statistics.

Shapes: B batch, T samples.
"""

from torch import Tensor

from mousai.mel import NUM_BANDS, WINDOW, log_mel

RESOLUTIONS = ((WINDOW, NUM_BANDS), (512, 40))  # (samples of a window, mel bands): tones and beats


def texture_distance(one: Tensor, other: Tensor) -> Tensor:
    """Distance of the means and standard deviations over time of log-mel bands, both sounds [B, 2, T]; dB, [B]."""
    total = one.new_zeros(len(one))
    for window, bands in RESOLUTIONS:
        a, b = (log_mel(sound, window, bands) for sound in (one, other))
        for statistic in (a.mean(dim=-1) - b.mean(dim=-1), a.std(dim=-1) - b.std(dim=-1)):
            total = total + statistic.abs().mean(dim=-1)
    return total / (2 * len(RESOLUTIONS))
