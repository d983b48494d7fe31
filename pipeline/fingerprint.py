"""What a recording is: the hash of its samples, and what it sounds like in about 300 bytes a minute.

A fingerprint is a list of landmarks: moments at which the shape of the spectrum changes more than around them, found
in the music and not on a grid, so that a trimmed copy has the same ones. Each carries a word of 32 bits: whether the
step from one band to the next is higher after the moment than before it, for 16 steps on two scales of time. Level,
equaliser, sample rate and lossy coding hardly touch those signs; another performance, another tempo and a stem of the
same song have other ones. The bits follow Haitsma & Kalker, "A highly robust audio fingerprinting system" (2002).

Shapes in this file: [2, T] T samples at 48 kHz, [F, B] F frames of 32 ms and B bands, [N] N landmarks.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mousai.audio import SAMPLE_RATE, Waveform

VERSION = 1  # of the numbers below: fingerprints of two versions do not compare

_DECIMATION = 6  # to 8 kHz: all that the bands need
_RATE = SAMPLE_RATE // _DECIMATION
_WINDOW, _HOP = 2048, 256  # samples at 8 kHz: 256 ms and 32 ms
FRAMES_PER_SECOND = _RATE / _HOP
_BANDS = 17
_EDGES = np.round(np.geomspace(250, 2800, _BANDS + 1) * _WINDOW / _RATE).astype(int)  # FFT bins: what codecs keep best
_TAPS = 48
_LOW_PASS = np.sinc(2 * 3600 / SAMPLE_RATE * (np.arange(_TAPS) - (_TAPS - 1) / 2)) * np.hamming(_TAPS)
_LOW_PASS = (_LOW_PASS / _LOW_PASS.sum()).astype(np.float32)  # -1 dB at 2.8 kHz, -43 dB at 5.2, which falls there
_HANN = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
_FLOOR = 1e-5  # of the track's mean power: below it lies what a codec makes of silence
_SMOOTH = 12  # frames that are averaged: 0.4 s
_LAGS = (16, 64)  # frames between before and after: 0.5 s and 2 s
_APART = 14  # frames: a landmark is the greatest change within 0.45 s on both sides

_TOLERANCE = 2  # frames by which a landmark may move in a copy
_MAX_BITS = 4  # of 32 that may differ in a copy; two landmarks of different music do so 5 times in 10,000

Words = npt.NDArray[np.uint32]


class PcmDigest:
    """A hash of samples rounded to 16 bits, without the digital silence around them.

    So a FLAC and a WAV of one recording agree, and so do copies with other padding; null where all is silence.
    """

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._silent = 0  # bytes of silence that are not yet known to be followed by sound
        self._heard = False

    def update(self, block: Waveform, rate: int) -> None:
        """Take in the next [C, T] at `rate` Hz."""
        pcm: npt.NDArray[np.int16] = np.rint(np.clip(block.T * 32_768, -32_768, 32_767)).astype("<i2")
        sounding = np.flatnonzero(pcm.any(axis=1))
        if not len(sounding):
            self._silent += pcm.nbytes if self._heard else 0
            return
        first, end = sounding[0] if not self._heard else 0, sounding[-1] + 1
        if not self._heard:
            self._digest.update(f"{rate} {pcm.shape[1]}".encode())
        while self._silent:
            zeros = min(self._silent, 1 << 20)
            self._digest.update(bytes(zeros))
            self._silent -= zeros
        self._digest.update(pcm[first:end].tobytes())
        self._silent, self._heard = pcm[end:].nbytes, True

    def hexdigest(self) -> str | None:
        return self._digest.hexdigest() if self._heard else None


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """The fingerprint of a track."""

    times: Words  # [N] rising, in frames of 32 ms
    words: Words  # [N]

    @property
    def duration(self) -> float:
        """s from the first landmark to the last."""
        return float(self.times[-1] - self.times[0]) / FRAMES_PER_SECOND if len(self.times) else 0.0


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How two fingerprints agree where they fit best."""

    offset: float  # s by which the second track starts later in the music than the first one
    overlap: float  # s during which both sound
    matched: int  # landmarks at the same place with the same word, but for a few bits
    share: float  # of the landmarks during the overlap


class Listener:
    """Hears a track block by block; holds 2 kB a second of it."""

    def __init__(self) -> None:
        self._samples = np.empty(0, np.float32)  # at 48 kHz, fewer than make another one at 8 kHz
        self._decimated = np.empty(0, np.float32)  # at 8 kHz, fewer than a window
        self._powers: list[npt.NDArray[np.float32]] = []  # [F, B] each

    def hear(self, block: Waveform) -> None:
        """Take in the next [2, T]."""
        mono = np.concatenate([self._samples, block.mean(axis=0)])
        if len(mono) < _TAPS:
            self._samples = mono
            return
        decimated = sliding_window_view(mono, _TAPS)[::_DECIMATION] @ _LOW_PASS
        self._samples = mono[len(decimated) * _DECIMATION :]
        self._decimated = np.concatenate([self._decimated, decimated])
        if len(self._decimated) < _WINDOW:
            return
        frames = sliding_window_view(self._decimated, _WINDOW)[::_HOP]
        spectrum = np.fft.rfft(frames * _HANN, axis=1)[:, : _EDGES[-1]]
        power = spectrum.real**2 + spectrum.imag**2
        self._powers.append(np.add.reduceat(power, _EDGES[:-1], axis=1).astype(np.float32))
        self._decimated = self._decimated[len(frames) * _HOP :]

    def landmarks(self) -> Landmarks:
        """The fingerprint of all that was heard; empty for silence and for less than 3 s."""
        power = np.concatenate(self._powers) if self._powers else np.empty((0, _BANDS), np.float32)
        if len(power) < _SMOOTH + max(_LAGS) + 2 * _APART or not power.any():
            return Landmarks(times=np.empty(0, np.uint32), words=np.empty(0, np.uint32))
        sums = np.cumsum(np.pad(power, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
        smooth = (sums[_SMOOTH:] - sums[:-_SMOOTH]) / _SMOOTH
        level = np.log(np.maximum(smooth, 0) + _FLOOR * power.mean(dtype=np.float64)).astype(np.float32)
        steps = level[:, :-1] - level[:, 1:]  # [F, B - 1]
        change = np.zeros(len(steps) - max(_LAGS), np.float32)  # [F'], F' moments with a before and an after
        moments = np.arange(len(change))
        for lag in _LAGS:
            change += np.abs(_changes(steps, moments, lag)).sum(axis=1)
        padded = np.pad(change, _APART, constant_values=-1)
        greatest = sliding_window_view(padded, 2 * _APART + 1).max(axis=1)
        times = np.flatnonzero((change == greatest) & (change > 0))
        signs = np.concatenate([_changes(steps, times, lag) > 0 for lag in _LAGS], axis=1)  # [N, 32]
        words = np.packbits(signs, axis=1, bitorder="little").view("<u4")[:, 0]
        return Landmarks(times=times.astype(np.uint32), words=words.astype(np.uint32))


def _changes(steps: npt.NDArray[np.float32], moments: npt.NDArray[np.intp], lag: int) -> npt.NDArray[np.float32]:
    """[N, B - 1]: how the steps differ from `lag` / 2 frames before the moments to as many after."""
    centres = moments + max(_LAGS) // 2
    difference: npt.NDArray[np.float32] = steps[centres + lag // 2] - steps[centres - lag // 2]
    return difference


def compare(first: Landmarks, second: Landmarks) -> Likeness | None:
    """How alike two tracks are where most of their equal words coincide; None where no word is equal."""
    here, there = _equal_words(first, second)
    if not len(here):
        return None
    offsets = first.times[here].astype(np.int64) - second.times[there].astype(np.int64)
    candidates, votes = np.unique(offsets, return_counts=True)
    around = [votes[abs(candidates - offset) <= _TOLERANCE].sum() for offset in candidates]
    offset = int(candidates[int(np.argmax(around))])
    return _likeness_at(first, second, offset)


def _equal_words(first: Landmarks, second: Landmarks) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Indices of all landmarks of the one and the other that have the same word."""
    order = np.argsort(second.words, kind="stable")
    ordered = second.words[order]
    left, right = np.searchsorted(ordered, first.words, "left"), np.searchsorted(ordered, first.words, "right")
    counts = right - left
    here = np.repeat(np.arange(len(first.words)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return here, order[np.repeat(left, counts) + within]


def _likeness_at(first: Landmarks, second: Landmarks, offset: int) -> Likeness:
    """`offset` in frames."""
    mine, theirs = first.times.astype(np.int64), second.times.astype(np.int64) + offset
    start, end = max(mine[0], theirs[0]) - _TOLERANCE, min(mine[-1], theirs[-1]) + _TOLERANCE
    after = np.searchsorted(theirs, mine)
    matched = np.zeros(len(mine), bool)
    for neighbour in (np.clip(after - 1, 0, len(theirs) - 1), np.clip(after, 0, len(theirs) - 1)):
        near = np.abs(theirs[neighbour] - mine) <= _TOLERANCE
        matched |= near & (_num_bits(first.words ^ second.words[neighbour]) <= _MAX_BITS)
    num_both = ((mine >= start) & (mine <= end)).sum() + ((theirs >= start) & (theirs <= end)).sum()
    return Likeness(
        offset=offset / FRAMES_PER_SECOND,
        overlap=float(end - start) / FRAMES_PER_SECOND,
        matched=int(matched.sum()),
        share=float(2 * matched.sum() / max(1, num_both)),
    )


def _num_bits(words: Words) -> npt.NDArray[np.uint8]:
    """Set bits of each word."""
    bits: npt.NDArray[np.uint8] = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1).sum(axis=1, dtype=np.uint8)
    return bits
