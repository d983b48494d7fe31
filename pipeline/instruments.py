"""The sounds of the built-in library: tones, drums and effects in numpy, without a loop over samples.

Shapes: [T] mono, [2, T] stereo, T samples at `rate` Hz. Pitches are MIDI numbers (69 is A at 440 Hz, 12 an octave).
"""

import functools
import math

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]  # [T] or [2, T]

_TABLE_BITS = 11  # a cycle is 2048 numbers long: steps of -66 dB, below the encoders' noise
_TABLE = 1 << _TABLE_BITS
_CYCLE = 1 << 32  # phases are uint32 fractions of a cycle, so that they wrap by themselves

_k = np.arange(1, _TABLE // 2)  # numbers of the harmonics
SINE = (_k == 1) / 1.0
SAW = 1 / _k
SQUARE = (_k % 2) / _k
MELLOW = 1 / _k**2.2  # flute-like
PIANO = 1 / _k**1.3
REED = np.where(_k <= 12, np.exp(-(((_k - 4) / 4.0) ** 2)) + 0.5 / _k, 0.0)  # a hump like a sung "ah"
ORGAN = np.isin(_k, (1, 2, 3, 4, 6, 8)) / np.sqrt(_k)


def tone(
    pitch: float, length: int, rate: int, harmonics: npt.NDArray[np.float64], *,
    cutoff: float = 16_000.0, phase: float = 0.0, vibrato: float = 0.0,
) -> Sound:  # fmt: skip
    """A steady tone [T] without aliases, dulled above `cutoff` Hz; `phase` in cycles, `vibrato` in semitones."""
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    heights = harmonics / np.sqrt(1 + (_k * frequency / cutoff) ** 6)  # a Butterworth low-pass of 18 dB an octave
    spectrum = np.zeros(_TABLE // 2 + 1, np.complex64)
    spectrum[1:-1] = np.where(_k * frequency < 0.45 * rate, heights, 0.0) * (-0.5j * _TABLE)
    table = np.fft.irfft(spectrum).astype(np.float32)
    step = np.uint32(frequency / rate * _CYCLE)
    phases = np.arange(length, dtype=np.uint32) * step + np.uint32(phase % 1.0 * _CYCLE)
    if vibrato:
        speed = 5.5 * 2 * math.pi  # 5.5 Hz, as singers do
        swing = frequency * vibrato * math.log(2) / 12 / speed  # cycles that the phase swings to make that deviation
        wobble = swing * _CYCLE * np.sin(speed / rate * np.arange(length))
        phases += wobble.astype(np.int64).astype(np.uint32)
    sound: Sound = table[phases >> (32 - _TABLE_BITS)]
    return sound


def ensemble(
    pitch: float, length: int, rate: int, harmonics: npt.NDArray[np.float64], rng: np.random.Generator, *,
    cutoff: float = 16_000.0, detune: float = 0.12,
) -> Sound:  # fmt: skip
    """Three detuned tones a side [2, T], `detune` semitones apart at most: wide and in slow motion."""
    offsets = detune * np.array([(-1.0, 0.1, 0.8), (-0.7, -0.1, 1.0)])
    stem = np.zeros((2, length), np.float32)
    for side, offset in np.ndenumerate(offsets):
        stem[side[0]] += tone(pitch + offset, length, rate, harmonics, cutoff=cutoff, phase=rng.random())
    return stem / np.float32(3)


def struck(
    pitch: float, length: int, rate: int, harmonics: npt.NDArray[np.float64], *, bright: float, decay: float
) -> Sound:
    """A plucked or hammered tone [T]: all die away within `decay` s, what lies above `bright` / 8 Hz much sooner."""
    body = tone(pitch, length, rate, harmonics, cutoff=bright / 8) * fall(length, decay, rate)
    edge = tone(pitch, length, rate, harmonics, cutoff=bright) * fall(length, decay / 5, rate)
    return (body + edge) * swell(length, 0.003, 0.02, rate)


def fall(length: int, decay: float, rate: int) -> Sound:
    """An exponential decay [T] by 20 dB in `decay` s."""
    envelope: Sound = np.exp(np.arange(length, dtype=np.float32) * np.float32(-math.log(10) / (decay * rate)))
    return envelope


def swell(length: int, attack: float, release: float, rate: int) -> Sound:
    """An envelope [T]: up in `attack` s, flat, down in the last `release` s."""
    up, down = max(1, int(attack * rate)), max(1, int(release * rate))
    ramp = np.arange(length, dtype=np.float32)
    return np.minimum(1, np.minimum(ramp / up, ramp[::-1] / down))


def kick(rate: int, *, low: float, decay: float, click: float, rng: np.random.Generator) -> Sound:
    """A bass drum [T]: a sine that drops to `low` Hz, and the click of the beater."""
    length = int(0.4 * rate)
    frequency = low * (1 + 4 * fall(length, 0.05, rate))
    drum = np.sin(2 * np.pi / rate * np.cumsum(frequency)) * fall(length, decay, rate)
    noise = filtered(rng.standard_normal(length, np.float32), rate, low=2_000) * fall(length, 0.01, rate)
    return (drum + click * noise).astype(np.float32) * swell(length, 0.001, 0.02, rate)


def snare(rate: int, *, pitch: float, decay: float, rng: np.random.Generator) -> Sound:
    """A snare drum [T]: two modes of the skin at about `pitch` Hz, and the rattle of the wires."""
    length = int(0.35 * rate)
    time = np.arange(length) / rate
    skin = (np.sin(2 * np.pi * pitch * time) + 0.6 * np.sin(2 * np.pi * 1.6 * pitch * time)) * fall(length, 0.1, rate)
    wires = filtered(rng.standard_normal(length, np.float32), rate, low=900, high=9_000)
    return (0.6 * skin + 0.7 * wires * fall(length, decay, rate)).astype(np.float32) * swell(length, 0.001, 0.02, rate)


def clap(rate: int, rng: np.random.Generator) -> Sound:
    """Hand claps [T]: four bursts of noise 11 ms apart, the last of which rings."""
    length = int(0.35 * rate)
    noise = filtered(rng.standard_normal(length, np.float32), rate, low=900, high=4_500)
    sound = np.zeros(length, np.float32)
    for burst in range(4):
        start = int(0.011 * burst * rate)
        sound[start:] += noise[start:] * fall(length - start, 0.2 if burst == 3 else 0.015, rate)
    return sound * swell(length, 0.0, 0.02, rate)


def cymbal(rate: int, *, decay: float, low: float, rng: np.random.Generator) -> Sound:
    """A hi-hat, shaker or crash [T]: noise above `low` Hz that falls by 20 dB in `decay` s."""
    length = int(min(2.5, 2 * decay) * rate)
    noise = filtered(rng.standard_normal(length, np.float32), rate, low=low)
    return noise * fall(length, decay, rate) * swell(length, 0.001, decay / 4, rate)


def _fft_size(length: int) -> int:
    """The next length with only small factors: at most an eighth more."""
    grain = max(1, 1 << (length.bit_length() - 4))
    return -(-length // grain) * grain


def filtered(sound: Sound, rate: int, *, low: float = 0.0, high: float = 0.0) -> Sound:
    """Only what lies between `low` and `high` Hz (0: no limit), 12 dB an octave beyond; same shape, no delay."""
    length = sound.shape[-1]
    size = _fft_size(length)
    frequency = np.fft.rfftfreq(size, 1 / rate).astype(np.float32)
    curve = np.ones_like(frequency)
    if high:
        curve /= np.sqrt(1 + (frequency / high) ** 4)
    if low:
        curve /= np.sqrt(1 + (low / np.maximum(frequency, 1.0)) ** 4)
    return np.fft.irfft(np.fft.rfft(sound, size) * curve, size)[..., :length].astype(np.float32)


def reverb(sound: Sound, rate: int, *, decay: float, amount: float) -> Sound:
    """[2, T] with a room of `decay` s (to -20 dB) around it, as loud as `amount` says."""
    length = sound.shape[-1]
    size = _fft_size(length + int(2 * decay * rate))
    wet = np.fft.irfft(np.fft.rfft(sound.mean(0), size) * _room(rate, decay, size), size)[:, :length]
    return sound + np.float32(amount) * wet.astype(np.float32)


@functools.lru_cache(maxsize=2)
def _room(rate: int, decay: float, size: int) -> npt.NDArray[np.complex64]:
    """Spectrum [2, size / 2 + 1] of a room's impulse response: stereo noise of unit energy that dies away."""
    length = int(2 * decay * rate)
    noise = np.random.default_rng(0).standard_normal((2, length), np.float32)  # a room is no part of the song
    noise *= fall(length, decay, rate) * swell(length, 0.01, 0.05, rate)
    noise = filtered(noise, rate, low=250, high=5_000)
    return np.fft.rfft(noise / np.sqrt(np.sum(noise**2) / 2), size).astype(np.complex64)


def echo(sound: Sound, delay: int, *, amount: float) -> Sound:
    """[2, T] with three echoes `delay` samples apart that change sides, each `amount` as loud as the last."""
    out = sound.copy()
    for turn in range(1, 4):
        shift = turn * delay
        if shift < sound.shape[-1]:
            out[:, shift:] += np.float32(amount**turn) * np.roll(sound, turn, axis=0)[:, :-shift]
    return out


def add(stem: Sound, sound: Sound, start: int, gain: float = 1.0, pan: float = 0.0) -> None:
    """Mix `sound` ([T] or [2, T]) into `stem` [2, T] from sample `start`; `pan` from -1 (left) to 1 (right)."""
    length = min(sound.shape[-1], stem.shape[-1] - start)
    if length > 0:
        angle = (pan + 1) * np.pi / 4  # equal power
        sides = np.array([[np.cos(angle)], [np.sin(angle)]], np.float32) * np.float32(gain * np.sqrt(2))
        stem[:, start : start + length] += sides * sound[..., :length]
