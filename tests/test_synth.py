"""The built-in library: what is promised about its songs, their sound and their files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import mutagen
import numpy as np
import pytest

from pipeline import synth
from pipeline.encode_files import write_broken_files, write_song
from pipeline.instruments import SINE, Sound, tone
from pipeline.songs import SUFFIXES
from pipeline.synth import GENRES, Song, make_library, render, songs

SONGS = songs(0)
GUESTS = [song for song in SONGS if song.duration < 50]


def sketch(song: Song, duration: float = 20.0) -> Sound:
    """The same piece, short and at half the rate, mono [T]: cheap enough for a test."""
    return render(replace(song, duration=duration, sample_rate=24_000)).mean(0)


def decibels(sound: Sound) -> float:
    return float(10 * np.log10(np.mean(sound**2)))


def test_eight_songs_a_genre_by_at_least_eight_artists():
    assert [song.genre for song in SONGS] == [genre for genre in GENRES for _ in range(8)]
    assert len({song.album_artist for song in SONGS}) >= 8
    assert all(45 <= song.duration <= 100 and 1970 <= song.year <= 2023 for song in SONGS)
    assert len({song.path for song in SONGS}) == 32


def test_every_genre_has_every_format_twice_and_both_rates():
    for genre in GENRES:
        mine = [song for song in SONGS if song.genre == genre]
        assert sorted(song.suffix for song in mine) == sorted(2 * SUFFIXES)
        assert sorted(song.sample_rate for song in mine) == 2 * [44_100] + 6 * [48_000]


@pytest.mark.parametrize("song", SONGS, ids=lambda song: str(song.number))
def test_the_genre_tags_name_the_genre_and_no_other(song: Song):
    named = [genre for genre in GENRES if any(f" {genre} " in f" {tag.lower()} " for tag in song.genres)]
    assert named == [song.genre]


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_artists_that_reach_15_percent_are_the_guests(seed: int):
    durations: dict[str, float] = {}
    for song in songs(seed):
        durations[song.album_artist] = durations.get(song.album_artist, 0.0) + song.duration
    smallest = sorted(durations.values())
    needed = 0.15 * sum(smallest)
    assert sum(smallest[1:8]) < needed <= sum(smallest[:8])  # no seven of the eight will do
    assert smallest[7] < 50 < 180 < smallest[8]


def test_nothing_links_one_artist_to_another():
    for key in (lambda song: song.artists, lambda song: [song.album], lambda song: [song.album_artist]):
        owners = {(name, song.album_artist) for song in SONGS for name in key(song)}
        assert len(owners) == len({name for name, _ in owners})
    assert any(len(song.artists) == 2 for song in SONGS)


def test_a_song_is_a_function_of_the_seed():
    song = replace(SONGS[24], duration=9.0, sample_rate=24_000)
    assert np.array_equal(render(song, 0), render(song, 0))
    assert not np.array_equal(render(song, 0), render(song, 1))
    assert not np.array_equal(render(song, 0), render(replace(song, number=1), 0))


def test_a_song_has_its_length_channels_and_type():
    for song in (SONGS[11], SONGS[12]):
        sound = render(replace(song, duration=10.0))
        assert sound.shape == (song.channels, 10 * song.sample_rate) and sound.dtype == np.float32


def test_tones_are_in_tune_and_free_of_aliases():
    for pitch, frequency in ((69, 440.0), (100, 2637.02)):
        sound = tone(pitch, 48_000, 48_000, 1 / np.arange(1, 1_024))
        power = np.abs(np.fft.rfft(sound * np.hanning(48_000))) ** 2
        bins = np.arange(len(power))
        off = np.abs(bins - np.rint(bins / frequency) * frequency)
        assert power[off < 4].sum() > 0.9999 * power.sum()  # -40 dB beside the harmonics


@pytest.fixture(scope="module")
def sketches() -> dict[int, Sound]:
    """Two songs by the main artists and both guests of each genre."""
    return {song.number: sketch(song) for song in SONGS if song.number % 8 in (1, 4, 7, 0)}


def test_genres_are_equally_loud_and_nothing_clips(sketches: dict[int, Sound]):
    levels = [decibels(sound) for sound in sketches.values()]
    assert max(levels) - min(levels) < 2.0
    assert max(np.abs(sound).max() for sound in sketches.values()) < 0.9


def test_a_song_builds_up_and_fades_out(sketches: dict[int, Sound]):
    for sound in sketches.values():
        start, middle, end = sound[: 3 * 24_000], sound[9 * 24_000 : 13 * 24_000], sound[-24_000 // 2 :]
        assert decibels(start) < decibels(middle) - 1
        assert decibels(end) < decibels(middle) - 20


def mel_profile(sound: Sound) -> np.ndarray[Any, Any]:
    """Mean and deviation [2 * 40] of the log-mel bands of seconds 7 to 16."""
    size = 1_024
    frames = np.lib.stride_tricks.sliding_window_view(sound[7 * 24_000 : 16 * 24_000], size)[:: size // 2]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32))) ** 2
    mel = 2_595 * np.log10(1 + np.fft.rfftfreq(size, 1 / 24_000) / 700)
    edges = np.linspace(0, mel[-1], 42)
    filters = np.maximum(0, 1 - np.abs(mel[:, None] - edges[None, 1:-1]) / edges[1])
    bands = np.log(power @ filters + 1e-3)
    return np.concatenate([bands.mean(0), bands.std(0)])


def test_the_nearest_centroid_tells_the_genre_of_artists_it_has_not_heard(sketches: dict[int, Sound]):
    profiles = {number: mel_profile(sound) for number, sound in sketches.items()}
    known = {song.number: song.genre for song in SONGS if song not in GUESTS and song.number in profiles}
    centroids = {genre: np.mean([profiles[n] for n in known if known[n] == genre], 0) for genre in GENRES}
    for song in GUESTS:
        distances = {genre: np.linalg.norm(profiles[song.number] - centroids[genre]) for genre in GENRES}
        assert min(distances, key=lambda genre: distances[genre]) == song.genre, song.title


def tags_of(path: Path) -> dict[str, Any]:
    """Tags by the format's own names, read by mutagen."""
    file = mutagen.File(path)
    assert file is not None
    names = {
        ".mp3": ("TIT2", "TPE1", "TALB", "TPE2", "TCON", "TDRC"),
        ".m4a": ("©nam", "©ART", "©alb", "aART", "©gen", "©day"),
    }.get(path.suffix, ("title", "artist", "album", "albumartist", "genre", "date"))
    return {
        ours: [str(value) for value in (file.tags[name] if path.suffix != ".mp3" else file.tags[name].text)]
        for ours, name in zip(("title", "artists", "album", "album_artist", "genres", "year"), names, strict=True)
    }


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tags_cover_and_sound_come_back_from_every_format(tmp_path: Path, suffix: str, channels: int):
    song = replace(SONGS[20], suffix=suffix, channels=channels, cover=True)
    path = tmp_path / f"x{suffix}"
    audio = 0.5 * np.stack([tone(69, 44_100, song.sample_rate, SINE)] * channels)
    write_song(path, song, audio)
    assert tags_of(path) == {
        "title": [song.title], "artists": list(song.artists), "album": [song.album],
        "album_artist": [song.album_artist], "genres": list(song.genres), "year": [str(song.year)],
    }  # fmt: skip
    with av.open(path) as file:
        assert len(file.streams.video) == 1  # the cover
        decoded = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], 1)
        assert (file.streams.audio[0].rate, file.streams.audio[0].channels) == (song.sample_rate, channels)
    assert abs(decoded.size // (channels if suffix == ".flac" else decoded.shape[0]) - 44_100) <= 2_048
    assert list(tmp_path.iterdir()) == [path]


def test_vorbis_survives_the_length_at_which_libsndfile_crashes(tmp_path: Path):
    song = replace(SONGS[0], suffix=".ogg", cover=False)
    write_song(tmp_path / "x.ogg", song, np.zeros((2, 1 << 21), np.float32))
    assert mutagen.File(tmp_path / "x.ogg").info.length == pytest.approx((1 << 21) / song.sample_rate, abs=0.01)


def test_two_files_are_broken(tmp_path: Path):
    broken = write_broken_files(tmp_path)
    assert len(broken) == 2
    for path in broken:
        with pytest.raises(av.FFmpegError):
            next(av.open(path).decode(audio=0))


def test_a_finished_library_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    short = [replace(song, duration=6.0) for song in (SONGS[16], SONGS[17])]
    monkeypatch.setattr(synth, "songs", lambda seed: short)
    first = make_library(tmp_path, workers=1)
    before = {path: path.stat() for path in tmp_path.rglob("*.*")}
    assert (first.num_tracks, first.num_broken, first.duration, len(before)) == (2, 2, 12.0, 4)
    assert first.bytes == sum(stat.st_size for path, stat in before.items() if path.is_file())
    assert make_library(tmp_path, workers=1) == first
    assert {path: path.stat() for path in tmp_path.rglob("*.*")} == before
