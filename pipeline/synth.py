"""The built-in music library: four genres played by rule, so that the chain runs where there is no music.

A song is laid out in phrases of four bars. Its stems (kick, bass, pad, ...) are rendered once for the chords of the
verse and once for those of the chorus; the band's sections then say which stems sound in which phrase.
Shapes: [2, T] stereo, T samples at the song's rate.
"""

import functools
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mousai.progress import progress
from pipeline import bands, instruments
from pipeline.bands import STEPS, Score, Stem, drum, sampled
from pipeline.encode_files import write_broken_files, write_song
from pipeline.executors import run_jobs
from pipeline.instruments import Sound, add
from pipeline.songs import GENRES, Song, songs

__all__ = ["GENRES", "LibrarySummary", "Song", "make_library", "render", "songs"]

_MAJOR, _MINOR, _PHRYGIAN = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 1, 3, 5, 7, 8, 10)
_RMS = 0.12  # of every song, -18 dB of full scale: nobody shall tell genres by their level
_CEILING = 0.85  # peaks are rounded off below it, because lossy codecs overshoot
_FADE = 8.0  # s at the end of a song, a fifth of it at most


@dataclass(frozen=True, kw_only=True)
class Band:
    """How a genre sounds."""

    tempo: tuple[float, float]  # beats a minute, lowest and highest
    swing: float  # see Score
    scale: tuple[int, ...]  # see Score
    progressions: tuple[tuple[int, int, int, int], ...]  # scale degree a bar
    stems: dict[str, tuple[float, Stem]]  # level in the mix (all stems are rendered equally loud) and player
    sections: dict[str, str]  # the stems that play; one written <stem fades in over the phrase, stem> fades out


_kick, _snare, _cymbal = instruments.kick, instruments.snare, instruments.cymbal

BANDS = {
    "electronic": Band(
        tempo=(121, 132),
        swing=0.0,
        scale=_MINOR,
        progressions=((0, 5, 2, 6), (5, 6, 0, 0), (0, 3, 5, 4), (0, 2, 5, 6), (3, 5, 0, 6), (0, 6, 5, 6), (0, 0, 2, 3)),
        stems={
            "kick": (1.0, drum(partial(_kick, low=50, decay=0.25, click=0.3), "x...x...x...x...")),
            "clap": (0.35, drum(instruments.clap, "....x.......x...")),
            "hat": (0.25, drum(partial(_cymbal, decay=0.12, low=8_000), "..x...x...x...x.", "..x...x...x.o.x.")),
            "ticks": (0.12, drum(partial(_cymbal, decay=0.03, low=9_000), "xoxoxoxoxoxoxoxo", pan=0.4)),
            "bass": (0.75, bands.house_bass),
            "pad": (0.45, partial(bands.house_pad, cutoff=700)),
            "shine": (0.28, partial(bands.house_pad, cutoff=4_000)),
            "pluck": (0.35, bands.house_pluck),
            "lead": (0.35, bands.house_lead),
            "riser": (0.12, bands.riser),
        },
        sections={
            "intro": "kick hat <pluck",
            "build": "kick hat pluck <shine <ticks riser",
            "verse": "kick clap hat bass pluck pad ticks",
            "chorus": "kick clap hat bass pluck shine lead ticks",
            "break": "pad <shine pluck hat riser",
            "outro": "kick hat pluck shine>",
        },
    ),
    "hip hop": Band(
        tempo=(82, 96),
        swing=0.3,
        scale=_MINOR,
        progressions=((0, 0, 3, 4), (5, 4, 0, 0), (0, 5, 3, 4), (3, 0, 3, 0), (0, 3, 0, 6), (3, 4, 0, 0), (0, 2, 3, 4)),
        stems={
            "kick": (0.9, sampled(partial(_kick, low=58, decay=0.16, click=0.5),
                               "x.....x...x.....", "x..x......x..o..", "x......xx.o.....")),
            "snare": (0.6, sampled(partial(_snare, pitch=185, decay=0.16), "....x.......x...", "....x..o....x..o")),
            "hat": (0.12, sampled(partial(_cymbal, decay=0.05, low=6_000), "x.x.x.x.x.x.x.xx", "x.xox.x.x.xox.x.")),
            "sub": (0.9, bands.sub_bass),
            "keys": (0.5, bands.dusty_keys),
            "record": (0.3, bands.old_record),
            "vinyl": (0.05, bands.vinyl),
        },
        sections={
            "intro": "vinyl keys",
            "build": "vinyl keys hat <sub <record",
            "verse": "vinyl keys kick snare hat sub",
            "chorus": "vinyl keys kick snare hat sub record",
            "break": "vinyl record kick sub",
            "outro": "vinyl keys snare> hat> sub>",
        },
    ),
    "metal": Band(
        tempo=(152, 196),
        swing=0.0,
        scale=_PHRYGIAN,
        progressions=((0, 0, 5, 6), (0, 1, 0, 6), (5, 6, 0, 0), (0, 5, 3, 6), (0, 2, 5, 1), (0, 6, 5, 1), (0, 3, 1, 0)),
        stems={
            "kick": (0.6, drum(partial(_kick, low=62, decay=0.06, click=1.0),
                               "xxxxxxxxxxxxxxxx", "x.xxx.xxx.xxx.xx", "xxx.xxx.xxx.xxxx")),
            "blast": (0.55, drum(partial(_kick, low=62, decay=0.06, click=1.0), "x.x.x.x.x.x.x.x.")),
            "snare": (0.5, drum(partial(_snare, pitch=210, decay=0.1), "....x.......x...")),
            "rattle": (0.5, drum(partial(_snare, pitch=210, decay=0.08), ".x.x.x.x.x.x.x.x", "..x...x...x...x.")),
            "ride": (0.13, drum(partial(_cymbal, decay=0.3, low=4_500), "x...x...x...x...", "x.o.x.o.x.o.x.o.")),
            "crash": (0.16, drum(partial(_cymbal, decay=1.5, low=2_500), "x" + "." * 31, pan=0.4)),
            "chug": (1.0, partial(bands.guitars, rhythms=("xxxxxxxxxxxxo.o.", "x.xxx.xxx.xxo...", "xxx.xxx.xxx.o.o."))),
            "wall": (1.0, partial(bands.guitars, rhythms=("oooooooooooooooo", "o.......o...o...", "o.o.o.o.o.o.o.o."))),
            "bass": (0.5, bands.metal_bass),
            "lead": (0.5, bands.twin_lead),
        },
        sections={
            "intro": "wall crash",
            "build": "chug <kick ride crash bass",
            "verse": "chug kick snare ride bass",
            "chorus": "wall blast rattle crash ride bass lead",
            "break": "lead bass crash wall",
            "outro": "wall crash bass kick>",
        },
    ),
    "pop": Band(
        tempo=(98, 122),
        swing=0.0,
        scale=_MAJOR,
        progressions=((0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (3, 4, 0, 5), (0, 2, 3, 4), (3, 0, 4, 5), (1, 4, 0, 5)),
        stems={
            "kick": (0.7, drum(partial(_kick, low=60, decay=0.12, click=0.4),
                               "x.......x.x.....", "x.....x.x.......", "x.......x.......")),
            "snare": (0.45, drum(partial(_snare, pitch=200, decay=0.14), "....x.......x...")),
            "hat": (0.12, drum(partial(_cymbal, decay=0.06, low=7_000), "x.o.x.o.x.o.x.o.")),
            "shaker": (0.1, drum(partial(_cymbal, decay=0.04, low=5_000), "oxxooxxooxxooxxo", pan=0.5)),
            "bass": (0.6, bands.pop_bass),
            "piano": (0.6, bands.piano),
            "organ": (0.25, bands.organ),
            "strum": (0.3, bands.strum),
            "voice": (0.75, bands.voice),
            "bells": (0.25, bands.bells),
        },
        sections={
            "intro": "piano strum <organ <bells",
            "build": "piano strum <bass <shaker bells",
            "verse": "piano kick snare hat bass strum voice",
            "chorus": "piano organ kick snare hat shaker bass strum voice bells",
            "break": "organ voice strum",
            "outro": "piano organ bells bass> shaker>",
        },
    ),
}  # fmt: skip


def sections(count: int) -> list[str]:
    """The names of `count` (at least 3) phrases: a start that builds up, verses and choruses, an end."""
    start = ["intro", "build"] if count >= 6 else ["intro"]
    middle = [("verse", "verse", "chorus", "chorus")[turn % 4] for turn in range(count - len(start) - 1)]
    if len(middle) >= 6:
        middle[len(middle) * 2 // 3] = "break"
    return [*start, *middle[:-1], "chorus", "outro"]


def render(song: Song, seed: int = 0) -> Sound:
    """The song as [channels, T] float in [-1, 1], T = duration times sample rate: its fields and `seed` say it all."""
    band, rng = BANDS[song.genre], np.random.default_rng([seed, song.number])
    step = 15 / rng.uniform(*band.tempo) * song.sample_rate
    root, groove = int(rng.integers(-5, 7)), int(rng.integers(6))  # patterns come in twos and threes
    scores = [
        Score(rate=song.sample_rate, step=step, swing=band.swing, root=root, scale=band.scale, chords=tuple(chords),
              groove=groove)
        for chords in rng.permutation(band.progressions)[:2].tolist()
    ]  # fmt: skip

    levels = dict(zip(band.stems, rng.uniform(0.75, 1.25, len(band.stems)), strict=True))  # no two mixes are alike

    @functools.cache
    def stem(name: str, scene: int) -> Sound:
        level, player = band.stems[name]
        sound = player(scores[scene], np.random.default_rng([seed, song.number, scene, *name.encode()]))
        return sound * np.float32(level * levels[name] / np.sqrt(np.mean(sound**2)))

    length, phrase = round(song.duration * song.sample_rate), scores[0].length(STEPS)
    plan = sections(max(3, round(length / phrase)))
    mix = np.zeros((2, length), np.float32)
    for turn in range(math.ceil(length / phrase)):
        section = plan[min(turn, len(plan) - 1)]
        for part in band.sections[section].split():
            sound = stem(part.strip("<>"), int(section in ("chorus", "break")))
            add(mix, _faded(sound, phrase, part), turn * phrase)
    return _mastered(mix, song)


def _faded(sound: Sound, phrase: int, part: str) -> Sound:
    """A stem with the fade that its part asks for."""
    if part[0] != "<" and part[-1] != ">":
        return sound
    rise = np.minimum(1, np.arange(sound.shape[-1], dtype=np.float32) / phrase)
    return sound * (rise if part[0] == "<" else 1 - rise)


def _mastered(mix: Sound, song: Song) -> Sound:
    """The mix with its last seconds faded out, in the song's channels, at the level that all songs have."""
    fade = round(min(_FADE, song.duration / 5) * song.sample_rate)
    mix[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32) ** 2
    if song.channels == 1:
        mix = mix.mean(0, keepdims=True)
    mix *= np.float32(_RMS / _CEILING / np.sqrt(np.vdot(mix, mix) / mix.size))
    np.tanh(mix, out=mix)
    mix *= np.float32(_CEILING)
    return mix


@dataclass(frozen=True, kw_only=True)
class LibrarySummary:
    """What lies in the folder."""

    num_tracks: int
    num_broken: int
    duration: float  # s
    bytes: int


def make_library(folder: Path, *, seed: int = 0, workers: int) -> LibrarySummary:
    """Write the songs and two broken files into `folder`; files that are there are kept as they are."""
    listed = songs(seed)
    missing = [song for song in listed if not (folder / song.path).exists()]
    with progress("library", len(missing), "tracks") as advance:
        for song, _ in run_jobs(partial(_make, folder=folder, seed=seed), missing, workers):
            advance(1, song.title)
    broken = write_broken_files(folder)
    paths = [*(folder / song.path for song in listed), *broken]
    return LibrarySummary(
        num_tracks=len(listed),
        num_broken=len(broken),
        duration=sum(song.duration for song in listed),
        bytes=sum(path.stat().st_size for path in paths),
    )


def _make(song: Song, *, folder: Path, seed: int) -> None:
    write_song(folder / song.path, song, render(song, seed))
