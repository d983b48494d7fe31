"""Loudness and true peak of a stereo track, streaming: ITU-R BS.1770-4, EBU R 128 and EBU Tech 3342.

Shapes: [2, T], T samples at 48 kHz; the filters of the standard are given for this rate.
"""

import numpy as np
import numpy.typing as npt

from mousai.audio import SAMPLE_RATE, Waveform

HOP = SAMPLE_RATE // 10  # samples: gating blocks of 400 ms overlap by 75%, so all is made of stretches of 100 ms

_K_WEIGHTING = np.array([  # b and a of the two biquads of BS.1770-4, Annex 1, Tables 1 and 2
    [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
    [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
])  # fmt: skip
_OFFSET = -0.691  # LUFS of a mean square of 1 (BS.1770-4, equation 2)
_GATE, _RELATIVE_GATE = -70.0, -10.0  # LUFS, and LU below what passes the first gate (BS.1770-4)
_RANGE_RELATIVE_GATE = -20.0  # LU (Tech 3342)
_RANGE_PERCENTILES = (10, 95)
_BLOCK, _SHORT_TERM = 4, 30  # hops: 400 ms, 3 s

_PHASES = np.array([  # the interpolator of BS.1770-4, Annex 2: phase p gives the value at (p + 1/2) / 4 of a sample
    [0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625,
     0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500],
    [-0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250,
     0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375],
])  # fmt: skip
_PHASES = np.concatenate([_PHASES, _PHASES[::-1, ::-1]])  # [4, 12]
_TAPS = _PHASES.shape[1]
_STRETCH = SAMPLE_RATE // 1000  # samples
_GAIN = float(np.abs(_PHASES).sum(axis=1).max())  # no interpolated value exceeds the samples around it by more


class Loudness:
    """Integrated loudness and loudness range. Holds ten numbers a second of music."""

    def __init__(self) -> None:
        self._state = np.zeros((len(_K_WEIGHTING), 2, 2))
        self._powers: list[npt.NDArray[np.float64]] = []  # mean square of each hop, channels summed

    def update(self, block: Waveform) -> None:
        """Take in the next [2, T]: whole hops, but for the last block."""
        from scipy.signal import sosfilt

        filtered, self._state = sosfilt(_K_WEIGHTING, block, zi=self._state)
        hops = filtered[:, : block.shape[1] // HOP * HOP].reshape(2, -1, HOP)
        self._powers.append(np.square(hops).sum(axis=(0, 2)) / HOP)

    def integrated(self) -> float | None:
        """LUFS; None where nothing passes the gate."""
        loud = _gated(self._windows(_BLOCK), _RELATIVE_GATE)
        return float(_lufs(loud.mean())) if loud.size else None

    def range(self) -> float | None:
        """LU; None where nothing passes the gate, or the track is shorter than 3 s."""
        loud = _gated(self._windows(_SHORT_TERM), _RANGE_RELATIVE_GATE)
        if not loud.size:
            return None
        low, high = np.percentile(_lufs(loud), _RANGE_PERCENTILES)
        return float(high - low)

    def _windows(self, hops: int) -> npt.NDArray[np.float64]:
        """Mean square of every stretch of so many hops."""
        powers = np.concatenate([np.zeros(0), *self._powers])
        if len(powers) < hops:
            return np.zeros(0)
        return np.convolve(powers, np.full(hops, 1 / hops), "valid")


def _gated(powers: npt.NDArray[np.float64], relative_gate: float) -> npt.NDArray[np.float64]:
    """The mean squares above the absolute gate, and above one relative to the mean of those."""
    loud = powers[_lufs(powers) > _GATE]
    return loud[_lufs(loud) > _lufs(loud.mean()) + relative_gate] if loud.size else loud


def _lufs(mean_square: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(_OFFSET + 10 * np.log10(mean_square))


class TruePeak:
    """The highest absolute value of the signal between its samples, as BS.1770-4 interpolates it, and at them.

    Only stretches of a millisecond whose samples could lead to a new maximum are interpolated, which gives what
    interpolating all would give: the interpolator cannot exceed the samples it works on by more than `_GAIN`.
    """

    def __init__(self) -> None:
        self.peak = 0.0  # 1 is full scale
        self._tail: Waveform = np.zeros((2, 2 * _STRETCH), np.float32)

    def update(self, block: Waveform) -> None:
        """Take in the next [2, T]; `peak` lags by two stretches until `finish`."""
        self.peak = max(self.peak, float(block.max(initial=0)), -float(block.min(initial=0)))
        audio = np.concatenate([self._tail, block], axis=1)
        count = (audio.shape[1] - _STRETCH) // _STRETCH - 1
        if count > 0:
            self._interpolate(audio[:, : (count + 2) * _STRETCH], count)
            audio = audio[:, count * _STRETCH :]
        self._tail = audio

    def finish(self) -> float:
        """The maximum, with silence behind the last sample."""
        self.update(np.zeros((2, 2 * _STRETCH), np.float32))
        return self.peak

    def _interpolate(self, audio: Waveform, count: int) -> None:
        """Raise `peak` to what lies around all stretches of `audio` but the first and the last."""
        stretches = audio[:, _STRETCH:-_STRETCH].reshape(2, count, _STRETCH)
        wanted = np.abs(stretches).max(axis=2) * _GAIN > self.peak
        if wanted.any():
            windows = np.lib.stride_tricks.sliding_window_view(audio, len(_INTERPOLATOR), axis=1)
            around = windows[:, _STRETCH - (_TAPS - 1) :: _STRETCH][:, :count][wanted]
            between = around @ _INTERPOLATOR
            self.peak = max(self.peak, float(between.max()), -float(between.min()))


def _interpolator() -> npt.NDArray[np.float32]:
    """[around, out]: the four phases as one matrix, for a stretch and all samples that share a tap with it."""
    length = _STRETCH + 2 * (_TAPS - 1)
    matrix = np.zeros((length, length - _TAPS + 1, len(_PHASES)), np.float32)
    for start in range(length - _TAPS + 1):
        matrix[start : start + _TAPS, start] = _PHASES[:, ::-1].T
    return matrix.reshape(length, -1)


_INTERPOLATOR = _interpolator()
