"""What a track sounds like in figures: loudness, peaks, silence, clipping, stereo and band limit, in one pass.

Nothing here acts on a figure; `pipeline/selection.py` does, by the thresholds of `mousai.toml`.

Shapes: [2, T], T samples at 48 kHz; [C, T], C channels (1 or 2) at the rate of the file.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mousai.audio import SAMPLE_RATE, Waveform
from pipeline.loudness import Loudness, TruePeak

SILENCE = 1e-3  # of full scale, -60 dBFS: what never exceeds it for a while is silence
CLIPPED = 0.9999  # of full scale; 16 bits reach 0.99997
FLOOR_DB = 120.0  # the ratio of something to nothing

_NOTHING = 1e-12  # mean square, -120 dBFS: less than 16 bits hold, and more than sums in double precision get wrong

_WINDOW = SAMPLE_RATE // 100  # samples: silence is measured in steps of 10 ms
_PAUSE = 100  # windows: silence within a track is counted from a second on
_CLIP_RUN = 3  # samples in a row: fewer may be a peak that just touches full scale; `Clipping.update` spells it out

_FRAME = 2048  # samples of a spectrum
_FRAMES_APART = SAMPLE_RATE // 4
_MOST_FRAMES = 1024
_PERCENTILE = 95  # of the frames: what the track reaches in its fuller moments
_DROP = 500.0  # Hz
_LOWEST, _HIGHEST = 2_000.0, 20_000.0  # Hz: below, music itself drops; above, resampling from 44.1 kHz does


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The columns of `Track` of the same names, with their units."""

    true_peak: float
    loudness: float | None
    loudness_range: float | None
    silence_head: float
    silence_tail: float
    silence_within: float
    clipped_runs: int | None
    dc: float
    correlation: float | None
    balance_db: float | None
    side_db: float | None
    cutoff_hz: float | None
    cutoff_drop_db: float | None


class QualityMeter:
    """Measures a track of which it is shown every block once; holds 16 MB in 24 hours, mostly flags of silence."""

    def __init__(self) -> None:
        self._rest: Waveform = np.zeros((2, 0), np.float32)
        self._loudness = Loudness()
        self._true_peak = TruePeak()
        self._silence = _Silence()
        self._stereo = _Stereo()
        self._band = _Band()

    def update(self, block: Waveform) -> None:
        """Take in the next [2, T]."""
        audio = np.concatenate([self._rest, block], axis=1)
        whole = audio.shape[1] // SAMPLE_RATE * SAMPLE_RATE
        for start in range(0, whole, SAMPLE_RATE):
            self._measure(np.ascontiguousarray(audio[:, start : start + SAMPLE_RATE]))
        self._rest = audio[:, whole:].copy()

    def _measure(self, second: Waveform) -> None:
        """Show every meter the next [2, 48 000], or fewer samples at the end of the track."""
        for meter in (self._loudness, self._true_peak, self._silence, self._stereo, self._band):
            meter.update(second)

    def finish(self, clipped_runs: int | None) -> Quality:
        """The figures of all blocks; clipping is counted before resampling (`Clipping`), and so by others."""
        if self._rest.size:
            self._measure(self._rest)
        head, tail, within = self._silence.finish()
        cutoff, drop = self._band.finish() or (None, None)
        return Quality(
            true_peak=round(self._true_peak.finish(), 5),
            loudness=_rounded(self._loudness.integrated(), 2),
            loudness_range=_rounded(self._loudness.range(), 2),
            silence_head=round(head, 3),
            silence_tail=round(tail, 3),
            silence_within=round(within, 3),
            clipped_runs=clipped_runs,
            dc=round(self._stereo.dc(), 6),
            correlation=_rounded(self._stereo.correlation(), 4),
            balance_db=_rounded(self._stereo.balance_db(), 2),
            side_db=_rounded(self._stereo.side_db(), 2),
            cutoff_hz=_rounded(cutoff, 0),
            cutoff_drop_db=_rounded(drop, 1),
        )


def _rounded(value: float | None, digits: int) -> float | None:
    """To what the measurement means; the same file gives the same bytes on machines that add up in other orders."""
    return None if value is None else round(value, digits)


class Clipping:
    """Counts runs of three samples or more at full scale or above, as the file has them: resampling bends plateaus."""

    def __init__(self) -> None:
        self._runs = 0
        self._last = np.zeros((0, _CLIP_RUN), np.bool_)  # whether the latest samples of each channel are clipped

    def update(self, block: Waveform) -> None:
        """Take in the next [C, T]."""
        if len(self._last) != len(block):
            self._last = np.zeros((len(block), _CLIP_RUN), np.bool_)
        if max(block.max(initial=0), -block.min(initial=0)) < CLIPPED:
            self._last[:] = False
            return
        flags = np.concatenate([self._last, np.abs(block) >= CLIPPED], axis=1)
        # A run counts where it becomes long enough: at its third sample.
        reached = flags[:, 3:] & flags[:, 2:-1] & flags[:, 1:-2] & ~flags[:, :-3]
        self._runs += int(reached.sum())
        self._last = flags[:, -_CLIP_RUN:]

    def finish(self) -> int:
        """The number of runs, of both channels together."""
        return self._runs


class _Silence:
    """Which windows of 10 ms stay below `SILENCE`: one bit each, a byte here."""

    def __init__(self) -> None:
        self._silent: list[npt.NDArray[np.bool_]] = []
        self._length = 0

    def update(self, second: Waveform) -> None:
        self._length += second.shape[1]
        levels = np.abs(second)
        if missing := -second.shape[1] % _WINDOW:  # at the end of the track
            levels = np.pad(levels, ((0, 0), (0, missing)))
        self._silent.append(levels.reshape(2, -1, _WINDOW).max(axis=(0, 2)) < SILENCE)

    def finish(self) -> tuple[float, float, float]:
        """Seconds of silence at the head, at the tail, and in pauses of a second or more between."""
        silent = np.concatenate([np.zeros(0, bool), *self._silent])
        duration = self._length / SAMPLE_RATE
        sound = np.flatnonzero(~silent)
        if not sound.size:
            return duration, 0.0, 0.0
        edges = np.flatnonzero(np.diff(silent[sound[0] : sound[-1] + 1]))
        pauses = edges[1::2] - edges[::2]
        step = _WINDOW / SAMPLE_RATE
        tail = max(0.0, duration - (sound[-1] + 1) * step)
        return float(sound[0] * step), float(tail), float(pauses[pauses >= _PAUSE].sum() * step)


class _Stereo:
    """Sums from which offset, correlation and the balances follow; the latter three leave the offset out."""

    def __init__(self) -> None:
        self._length = 0
        self._sum = np.zeros(2)
        self._products = np.zeros((2, 2))

    def update(self, second: Waveform) -> None:
        exact = second.astype(np.float64)
        self._length += second.shape[1]
        self._sum += exact.sum(axis=1)
        self._products += exact @ exact.T

    def dc(self) -> float:
        """The mean of the channel that is further from zero."""
        return float(np.abs(self._mean()).max())

    def correlation(self) -> float | None:
        """From -1 (one channel is the other's negative) to 1 (equal but for the level); None if one is silent."""
        (left, product), (_, right) = self._covariance()
        if min(left, right) < _NOTHING:
            return None
        return float(np.clip(product / np.sqrt(left * right), -1, 1))

    def balance_db(self) -> float | None:
        """How much louder the left channel is."""
        (left, _), (_, right) = self._covariance()
        return _decibels(left, right)

    def side_db(self) -> float | None:
        """The level of the difference of the channels over that of their sum."""
        (left, product), (_, right) = self._covariance()
        return _decibels((left + right) / 4 - product / 2, (left + right) / 4 + product / 2)

    def _mean(self) -> npt.NDArray[np.float64]:
        return self._sum / max(1, self._length)

    def _covariance(self) -> npt.NDArray[np.float64]:
        return self._products / max(1, self._length) - np.outer(self._mean(), self._mean())


def _decibels(power: float, reference: float) -> float | None:
    """At most ±`FLOOR_DB`, which is what nothing beside something gets; None if both are nothing."""
    if max(power, reference) < _NOTHING:
        return None
    if min(power, reference) < _NOTHING:
        return math.copysign(FLOOR_DB, power - reference)
    return float(10 * np.log10(power / reference))


class _Band:
    """Where the spectrum ends, from four frames a second, thinned out evenly in tracks of more than four minutes."""

    def __init__(self) -> None:
        self._powers: list[npt.NDArray[np.float32]] = []  # [frequencies] each
        self._every, self._count = 1, 0

    def update(self, second: Waveform) -> None:
        for start in range(0, second.shape[1] - _FRAME + 1, _FRAMES_APART):
            if self._count % self._every == 0:
                self._add(second[:, start : start + _FRAME])
            self._count += 1

    def _add(self, frame: Waveform) -> None:
        # One complex transform does for both channels: |Z(f)|² + |Z(-f)|² = 2 (|L(f)|² + |R(f)|²).
        spectrum = np.fft.fft((frame[0] + 1j * frame[1]) * _HANN)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        self._powers.append(power[1 : _FRAME // 2] + power[: _FRAME // 2 : -1])
        if len(self._powers) == _MOST_FRAMES:
            self._powers = self._powers[::2]
            self._every *= 2

    def finish(self) -> tuple[float, float] | None:
        """Frequency (Hz) and size (dB) of the steepest drop within 500 Hz; None for silence and less than a frame."""
        if not self._powers or not (spectrum := np.percentile(self._powers, _PERCENTILE, axis=0)).any():
            return None
        levels = 10 * np.log10(np.maximum(spectrum, spectrum.max() * 10 ** (-FLOOR_DB / 10)))
        width = SAMPLE_RATE / _FRAME  # Hz
        span = round(_DROP / width)
        first, last = round(_LOWEST / width), round(_HIGHEST / width)
        drops = levels[first - 1 : last - span] - levels[first - 1 + span : last]
        steepest = int(drops.argmax())
        return (first + steepest) * width, float(drops[steepest])


_HANN = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
