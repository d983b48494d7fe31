"""What a recording is: its hash outlives containers and padding, its fingerprint codecs, level and cuts."""

import io

import numpy as np
import pytest
import soundfile
from audio_files import tune, write_audio

from mousai.audio import SAMPLE_RATE, Waveform
from pipeline.decode import probe, stereo_blocks
from pipeline.duplicates import is_same
from pipeline.fingerprint import Landmarks, Listener, compare

RATE = 16_000  # Hz, of the tunes


def landmarks(audio: Waveform, rate: int = RATE) -> Landmarks:
    """The fingerprint of [C, T] as a WAV."""
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.T, rate, format="WAV", subtype="FLOAT")
    return heard(np.concatenate(list(stereo_blocks(buffer)), axis=1))


def heard(audio: Waveform, block: int = SAMPLE_RATE) -> Landmarks:
    """The fingerprint of [2, T] at 48 kHz, taken in by blocks."""
    listener = Listener()
    for start in range(0, audio.shape[1], block):
        listener.hear(audio[:, start : start + block])
    return listener.landmarks()


def pcm_id(audio: Waveform, rate: int = RATE, container: str = "WAV") -> str | None:
    pcm = np.rint(audio.T * 32_767).astype(np.int16)  # libsndfile's own rounding depends on the container
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate, format=container, subtype="PCM_16")
    return probe(buffer).pcm_id


@pytest.fixture(scope="module")
def song() -> Waveform:
    """[2, T], 40 s: three voices, one at the left, one at the right and one in the middle."""
    voices = tune(40, seed=1)
    return np.stack([voices[0] + voices[1], voices[0] + voices[2]])


@pytest.fixture(scope="module")
def original(song: Waveform) -> Landmarks:
    return landmarks(song)


# The hash of the samples


def test_flac_and_wav_of_one_recording_have_one_hash():
    audio = tune(2, seed=1)[:1]
    assert pcm_id(audio) == pcm_id(audio, container="FLAC") == pcm_id(audio, container="AIFF")
    assert pcm_id(audio) != pcm_id(tune(2, seed=2)[:1])


def test_silence_around_the_music_does_not_count_and_silence_within_does():
    audio = tune(3, seed=1)[:2]
    padded = np.pad(audio, ((0, 0), (12_345, 70_000)))
    assert pcm_id(padded) == pcm_id(audio)
    gap = np.zeros((2, 20_000), np.float32)
    assert pcm_id(np.concatenate([audio, gap, audio], axis=1)) != pcm_id(np.concatenate([audio, audio], axis=1))


def test_equal_samples_at_another_rate_or_width_are_another_recording():
    audio = tune(2, seed=1)[:2]
    interleaved = audio.T.reshape(1, -1)
    assert len({pcm_id(audio), pcm_id(audio, rate=22_050), pcm_id(interleaved)}) == 3


def test_silence_is_no_recording():
    assert pcm_id(np.zeros((2, 50_000), np.float32)) is None


# The fingerprint


@pytest.mark.parametrize(("name", "gain", "trim"), [("a.mp3", 0.3, 3.21), ("a.ogg", 1.0, 0.0), ("a.opus", 0.9, 5.0)])
def test_a_lossy_quieter_and_trimmed_copy_is_the_same_recording(tmp_path, song, original, name, gain, trim):
    write_audio(tmp_path / name, song[:, round(trim * RATE) :] * gain, RATE)
    with (tmp_path / name).open("rb") as file:
        copy = probe(file).landmarks
    likeness = compare(original, copy)
    assert likeness is not None and is_same(original, copy, likeness)
    assert likeness.offset == pytest.approx(trim, abs=0.1)
    assert likeness.overlap == pytest.approx(copy.duration, abs=2)


def test_a_mono_copy_at_another_rate_is_the_same_recording(song, original):
    copy = landmarks(song.mean(axis=0, keepdims=True)[:, ::2], RATE // 2)
    likeness = compare(original, copy)
    assert likeness is not None and is_same(original, copy, likeness)


def test_level_changes_nothing_at_all(original, song):
    quiet = landmarks(song / 16)
    assert np.array_equal(quiet.times, original.times) and np.array_equal(quiet.words, original.words)


def test_the_cut_into_blocks_changes_nothing(song):
    audio = np.repeat(song[:, : 20 * RATE], 3, axis=1)
    whole = heard(audio, audio.shape[1])
    for block in (1_000, 4_801, 48_000):
        pieces = heard(audio, block)
        assert np.array_equal(pieces.times, whole.times) and np.array_equal(pieces.words, whole.words)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: tune(40, seed=2)[:2], id="another song"),
        pytest.param(lambda: tune(40, seed=1, tempo=1.06)[:2], id="the same notes a semitone's worth faster"),
        pytest.param(lambda: tune(40, seed=1)[:1], id="one voice of it"),
    ],
)
def test_other_music_is_not_the_same_recording(original, other):
    landmarks_of_other = landmarks(other())
    likeness = compare(original, landmarks_of_other)
    assert likeness is None or not is_same(original, landmarks_of_other, likeness)


def test_an_excerpt_is_found_and_is_no_copy(original, song):
    excerpt = landmarks(song[:, 12 * RATE : 36 * RATE])
    likeness = compare(original, excerpt)
    assert likeness is not None and likeness.offset == pytest.approx(12, abs=0.1)
    assert likeness.share > 0.8 and not is_same(original, excerpt, likeness)


def test_silence_and_a_moment_have_no_landmarks(song):
    for audio in (np.zeros((2, 10 * RATE), np.float32), song[:, : 2 * RATE], song[:, :10]):
        assert len(landmarks(audio).times) == 0


def test_landmarks_are_half_a_second_apart_so_that_a_minute_takes_at_most_a_kilobyte(original):
    assert np.diff(original.times).min() * 0.032 > 0.4
