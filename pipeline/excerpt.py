"""A stretch of any audio file, to listen to.

Shapes: [2, T], T samples at 48 kHz.
"""

import math
from pathlib import Path

import numpy as np

from mousai.audio import SAMPLE_RATE, Waveform, peak_gain
from mousai.errors import UserError
from pipeline.decode import Unusable, stereo_blocks
from pipeline.records import Reason


def read_stretch(file: Path, start: float, seconds: float) -> Waveform:
    """`seconds` s of the music in `file` from `start` s on, or what there is of it, as [2, T] in [-1, 1].

    Decodes from the beginning, since no format seeks to the sample, and no further than the stretch; turned down as a
    whole where it is louder than full scale. Raises `Unusable`; UserError where there is no such file or stretch.
    """
    if not file.is_file():
        raise UserError(f"{file} is not a file. Name an audio file" if file.exists() else f"{file} does not exist")
    if not (math.isfinite(start) and math.isfinite(seconds)):
        raise UserError(f"from {start} s on for {seconds} s is no stretch of {file}")
    first, end = round(start * SAMPLE_RATE), round((start + seconds) * SAMPLE_RATE)
    stretch: list[Waveform] = []
    position = 0
    with file.open("rb") as content:
        for block in stereo_blocks(content):
            if position + block.shape[1] > first:
                stretch.append(block[:, max(0, first - position) : end - position])
            position += block.shape[1]
            if position >= end:
                break
    if position == 0:
        raise Unusable(Reason.DECODE_FAILED, "no samples came out")
    if position <= first:
        raise UserError(f"{file} ends at {position / SAMPLE_RATE:.1f} s, before the start at {start:g} s")
    audio = np.concatenate(stretch, axis=1)
    return audio * np.float32(peak_gain(float(np.abs(audio).max(initial=0.0))))
