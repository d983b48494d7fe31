"""Four bands that play by rule: what each stem (kick, bass, pad, ...) of each genre does in a phrase of four bars.

Shapes: [2, T] stereo, T samples at the score's rate.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline import instruments as play
from pipeline.instruments import Sound, add, ensemble, reverb, struck, tone

BARS, STEPS = 4, 64  # a phrase has four bars of sixteen steps
_TAIL = 2.0  # s that a phrase may ring into the next


@dataclass(frozen=True, kw_only=True)
class Score:
    """Four bars to be played: what all stems of a phrase share."""

    rate: int  # Hz
    step: float  # samples a sixteenth note
    swing: float  # how late every second sixteenth comes, in sixteenths
    root: int  # of the key, in semitones from middle C
    scale: tuple[int, ...]  # semitones above the root
    chords: tuple[int, ...]  # scale degree a bar, from 0
    groove: int  # which of a stem's patterns

    def start(self, step: int) -> int:
        """The sample at which a step begins."""
        return round((step + self.swing * (step % 2)) * self.step)

    def length(self, steps: float) -> int:
        """Samples that so many steps last."""
        return round(steps * self.step)

    def blank(self) -> Sound:
        """An empty stem, tail included."""
        return np.zeros((2, self.length(STEPS) + round(_TAIL * self.rate)), np.float32)

    def pitch(self, degree: int) -> int:
        """The pitch of a scale degree, 0 being the root of the key."""
        octave, place = divmod(degree, len(self.scale))
        return 60 + self.root + 12 * octave + self.scale[place]

    def chord(self, bar: int, low: int, size: int = 3) -> list[int]:
        """The pitches of a bar's chord in thirds, each folded into the octave from `low`: neighbours move little."""
        return sorted(low + (self.pitch(self.chords[bar] + 2 * third) - low) % 12 for third in range(size))

    def bass(self, bar: int, low: int) -> int:
        """The root of a bar's chord in the octave from `low`."""
        return low + (self.pitch(self.chords[bar]) - low) % 12

    def hits(self, *patterns: str) -> Iterator[tuple[int, float]]:
        """(step, loudness) of a pattern of 16 to 64 steps, repeated: x is loud, o soft; the groove picks which."""
        pattern = patterns[self.groove % len(patterns)]
        for step in range(STEPS):
            if (mark := pattern[step % len(pattern)]) != ".":
                yield step, 1.0 if mark == "x" else 0.5


Stem = Callable[[Score, np.random.Generator], Sound]


def drum(make: Callable[..., Sound], *patterns: str, pan: float = 0.0) -> Stem:
    """The stem of the drum that `make(rate, rng=rng)` builds, each hit a little different in loudness."""

    def part(score: Score, rng: np.random.Generator) -> Sound:
        sound, stem = make(score.rate, rng=rng), score.blank()
        for step, loud in score.hits(*patterns):
            add(stem, sound, score.start(step), loud * rng.uniform(0.85, 1.0), pan)
        return stem

    return part


def sampled(make: Callable[..., Sound], *patterns: str) -> Stem:
    """The same drum from an old sampler, which keeps little above 4 kHz."""
    return drum(lambda rate, rng: play.filtered(make(rate, rng=rng), rate, high=4_000), *patterns)


def tune(score: Score, rng: np.random.Generator, *rhythms: str) -> Iterator[tuple[int, int, int]]:
    """(step, steps, degree): one motif on the chords of four bars, at rest on the fourth."""
    onsets = [step for step, _ in score.hits(*rhythms) if step < 16]
    steps = [b - a for a, b in zip(onsets, [*onsets[1:], 16], strict=True)]
    moves = [int(rng.choice((0, 2, 4))), *rng.choice((-2, -1, -1, 1, 1, 2), len(onsets) - 1)]
    motif = np.clip(np.cumsum(moves), -2, 7)
    for bar, chord in enumerate(score.chords):
        base = chord - 7 if chord > 3 else chord  # the nearer way round
        if bar < BARS - 1:
            yield from ((bar * 16 + at, n, base + int(d)) for at, n, d in zip(onsets, steps, motif, strict=True))
        else:
            yield bar * 16, 4, base + int(motif[0])
            yield bar * 16 + 4, 10, base + 2


def pumped(score: Score, stem: Sound) -> Sound:
    """The stem [2, T] pushed down by each beat of the bass drum, as a compressor would."""
    length = score.length(4)
    once = 1 - 0.95 * play.fall(length + 1, 0.35, score.rate)
    place = np.arange(stem.shape[-1]) % (4 * score.step)
    return stem * once[place.astype(np.int64)]


# ---------------------------------------------------------------------------------------------------- electronic


def house_pad(score: Score, rng: np.random.Generator, cutoff: float) -> Sound:
    stem, length = score.blank(), score.length(16)
    for bar in range(BARS):
        for note in score.chord(bar, 55, 4):
            sound = ensemble(note, length, score.rate, play.SAW, rng, cutoff=cutoff)
            add(stem, sound * play.swell(length, 0.05, 0.1, score.rate), score.start(16 * bar))
    return reverb(pumped(score, stem), score.rate, decay=1.0, amount=0.5)


def house_bass(score: Score, rng: np.random.Generator) -> Sound:
    stem, length = score.blank(), score.length(1.7)
    for step, loud in score.hits("..x...x...x...x.", "..xx..xo..xx..xo", ".oxo.oxo.oxo.oxx"):
        sound = struck(score.bass(step // 16, 33), length, score.rate, play.SAW, bright=2_400, decay=0.6)
        add(stem, sound, score.start(step), loud)
    return pumped(score, stem)


def house_pluck(score: Score, rng: np.random.Generator) -> Sound:
    stem, length = score.blank(), score.length(4)
    order = rng.permutation(4)
    for turn, (step, loud) in enumerate(score.hits("x.xo.xx.x.xo.x.x", "xoxoxoxoxoxoxoxo", "x..x..x..x..x.x.")):
        note = score.chord(step // 16, 67, 4)[order[turn % 4]]
        sound = struck(note, length, score.rate, play.SQUARE, bright=7_000, decay=0.25)
        add(stem, sound, score.start(step), loud, 0.6 * (-1) ** turn)
    return reverb(pumped(score, play.echo(stem, score.length(3), amount=0.5)), score.rate, decay=1.0, amount=0.3)


def house_lead(score: Score, rng: np.random.Generator) -> Sound:
    stem = score.blank()
    for step, steps, degree in tune(score, rng, "x..x..x...x.x...", "x.x..x.x..x..x..", "x..x..x..x..x.x."):
        length = score.length(min(steps, 2) * 0.8)
        for octave, gain in ((0, 1.0), (7, 0.5)):
            sound = ensemble(score.pitch(degree + octave), length, score.rate, play.SAW, rng, cutoff=5_000)
            add(stem, sound * play.swell(length, 0.004, 0.05, score.rate), score.start(step), gain)
    return reverb(pumped(score, play.echo(stem, score.length(3), amount=0.35)), score.rate, decay=1.0, amount=0.3)


def riser(score: Score, rng: np.random.Generator) -> Sound:
    stem, length = score.blank(), score.length(STEPS)
    noise = rng.standard_normal((2, length), np.float32)
    stem[:, :length] = play.filtered(noise, score.rate, low=1_500) * np.linspace(0, 1, length, dtype=np.float32) ** 5
    return stem


# ------------------------------------------------------------------------------------------------------- hip hop


def dusty_keys(score: Score, rng: np.random.Generator) -> Sound:
    stem = score.blank()
    for step, loud in score.hits("x.....x...o.....", "x..o......x.....", "x.......x..o...."):
        for strum, note in enumerate(score.chord(step // 16, 56, 4)):
            sound = struck(note - 0.2, score.length(7), score.rate, play.PIANO, bright=4_500, decay=1.2)
            add(stem, sound, score.start(step) + strum * score.rate // 90, loud, rng.uniform(-0.4, 0.4))
    return reverb(play.filtered(stem, score.rate, low=150, high=1_800), score.rate, decay=0.4, amount=0.3)


def sub_bass(score: Score, rng: np.random.Generator) -> Sound:
    stem = score.blank()
    for step, loud in score.hits("x.....x...x.....", "x..x......x..o..", "x......xx.o....."):
        length = score.length(5)
        sound = tone(score.bass(step // 16, 31), length, score.rate, play.MELLOW, cutoff=140)
        add(stem, sound * play.swell(length, 0.01, 0.08, score.rate) * play.fall(length, 1.2, score.rate),
            score.start(step), loud)  # fmt: skip
    return stem


def old_record(score: Score, rng: np.random.Generator) -> Sound:
    """A flute and strings as if sampled from vinyl."""
    stem = score.blank()
    for step, steps, degree in tune(score, rng, "x..x..x.....x...", "x.....x.x.......", "..x...x..x..x..."):
        length = score.length(steps)
        sound = tone(score.pitch(degree), length, score.rate, play.MELLOW, cutoff=1_500, vibrato=0.3)
        add(stem, sound * play.swell(length, 0.04, 0.1, score.rate), score.start(step), pan=-0.3)
    for bar in range(BARS):
        length = score.length(16)
        for note in score.chord(bar, 62):
            sound = ensemble(note, length, score.rate, play.SAW, rng, cutoff=600)
            add(stem, sound * play.swell(length, 0.3, 0.3, score.rate), score.start(16 * bar), 0.5)
    return reverb(play.filtered(stem, score.rate, low=200, high=2_500), score.rate, decay=1.0, amount=0.4)


def vinyl(score: Score, rng: np.random.Generator) -> Sound:
    """The hiss and crackle of an old record: about eight clicks a second."""
    stem, length = score.blank(), score.length(STEPS)
    noise = np.float32(0.05) * rng.standard_normal(length, np.float32)
    clicks = rng.integers(0, length, 8 * length // score.rate)
    noise[clicks] += rng.exponential(1.5, len(clicks)) * rng.choice((-1, 1), len(clicks))
    add(stem, play.filtered(noise, score.rate, low=800, high=5_000), 0)
    return stem


# --------------------------------------------------------------------------------------------------------- metal


def _power_chord(score: Score, pitch: float, length: int, rng: np.random.Generator, *, muted: bool) -> Sound:
    """Root, fifth and octave through an amplifier [T]."""
    strings = np.zeros(length, np.float32)
    for interval in (0, 7, 12):
        cutoff = 1_100 if muted else 4_000
        strings += tone(pitch + interval, length, score.rate, play.SAW, cutoff=cutoff, phase=rng.random())
    strings *= play.fall(length, 0.16 if muted else 3.0, score.rate)
    return np.tanh(5 * strings) * play.swell(length, 0.002, 0.015, score.rate)


def guitars(score: Score, rng: np.random.Generator, *, rhythms: tuple[str, ...]) -> Sound:
    """Two rhythm guitars, hard left and right: x is the key's root, palm-muted, and o the bar's chord, left to ring."""
    stem = score.blank()
    hits = list(score.hits(*rhythms))
    ends = [*(step for step, _ in hits[1:]), STEPS]
    for side in (-1, 1):  # the same part twice, a few cents and milliseconds apart, as it is recorded
        for (step, loud), end in zip(hits, ends, strict=True):
            muted = loud == 1.0
            pitch = 36 + score.root % 12 if muted else score.bass(step // 16, 36)
            sound = _power_chord(score, pitch + 0.05 * side, score.length(end - step), rng, muted=muted)
            add(stem, sound, score.start(step) + round(rng.uniform(0, 0.006) * score.rate), pan=0.85 * side)
    return play.filtered(stem, score.rate, low=90, high=4_200)  # the loudspeaker


def metal_bass(score: Score, rng: np.random.Generator) -> Sound:
    stem, length = score.blank(), score.length(2)
    for step in range(0, STEPS, 2):
        sound = np.tanh(3 * tone(score.bass(step // 16, 28), length, score.rate, play.SAW, cutoff=900))
        add(stem, sound * play.swell(length, 0.003, 0.02, score.rate), score.start(step))
    return play.filtered(stem, score.rate, low=45, high=1_800)


def twin_lead(score: Score, rng: np.random.Generator) -> Sound:
    """Two lead guitars in thirds."""
    stem = score.blank()
    for step, steps, degree in tune(score, rng, "x.x.x.x.x...x.x.", "x...x.x.x.x.x.x.", "xxxx..x.x.x.x..."):
        length = score.length(steps)
        for third, pan in ((0, -0.4), (2, 0.4)):
            sound = tone(score.pitch(degree + third + 7), length, score.rate, play.SAW, cutoff=5_000, vibrato=0.25)
            add(stem, np.tanh(4 * sound) * play.swell(length, 0.004, 0.02, score.rate), score.start(step), pan=pan)
    stem = play.filtered(stem, score.rate, low=200, high=4_500)
    return reverb(play.echo(stem, score.length(6), amount=0.3), score.rate, decay=1.0, amount=0.3)


# ----------------------------------------------------------------------------------------------------------- pop


def piano(score: Score, rng: np.random.Generator) -> Sound:
    stem = score.blank()
    for step, loud in score.hits("x..x..x...o.x...", "x...o...x...o...", "x...x..x..x.o..."):
        bar = step // 16
        for note in (*score.chord(bar, 59), score.bass(bar, 43)):
            sound = struck(note, score.length(6), score.rate, play.PIANO, bright=9_000, decay=1.4)
            add(stem, sound, score.start(step), loud, (note - 60) / 40)
    return reverb(stem, score.rate, decay=1.0, amount=0.25)


def organ(score: Score, rng: np.random.Generator) -> Sound:
    stem, length = score.blank(), score.length(16)
    for bar in range(BARS):
        for note in score.chord(bar, 64):
            sound = ensemble(note, length, score.rate, play.ORGAN, rng, detune=0.05)
            add(stem, sound * play.swell(length, 0.03, 0.06, score.rate), score.start(16 * bar))
    return reverb(stem, score.rate, decay=1.0, amount=0.3)


def strum(score: Score, rng: np.random.Generator) -> Sound:
    """An acoustic guitar, strings 10 ms apart."""
    stem = score.blank()
    for step, loud in score.hits("x...x.ox.ox.x.o.", "x.o.x.o.x.o.x.oo", "x..ox..ox..ox.o."):
        for string, note in enumerate((*score.chord(step // 16, 52), *score.chord(step // 16, 64))):
            sound = struck(note, score.length(4), score.rate, play.SAW, bright=8_000, decay=0.5)
            add(stem, sound, score.start(step) + string * score.rate // 100, loud * rng.uniform(0.7, 1), 0.5)
    return play.filtered(stem, score.rate, low=200)


def pop_bass(score: Score, rng: np.random.Generator) -> Sound:
    stem, length = score.blank(), score.length(2)
    for step, loud in score.hits("x..x..x.x..x..x.", "x.o.x.o.x.o.x.o.", "x.....x.x.....oo"):
        sound = struck(score.bass(step // 16, 33), length, score.rate, play.SAW, bright=3_000, decay=0.9)
        add(stem, sound, score.start(step), loud)
    return stem


def voice(score: Score, rng: np.random.Generator) -> Sound:
    """A sung "ah" and, softer, a second voice a third above."""
    stem = score.blank()
    for step, steps, degree in tune(score, rng, "x...x.x.x..x..x.", "..x.x.x.x...x.x.", "x.x.x..x..x.x..."):
        length = score.length(steps * 0.95)
        for third, gain, pan in ((0, 1.0, 0.0), (2, 0.4, -0.5)):
            sound = tone(score.pitch(degree + third), length, score.rate, play.REED, cutoff=5_000, vibrato=0.35)
            add(stem, sound * play.swell(length, 0.04, 0.08, score.rate), score.start(step), gain, pan)
    return reverb(play.echo(stem, score.length(4), amount=0.25), score.rate, decay=1.0, amount=0.45)


def bells(score: Score, rng: np.random.Generator) -> Sound:
    stem = score.blank()
    for turn, (step, loud) in enumerate(score.hits("x...x...x...x...", "..x...x...x...x.", "x..x..x..x..x...")):
        note = score.chord(step // 16, 79)[turn % 3]
        add(stem, struck(note, score.length(8), score.rate, play.MELLOW, bright=16_000, decay=0.8),
            score.start(step), loud, 0.4)  # fmt: skip
    return reverb(stem, score.rate, decay=1.0, amount=0.4)
