"""From the bytes of any audio file to 48 kHz stereo, in one streaming pass and in bounded memory.

`probe` measures the very samples that `stereo_blocks` yields: both run the same generator. FFmpeg (PyAV) demuxes,
decodes and downmixes, soxr resamples.

Shapes in this file: [C, T] C channels of the file, [2, T] stereo at 48 kHz, T samples.
"""

import hashlib
import io
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import BinaryIO, Protocol

import av
import numpy as np
import soxr
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from mousai.audio import SAMPLE_RATE, Waveform
from pipeline.fingerprint import Landmarks, Listener, PcmDigest
from pipeline.quality import Clipping, Quality, QualityMeter
from pipeline.raw_tags import id3_end
from pipeline.records import Reason

HEAD_BYTES = 4096  # what `looks_like_audio` wants to see of a file

AUDIO_SUFFIXES = frozenset({
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".ape", ".asf", ".au", ".caf", ".dff", ".dsf", ".dts", ".eac3", ".flac",
    ".m4a", ".m4b", ".m4p", ".mka", ".mp1", ".mp2", ".mp3", ".mpc", ".mpga", ".oga", ".ogg", ".opus", ".rf64", ".snd",
    ".spx", ".tak", ".tta", ".w64", ".wav", ".wave", ".wma", ".wv",
})  # fmt: skip

_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # what macOS leaves beside a file on foreign disks, named ._FILE
_SIGNATURES = re.compile(
    rb"fLaC|OggS|(RIFF|RF64|BW64)....WAVE|riff\x2e\x91\xcf\x11|FORM....(AIFF|AIFC)|ID3[\x02-\x04]"
    rb"|....ftyp(?!heic|heix|hevc|mif1|msf1|avif|avis|jxl |crx )"  # MP4, but none of the pictures that live in it
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|MAC \S|wvpk|MPCK|MP\+|TTA[12]|tBaK|DSD |FRM8.{8}DSD |caff|\.snd\x00"
    rb"|\x1a\x45\xdf\xa3",  # Matroska
    re.DOTALL,
)
_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf0-\xff]|\x0b\x77|\x7f\xfe\x80\x01")  # MPEG audio, AC-3, DTS: proves little
_RAW_SUFFIXES = frozenset({".aac", ".ac3", ".dts", ".eac3", ".mp1", ".mp2", ".mp3", ".mpga"})

_ENCRYPTED_TAGS = frozenset({"drms", "enca", "aavd"})  # FairPlay, Common Encryption, Audible
_ENCRYPTED_ASF = (  # the GUIDs of ASF's Content Encryption and Extended Content Encryption objects
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
_ASF_HEADER_BYTES = 1 << 16

# Formats whose last packet may run on into tags behind it: MP3, FLAC, Monkey's Audio, TTA, TAK, WavPack, Musepack.
_TAGS_BEHIND = re.compile(rb"ID3|\xff|fLaC|MAC |TTA|tBaK|wvpk|MP")

_OPTIONS = {"protocol_whitelist": "none"}  # FFmpeg opens nothing that a playlist or a reference points to
_BLOCK = SAMPLE_RATE  # samples of the file that are handled together
_RATES = range(1_000, 4_000_000)  # Hz, up to DSD512; another is a broken header, and would swell without bound
_MOST_CHANNELS = 64  # that FFmpeg converts
_LOUDEST = 1e6  # 120 dB above full scale: no recording, but a float file's garbage


class Unusable(Exception):
    """Why no music comes out of a file."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What decoding a whole file tells; the columns of `Track` of the same names, its figures and its fingerprint.

    `decode_errors` also counts the blocks of about a second in which NaN, Inf or absurd values became zeros.
    """

    id: str
    pcm_id: str | None
    container: str
    codec: str
    header_duration: float | None  # s
    decoded_length: int  # samples at `sample_rate`
    length: int  # samples at 48 kHz
    sample_rate: int  # Hz
    channels: int
    mix: str
    peak: float
    decode_errors: int
    quality: Quality
    landmarks: Landmarks


@dataclass(kw_only=True)
class _Tally:
    """What is counted along the way through a file."""

    container: str = ""
    codec: str = ""
    header_duration: float | None = None
    decoded_length: int = 0
    sample_rate: int = 0
    channels: int = 0
    errors: int = 0
    clipping: Clipping | None = None  # counted where it is wanted
    digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    pcm: PcmDigest | None = None  # where it is wanted


class _Resampler(Protocol):
    def resample_chunk(self, x: Waveform, last: bool = False) -> Waveform: ...


def is_apple_double(head: bytes) -> bool:
    """Whether a file that starts with `head` is macOS's bookkeeping."""
    return head.startswith(_APPLE_DOUBLE)


def looks_like_audio(head: bytes, suffix: str) -> bool:
    """Whether a file that starts with `head` (`HEAD_BYTES` of it) and is named with `suffix` holds audio.

    Content decides; only for streams without a header, such as bare MP3, must the suffix fit. MP4 and Matroska may
    turn out to hold nothing but video.
    """
    if _SIGNATURES.match(head):
        return True
    return suffix.lower() in _RAW_SUFFIXES and not is_apple_double(head) and _SYNC.search(head) is not None


def probe(file: BinaryIO) -> Probe:
    """Decode all of `file` and measure it; raises `Unusable`."""
    pcm, listener, clipping, meter = PcmDigest(), Listener(), Clipping(), QualityMeter()
    tally = _Tally(pcm=pcm, clipping=clipping)
    length, peak = 0, 0.0
    for block in _decode(file, tally):
        listener.hear(block)
        length += block.shape[1]
        peak = max(peak, float(block.max()), -float(block.min()))
        meter.update(block)
    if length == 0 or (peak == 0 and tally.errors > 0):
        raise Unusable(Reason.DECODE_FAILED, f"{length} samples of silence and {tally.errors} errors came out")
    return Probe(
        id=tally.digest.hexdigest(),
        pcm_id=pcm.hexdigest(),
        container=tally.container,
        codec=tally.codec,
        header_duration=tally.header_duration,
        decoded_length=tally.decoded_length,
        length=length,
        sample_rate=tally.sample_rate,
        channels=tally.channels,
        mix={1: "doubled", 2: "stereo"}.get(tally.channels, "downmixed"),
        peak=peak,
        decode_errors=tally.errors,
        quality=meter.finish(clipping.finish() if tally.channels <= 2 else None),
        landmarks=listener.landmarks(),
    )


def stereo_blocks(file: BinaryIO) -> Iterator[Waveform]:
    """The music in `file` as float32 [2, T] blocks at 48 kHz, T > 0 and about a second; raises `Unusable`.

    Nothing is clipped: values may exceed 1. NaN and Inf are replaced by 0. Mono is copied to both channels, more than
    two channels are downmixed by their layout with the front channels at unity, stereo is left alone.
    """
    return _decode(file, _Tally())


def _decode(file: BinaryIO, tally: _Tally) -> Iterator[Waveform]:
    """The blocks of `stereo_blocks`; `tally` is complete when they end."""
    for (rate, _, _), alike in groupby(_frames(file, tally), lambda f: (f.sample_rate, f.layout.name, f.format.name)):
        yield from _stereo(_counted(_clean(_planar_blocks(alike), tally), tally, rate), rate)


def _frames(file: BinaryIO, tally: _Tally) -> Iterator[AudioFrame]:
    """All frames of `file` that decode."""
    for start, end in _spans(file):
        try:
            span = _Span(file, start, end)
            container = av.open(span, "r", metadata_errors="replace", buffer_size=1 << 16, options=_OPTIONS)
        except av.FFmpegError as error:
            if not tally.codec:
                raise Unusable(Reason.DECODE_FAILED, f"FFmpeg cannot open it: {error.strerror}") from error
            tally.errors += 1  # only the rest of a chain is lost
            continue
        with container:
            stream = _audio_stream(container)
            if container.duration is not None:
                tally.header_duration = (tally.header_duration or 0.0) + container.duration / 1e6
            tally.container = container.format.name
            yield from _frames_of(container, stream, tally)


def _audio_stream(container: InputContainer) -> AudioStream:
    """The stream to decode; cover art is a video stream to FFmpeg and is passed over."""
    if not container.streams.audio:
        raise Unusable(Reason.NO_AUDIO_STREAM, f"{container.format.name} without an audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None:  # so it is where FFmpeg has no decoder, whatever PyAV's stubs say
        raise Unusable(Reason.UNSUPPORTED_CODEC, f"{container.format.name} with a codec that FFmpeg does not know")
    with suppress(UnicodeDecodeError):  # PyAV insists on ASCII
        if stream.codec_context.codec_tag in _ENCRYPTED_TAGS:
            raise Unusable(Reason.DRM, f"encrypted: {stream.codec_context.codec_tag}")
    stream.codec_context.thread_count = 1  # the files themselves are read in parallel
    return stream


def _frames_of(container: InputContainer, stream: AudioStream, tally: _Tally) -> Iterator[AudioFrame]:
    """All frames of a stream that decode, with the packets hashed and the failures counted on the way."""
    context = stream.codec_context
    tally.codec = tally.codec or context.codec.canonical_name
    # Equal bytes are other music at another rate or width: PCM packets alone do not tell.
    tally.digest.update(f"{context.codec.canonical_name} {context.sample_rate} {context.channels}".encode())
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            tally.digest.update(bytes(packet))
            frames = packet.decode()
        except av.FFmpegError:
            tally.errors += 1  # a demuxer that fails has ended: the next turn returns
            continue
        for frame in frames:
            if frame.sample_rate not in _RATES or frame.layout.nb_channels > _MOST_CHANNELS:
                tally.errors += 1
                continue
            tally.sample_rate = tally.sample_rate or frame.sample_rate
            tally.channels = tally.channels or frame.layout.nb_channels
            tally.decoded_length += frame.samples
            yield frame


def _planar_blocks(frames: Iterable[AudioFrame]) -> Iterator[Waveform]:
    """Frames of one kind as float [1, T] or [2, T] blocks of about `_BLOCK` samples."""
    waiting, convert = AudioFifo(), None
    for frame in frames:
        if convert is None:
            channels = frame.layout.nb_channels
            known = not frame.layout.name.endswith(" channels")  # else FFmpeg has a number of channels, but no layout
            # Converted to float, FFmpeg's matrix is not scaled down: front channels keep their level.
            convert = AudioResampler("fltp", "stereo" if channels > 2 and known else None)
        frame.pts = None  # of a damaged file they may leap, which a FIFO refuses
        waiting.write(frame)
        if waiting.samples >= _BLOCK:
            yield _floats(waiting, convert)
    if convert is not None and waiting.samples:
        yield _floats(waiting, convert)


def _floats(waiting: AudioFifo, convert: AudioResampler) -> Waveform:
    """All that is waiting, as one block."""
    whole = waiting.read()
    assert whole is not None
    return np.concatenate([np.asarray(part.to_ndarray()[:2], np.float32) for part in convert.resample(whole)], axis=1)


def _clean(blocks: Iterable[Waveform], tally: _Tally) -> Iterator[Waveform]:
    for block in blocks:
        sound = np.abs(block) < _LOUDEST  # NaN is not
        if not sound.all():
            tally.errors += 1
            block = np.where(sound, block, np.float32(0))
        if tally.clipping is not None:
            tally.clipping.update(block)
        yield block


def _counted(blocks: Iterable[Waveform], tally: _Tally, rate: int) -> Iterator[Waveform]:
    """The blocks as they are, hashed on the way where that is wanted."""
    for block in blocks:
        if tally.pcm is not None:
            tally.pcm.update(block, rate)
        yield block


def _stereo(blocks: Iterable[Waveform], rate: int) -> Iterator[Waveform]:
    """[1, T] or [2, T] blocks at `rate` as [2, T] blocks at 48 kHz."""
    for block in blocks if rate == SAMPLE_RATE else _resample(blocks, rate):
        if block.shape[1]:
            yield np.ascontiguousarray(block) if block.shape[0] == 2 else np.repeat(block, 2, axis=0)


def _resample(blocks: Iterable[Waveform], rate: int) -> Iterator[Waveform]:
    resampler: _Resampler | None = None
    for block in blocks:
        if resampler is None:
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, block.shape[0], dtype="float32", quality="HQ")
            rest = np.empty((0, block.shape[0]), np.float32)
        yield resampler.resample_chunk(np.ascontiguousarray(block.T)).T
    if resampler is not None:
        yield resampler.resample_chunk(rest, last=True).T


class _Span(io.RawIOBase):
    """Bytes `start` to `end` of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end
        file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        place = min(max(self._start, base + offset), self._end)  # a damaged file may point beyond any offset there is
        return self._file.seek(place) - self._start


def _spans(file: BinaryIO) -> list[tuple[int, int]]:
    """Where the music lies, in bytes: the file without the tags behind it, or the links of a chained Ogg file.

    FFmpeg takes such tags for the end of the last packet, and drops links at another rate than the first.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_ASF_HEADER_BYTES)
    if not head:
        raise Unusable(Reason.EMPTY, "no bytes")
    if any(guid in head for guid in _ENCRYPTED_ASF):
        raise Unusable(Reason.DRM, "encrypted: ASF")
    if head.startswith(b"OggS"):
        return list(pairwise([*_ogg_links(file), end]))
    return [(_behind_tag(file, head), _before_tags(file, end) if _TAGS_BEHIND.match(head) else end)]


def _behind_tag(file: BinaryIO, head: bytes) -> int:
    """Where the music starts: FFmpeg skips an ID3v2 tag itself, but not before Monkey's Audio."""
    if head.startswith(b"ID3"):
        file.seek(id3_end(head))
        if file.read(4) == b"MAC ":
            return id3_end(head)
    return 0


def _ogg_links(file: BinaryIO) -> list[int]:
    """Where the links of an Ogg file start: at a page that begins a stream after one that does not (RFC 3533)."""
    links, position, begun = [0], 0, True
    while True:
        file.seek(position)
        page = file.read(27 + 255)  # the longest header
        if len(page) < 27 or not page.startswith(b"OggS"):
            return links
        begins = bool(page[5] & 2)
        if begins and not begun:
            links.append(position)
        begun = begins
        lacing = page[27 : 27 + page[26]]
        position += 27 + len(lacing) + sum(lacing)


def _before_tags(file: BinaryIO, end: int) -> int:
    """Where the ID3v1 and APEv2 tags at the end of a file start."""
    while end >= 160:
        file.seek(end - 128)
        tail = file.read(128)
        if tail.startswith(b"TAG"):
            end -= 128
        elif tail[-32:-24] == b"APETAGEX":
            size, _, flags = struct.unpack("<3I", tail[-20:-8])
            end -= max(32, size) + (32 if flags >> 31 else 0)  # the size leaves out the header
        else:
            break
    return max(0, end)
