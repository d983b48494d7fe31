"""Decoding: known tones come out with their level, length and channels, and broken files with a reason."""

import io
import struct
from pathlib import Path

import av
import mutagen
import mutagen.apev2
import mutagen.id3
import numpy as np
import pytest
import soundfile
from audio_files import tone, write_tone

from mousai.audio import Waveform
from pipeline.decode import AUDIO_SUFFIXES, HEAD_BYTES, Probe, Unusable, looks_like_audio, probe, stereo_blocks
from pipeline.records import Reason

SUFFIXES = [".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus", ".wma", ".wv", ".tta"]
MP4_ENTRY = b"mp4a\x00\x00\x00\x00\x00\x00\x00\x01"  # the sample entry's kind, in which DRM shows


def measured(path: Path) -> Probe:
    with path.open("rb") as file:
        return probe(file)


def decoded(content: bytes) -> Waveform:
    return np.concatenate(list(stereo_blocks(io.BytesIO(content))), axis=1)


def reason(content: bytes) -> Reason:
    with pytest.raises(Unusable) as caught:
        probe(io.BytesIO(content))
    return caught.value.reason


def encoded(audio: Waveform, sample_rate: int, container: str = "WAV", subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.T, sample_rate, format=container, subtype=subtype)
    return buffer.getvalue()


def amplitude_at(audio: Waveform, frequency: float, sample_rate: int = 48_000) -> float:
    """The amplitude of the sine at `frequency` in one channel [T]."""
    window = np.hanning(len(audio))
    turning = np.exp(-2j * np.pi * frequency / sample_rate * np.arange(len(audio)))
    return float(2 * abs((audio * window) @ turning) / window.sum())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_its_tone_back(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    write_tone(path, 2.0, frequency=1000)
    found = measured(path)
    assert abs(found.length - 96_000) < 3000  # a codec frame or two of padding
    assert (found.channels, found.mix, found.decode_errors) == (2, "stereo", 0)
    for channel in decoded(path.read_bytes())[:, 24_000:72_000]:
        assert 20 * np.log10(amplitude_at(channel, 1000) / 0.5) == pytest.approx(0, abs=0.5)  # lossy ones vary


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_probe_measures_what_the_blocks_hold(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    write_tone(path, 3.0, channels=1)
    found, audio = measured(path), decoded(path.read_bytes())
    assert (found.length, found.peak) == (audio.shape[1], float(np.abs(audio).max()))


def test_48_khz_stereo_passes_unchanged():
    audio = np.random.default_rng(0).uniform(-1.5, 1.5, (2, 100_000)).astype(np.float32)
    assert np.array_equal(decoded(encoded(audio, 48_000)), audio)  # above full scale too


@pytest.mark.parametrize("sample_rate", [8000, 44_100, 96_000, 192_000])
def test_lossless_lengths_are_exact(sample_rate):
    found = probe(io.BytesIO(encoded(tone(1.5, sample_rate=sample_rate), sample_rate, "WAV", "PCM_24")))
    assert (found.decoded_length, found.length) == (1.5 * sample_rate, 72_000)
    assert (found.header_duration, found.sample_rate) == (1.5, sample_rate)


@pytest.mark.parametrize("frequency", [100, 1000, 10_000, 19_000])
def test_resampling_keeps_the_level_and_leaves_no_image(frequency):
    audio = decoded(encoded(tone(4.0, frequency=frequency), 44_100))[0, 48_000:144_000]
    assert 20 * np.log10(amplitude_at(audio, frequency) / 0.5) == pytest.approx(0, abs=0.05)
    window = np.kaiser(len(audio), 24)  # its own side lobes are below -180 dB
    spectrum = np.abs(np.fft.rfft(audio * window))
    far = np.abs(np.fft.rfftfreq(len(audio), 1 / 48_000) - frequency) > 50
    assert 20 * np.log10(spectrum[far].max() / spectrum.max()) < -100


def test_mono_is_doubled_at_its_own_level():
    content = encoded(tone(1.0, sample_rate=48_000, channels=1), 48_000)
    left, right = decoded(content)
    assert np.array_equal(left, tone(1.0, sample_rate=48_000, channels=1)[0])
    assert np.array_equal(left, right)
    assert probe(io.BytesIO(content)).mix == "doubled"


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_surround_is_downmixed_with_the_front_at_unity(subtype):
    half = np.sqrt(0.5)
    levels = [(1, 0), (0, 1), (half, half), (0, 0), (half, 0), (0, half)]  # FL FR FC LFE BL BR (ITU-R BS.775)
    for channel, expected in enumerate(levels):
        surround = np.zeros((6, 48_000), np.float32)
        surround[channel] = 0.5
        content = encoded(surround, 48_000, "WAVEX", subtype)
        assert decoded(content)[:, 24_000] == pytest.approx(np.multiply(expected, 0.5), abs=1e-4)
        assert probe(io.BytesIO(content)).mix == "downmixed"


def test_of_channels_without_a_layout_the_first_two_are_taken():
    audio = np.random.default_rng(0).uniform(-1, 1, (5, 48_000)).astype(np.float32)
    assert np.array_equal(decoded(encoded(audio, 48_000)), audio[:2])


@pytest.mark.parametrize(("container", "subtype"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_the_rate_may_change_in_mid_stream(container, subtype):
    first = encoded(tone(2.0, frequency=500), 44_100, container, subtype)
    second = encoded(tone(2.0, frequency=500, sample_rate=48_000, channels=1), 48_000, container, subtype)
    audio = decoded(first + second)
    assert audio.shape[1] == pytest.approx(192_000, abs=5000)  # MP3 pads
    for part in (audio[0, 10_000:80_000], audio[0, -80_000:-10_000]):
        assert amplitude_at(part, 500) == pytest.approx(0.5, abs=0.03)


def test_nan_becomes_silence_and_is_counted():
    audio = tone(2.0, sample_rate=48_000)
    audio[0, 100], audio[1, 200], audio[0, 300] = np.nan, np.inf, 1e30
    content = encoded(audio, 48_000)
    assert probe(io.BytesIO(content)).decode_errors == 1  # one block of a second
    expected = np.where(np.abs(audio) <= 1, audio, 0)
    assert np.array_equal(decoded(content), expected)


def test_a_truncated_mp3_yields_what_is_left(tmp_path):
    path = tmp_path / "tone.mp3"
    write_tone(path, 10.0)
    content = path.read_bytes()
    found = probe(io.BytesIO(content[: len(content) // 2]))
    assert found.header_duration == pytest.approx(10, abs=0.1)  # the header lies
    assert found.length / 48_000 == pytest.approx(5, abs=0.2)


def test_damage_in_the_middle_costs_little_and_is_counted(tmp_path):
    path = tmp_path / "tone.m4a"
    write_tone(path, 10.0)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    found = probe(io.BytesIO(bytes(content)))
    assert found.decode_errors > 0
    assert found.length > 9 * 48_000


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF])
def test_a_streamed_wav_is_read_to_its_end(claimed):
    content = bytearray(encoded(tone(1.0), 44_100, "WAV", "PCM_16"))
    content[4:8] = struct.pack("<I", claimed)
    where = content.index(b"data") + 4
    content[where : where + 4] = struct.pack("<I", claimed)
    assert probe(io.BytesIO(bytes(content))).decoded_length == 44_100


def test_blocks_stay_small():
    content = encoded(tone(20.0, sample_rate=8000, channels=1), 8000)
    assert max(block.shape[1] for block in stereo_blocks(io.BytesIO(content))) < 10 * 48_000


def retag(path: Path, title: str) -> None:
    """Give the file another title, of another length, and cover art where mutagen makes that easy."""
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    if isinstance(file.tags, mutagen.id3.ID3):
        file.tags.add(mutagen.id3.TIT2(text=[title]))
        file.tags.add(mutagen.id3.APIC(mime="image/png", type=3, data=PNG))
    elif path.suffix == ".m4a":
        file.tags.update({"\xa9nam": [title], "covr": [mutagen.mp4.MP4Cover(PNG, mutagen.mp4.MP4Cover.FORMAT_PNG)]})
    else:
        file.tags["title"] = [title]
    file.save()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_retagging_keeps_id_and_music(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    write_tone(path, 2.0)
    before = measured(path)
    for title in ("short", "long " * 2000, "short"):
        retag(path, title)
        after = measured(path)
        assert (after.id, after.length, after.peak) == (before.id, before.length, before.peak)


@pytest.mark.parametrize("suffix", [".mp3", ".flac"])
def test_tags_behind_the_music_do_not_change_the_id(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    write_tone(path, 2.0)
    content = path.read_bytes()
    path.write_bytes(content[:-40])  # cut inside the last packet, which then reaches up to the tags
    before = measured(path)
    tags = mutagen.apev2.APEv2()
    tags["Title"] = "behind" * 50
    tags.save(path)
    assert measured(path).id == before.id
    path.write_bytes(path.read_bytes() + b"TAG".ljust(128, b"\0"))
    assert measured(path).id == before.id


def test_equal_bytes_at_another_rate_are_another_track():
    audio = tone(1.0)
    low, high = (probe(io.BytesIO(encoded(audio, rate, "WAV", "PCM_16"))).id for rate in (44_100, 48_000))
    assert low != high


@pytest.mark.parametrize("kind", [b"drms", b"enca"])
def test_an_encrypted_mp4_is_drm(tmp_path, kind):
    path = tmp_path / "tone.m4a"
    write_tone(path, 1.0)
    assert MP4_ENTRY in path.read_bytes()
    assert reason(path.read_bytes().replace(MP4_ENTRY, kind + MP4_ENTRY[4:])) is Reason.DRM


def test_an_encrypted_asf_is_drm(tmp_path):
    path = tmp_path / "tone.wma"
    write_tone(path, 1.0)
    content = path.read_bytes()
    size, count = struct.unpack("<QI", content[16:28])
    encryption = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") + struct.pack("<Q", 24 + 16) + bytes(16)
    header = content[:16] + struct.pack("<QI", size + len(encryption), count + 1) + content[28:30] + encryption
    assert reason(header + content[30:]) is Reason.DRM


def test_a_codec_without_a_decoder_is_unsupported():
    content = encoded(tone(1.0), 44_100, "WAV", "PCM_16")
    assert reason(content.replace(b"fmt \x10\0\0\0\x01\0", b"fmt \x10\0\0\0\x77\x77")) is Reason.UNSUPPORTED_CODEC


def test_a_film_without_sound_has_no_audio_stream(tmp_path):
    path = tmp_path / "film.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason(path.read_bytes()) is Reason.NO_AUDIO_STREAM


def test_what_does_not_decode_says_so():
    assert reason(b"fLaC" + bytes(1000)) is Reason.DECODE_FAILED
    assert reason(b"") is Reason.EMPTY


def test_an_mp4_cut_before_its_index_does_not_decode(tmp_path):
    path = tmp_path / "tone.m4a"
    write_tone(path, 2.0)
    assert reason(path.read_bytes()[:-2000]) is Reason.DECODE_FAILED


def test_playlists_are_not_followed(tmp_path, monkeypatch):
    write_tone(tmp_path / "tone.wav", 2.0)
    monkeypatch.chdir(tmp_path)
    assert reason(b"ffconcat version 1.0\nfile tone.wav\n") is Reason.DECODE_FAILED


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_audio_is_known_by_its_content(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    write_tone(path, 0.5)
    head = path.read_bytes()[:HEAD_BYTES]
    assert looks_like_audio(head, suffix)
    assert looks_like_audio(head, "")
    assert suffix in AUDIO_SUFFIXES


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"<!DOCTYPE html><html>",
        b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + b"\xff\xfb" * 9,  # AppleDouble
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"\x00\x00\x00\x18ftypheic",
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"MThd\x00\x00\x00\x06",
        bytes(4096),
    ],
)
def test_what_is_not_audio_is_not_audio_under_any_name(head):
    assert not any(looks_like_audio(head, suffix) for suffix in ["", *AUDIO_SUFFIXES])


def test_bare_mpeg_frames_need_a_fitting_suffix():
    head = b"\xff\xfb\x90\x64" + bytes(413)
    assert looks_like_audio(head, ".MP3")
    assert not looks_like_audio(head, ".bin")


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
