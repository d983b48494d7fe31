"""A stretch of a file: where it begins and ends, how loud it is, and what cannot be had."""

import numpy as np
import pytest
import soundfile
from audio_files import tone, write_audio, write_tone

import pipeline.excerpt as excerpt_module
from mousai.audio import FULL_SCALE
from mousai.errors import UserError
from pipeline.decode import Unusable, stereo_blocks
from pipeline.excerpt import read_stretch


def test_a_stretch_is_cut_to_the_sample(tmp_path):
    ramp = np.linspace(-0.5, 0.5, 5 * 48_000, dtype=np.float32)
    write_audio(tmp_path / "ramp.wav", np.stack([ramp, -ramp]), 48_000)
    stretch = read_stretch(tmp_path / "ramp.wav", 1.25, 2.5)
    assert (stretch.shape, stretch.dtype) == ((2, 120_000), np.float32)
    assert stretch[0] == pytest.approx(ramp[60_000:180_000], abs=1 / 32_768)  # 16 bits
    assert stretch[1] == pytest.approx(-ramp[60_000:180_000], abs=1 / 32_768)


def test_it_is_stereo_at_48_khz_whatever_the_file(tmp_path):
    write_tone(tmp_path / "mono.mp3", 3.0, sample_rate=22_050, channels=1)
    stretch = read_stretch(tmp_path / "mono.mp3", 0.5, 1.0)
    assert stretch.shape == (2, 48_000)
    assert (stretch[0] == stretch[1]).all()


def test_a_stretch_ends_with_the_file(tmp_path):
    write_tone(tmp_path / "short.flac", 2.0, sample_rate=48_000)
    assert read_stretch(tmp_path / "short.flac", 1.5, 30.0).shape == (2, 24_000)


def test_what_is_too_loud_is_turned_down_and_what_is_soft_is_left(tmp_path):
    audio = np.concatenate([tone(1.0, sample_rate=48_000, amplitude=0.25), tone(1.0, sample_rate=48_000)], axis=1) * 4
    path = tmp_path / "loud.wav"
    soundfile.write(path, audio.T, 48_000, subtype="FLOAT")
    assert np.abs(read_stretch(path, 0.0, 0.9)).max() == pytest.approx(FULL_SCALE, rel=1e-4)  # 1.0 in the file
    loud = read_stretch(path, 0.0, 2.0)
    assert np.abs(loud).max() == pytest.approx(FULL_SCALE, rel=1e-6)  # 2.0 in the file
    assert np.abs(loud[:, :43_200]).max() == pytest.approx(FULL_SCALE / 2, rel=1e-4)


def test_nothing_behind_the_stretch_is_decoded(tmp_path, monkeypatch):
    lengths: list[int] = []

    def noted(file):
        for block in stereo_blocks(file):
            lengths.append(block.shape[1])
            yield block

    monkeypatch.setattr(excerpt_module, "stereo_blocks", noted)
    write_tone(tmp_path / "long.wav", 60.0)
    read_stretch(tmp_path / "long.wav", 2.0, 3.0)
    assert sum(lengths) < 8 * 48_000  # 5 s and a block or two


def test_a_start_behind_the_end_says_where_the_end_is(tmp_path):
    write_tone(tmp_path / "short.wav", 2.0)
    with pytest.raises(UserError, match=r"short\.wav ends at 2\.0 s, before the start at 7 s"):
        read_stretch(tmp_path / "short.wav", 7.0, 1.0)


def test_a_missing_file_and_a_folder_are_said_to_be_so(tmp_path):
    with pytest.raises(UserError, match=r"gone\.wav does not exist"):
        read_stretch(tmp_path / "gone.wav", 0.0, 1.0)
    with pytest.raises(UserError, match="is not a file"):
        read_stretch(tmp_path, 0.0, 1.0)


@pytest.mark.parametrize("content", [b"", b"<html>no song</html>" * 100, b"fLaC" + bytes(30)])
def test_what_is_no_music_is_unusable(tmp_path, content):
    (tmp_path / "song.flac").write_bytes(content)
    with pytest.raises(Unusable):
        read_stretch(tmp_path / "song.flac", 0.0, 1.0)
