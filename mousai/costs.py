"""What a library of so many hours costs before anything is started: space, CPU time, GPU time, and what to expect.

Every figure says what it rests on: `Basis`.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from mousai.audio import CHANNELS, SAMPLE_RATE
from mousai.config import Preset
from mousai.presets import PRESETS, find_preset
from mousai.storage import read_json


class Basis(StrEnum):
    """What a figure rests on."""

    COUNTED = "counted"  # exact arithmetic
    MEASURED = "measured"  # by us
    STATED = "stated"  # by the paper
    EXPECTED = "expected"  # arithmetic that nobody has measured


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a figure comes from, and the device that it holds for."""

    basis: Basis
    text: str
    device: str = ""


class Model(NamedTuple):
    """Floating-point operations of a forward pass of one example of the preset's length, and parameters."""

    encoder: float
    dmae: float  # encoder and U-Net
    generator: float
    dmae_parameters: int
    generator_parameters: int


MODELS = {  # printed by: python benchmarks/flops.py
    "paper": Model(20.81e9, 116e9, 133.7e9, 185_107_872, 562_557_248),
    "paper-32x": Model(27.93e9, 122e9, 271.1e9, 181_894_560, 562_557_248),
    "small": Model(3.139e9, 15.12e9, 24.91e9, 46_974_752, 126_905_408),
    "micro": Model(0.5035e9, 3.06e9, 3.223e9, 7_765_088, 7_065_456),
    "tiny": Model(0.1818e9, 1.377e9, 0.594e9, 4_758_208, 1_682_464),
}
_STEP = 3  # forward passes that a training step is worth: the backward pass is two

_CORE = "one core of a 2-core x86 machine"


@dataclass(frozen=True, kw_only=True)
class StageRates:
    """How fast music passes the stages before training, and how small it becomes."""

    ingest: float  # times real time a core
    shard: float
    flac: float  # bytes of WAV
    source: Source


STAGES = StageRates(
    ingest=130, shard=140, flac=0.56,
    source=Source(
        basis=Basis.MEASURED, device=_CORE,
        text="processor time of a worker on 8.8 minutes of Ogg Vorbis, on a busy machine; FLAC: docs/real-run.md",
    ),
)  # fmt: skip
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "results" / "shard.json"  # in a clone, once it has been run


def stage_rates(benchmark: Path = BENCHMARK) -> StageRates:
    """The rates that benchmarks/shard.py measured, where its results lie, else `STAGES`."""
    if not benchmark.exists():
        return STAGES
    found = read_json(benchmark)
    speeds = {each["name"]: statistics.median(each["cpu"]) for each in found["rates"]}
    machine = found["machine"]
    return StageRates(
        ingest=speeds["mousai, ingest alone"],
        shard=speeds["mousai"],
        flac=found["bytes_per_second"] / (SAMPLE_RATE * CHANNELS * 2),
        source=Source(
            basis=Basis.MEASURED,
            device=f"one core of a {machine['cores']}-core {machine['cpu']}",
            text=f"processor time in benchmarks/results/shard.json, {found['date']}: {found['work']}",
        ),
    )


READING = 600  # times real time a core: a FLAC chunk of 44 s is decoded in 66 to 79 ms
READ = Source(basis=Basis.MEASURED, device=_CORE, text="decoding of FLAC chunks of 2^21 samples by libsndfile")
FLAC_LOW, FLAC_HIGH = 0.46, 0.64  # of WAV: several libraries
EXACT = Source(basis=Basis.COUNTED, text="lengths, steps and parameters of the preset")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a device trains, in floating-point operations a second."""

    dmae: float
    generator: float
    source: Source


def _pace(preset: str, dmae: float, generator: float, source: Source) -> Pace:
    """The pace at which steps of `preset` take so many seconds."""
    model, base = MODELS[preset], PRESETS[preset]
    return Pace(
        dmae=_STEP * base.train_dmae.batch_size * model.dmae / dmae,
        generator=_STEP * base.train_generator.batch_size * model.generator / generator,
        source=source,
    )


PAPER_PACE = _pace("paper", 0.605, 0.605, Source(
    basis=Basis.STATED, device="one A100",
    text="the paper, section 5.3: a week for around 1M steps of either stage; scaled by operations a step",
))  # fmt: skip
BEST_PACE = _pace("paper", 0.0875, 0.1075, Source(
    basis=Basis.EXPECTED, device="one A100, bf16, compiled",
    text="75 to 100 ms a step (DMAE) and 95 to 120 ms (generator) of `paper`, by arithmetic; mousai does not compile "
    "its models yet, and has not been measured on a GPU",
))  # fmt: skip
CPU_PACE = _pace("tiny", 0.28, 0.45, Source(
    basis=Basis.MEASURED, device="two cores of an x86 machine",
    text="`tiny`: 57,845 steps of the DMAE in 4.5 h on one of them (its model card), 267 of the generator in 2 min "
    "(docs/demo.md)",
))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Library:
    """How much music there is."""

    duration: float  # s
    chunks: int
    shards: int | None = None  # None: nobody has placed the chunks yet


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One line of a plan."""

    name: str
    value: float
    unit: str  # "", "bytes", "core hours", "GPU hours", "CPU hours" or "passes"
    source: Source
    low: float | None = None
    high: float | None = None


def library_of(hours: float, chunk_length: int) -> Library:
    """`hours` of tracks that are long beside a chunk of `chunk_length` samples."""
    duration = hours * 3600
    return Library(duration=duration, chunks=max(1, round(duration * SAMPLE_RATE / chunk_length)))


def plan_costs(library: Library, preset: Preset) -> list[Cost]:
    """What each stage takes, in the order of the chain; UserError for a preset under another name than its own.

    A preset with overrides is costed with its own steps, batches and lengths, and the operations of the preset that it
    is named after.
    """
    find_preset(preset.name)  # names the known ones
    rates = stage_rates()
    return [*_space(library, preset, rates), *_stages(library, preset, rates), *_training(library, preset)]


def _space(library: Library, preset: Preset, rates: StageRates) -> Iterator[Cost]:
    pcm = library.duration * SAMPLE_RATE * CHANNELS * 2
    latents = library.chunks * preset.chunk_length / preset.dmae.hop * preset.dmae.encoder.latent_channels * 2
    model = MODELS[preset.name]
    state = 16 * (model.dmae_parameters + model.generator_parameters)  # weights, average, two moments of 4 bytes
    shards = library.shards or math.ceil(library.chunks / preset.chunks_per_shard)
    yield Cost(name="chunks", value=library.chunks, unit="", source=EXACT)
    yield Cost(name="shards", value=shards, unit="", source=EXACT)
    yield Cost(name="audio as WAV", value=pcm, unit="bytes", source=EXACT)
    low, high = min(FLAC_LOW, rates.flac), max(FLAC_HIGH, rates.flac)
    yield Cost(
        name="audio as FLAC", value=rates.flac * pcm, low=low * pcm, high=high * pcm, unit="bytes", source=rates.source
    )
    yield Cost(name="latents", value=latents, unit="bytes", source=EXACT)
    yield Cost(name="checkpoints, two a stage", value=2 * state, unit="bytes", source=EXACT)


def _stages(library: Library, preset: Preset, rates: StageRates) -> Iterator[Cost]:
    hours = library.duration / 3600
    yield Cost(name="ingest", value=hours / rates.ingest, unit="core hours", source=rates.source)
    yield Cost(name="shard", value=hours / rates.shard, unit="core hours", source=rates.source)
    yield Cost(name="encode-latents: reading", value=hours / READING, unit="core hours", source=READ)
    work = library.duration * SAMPLE_RATE / PRESETS[preset.name].train_dmae.length * MODELS[preset.name].encoder
    for pace, unit in _paces(preset):
        yield Cost(name="encode-latents: encoding", value=work / pace.dmae / 3600, unit=unit, source=pace.source)


def _training(library: Library, preset: Preset) -> Iterator[Cost]:
    model, base = MODELS[preset.name], PRESETS[preset.name]
    for name, config, flops, length in (
        ("train dmae", preset.train_dmae, model.dmae, base.train_dmae.length),
        ("train generator", preset.train_generator, model.generator, base.train_generator.length),
    ):
        examples = config.steps * config.batch_size
        work = _STEP * examples * flops * config.length / length
        for pace, unit in _paces(preset):
            speed = pace.dmae if name == "train dmae" else pace.generator
            title = f"{name}, {config.steps:,} steps"
            yield Cost(name=title, value=work / speed / 3600, unit=unit, source=pace.source)
        heard = examples * config.length / SAMPLE_RATE / library.duration
        yield Cost(name=f"{name}, passes", value=heard, unit="passes", source=EXACT)


def _paces(preset: Preset) -> list[tuple[Pace, str]]:
    if preset.needs_gpu:
        return [(PAPER_PACE, "GPU hours"), (BEST_PACE, "GPU hours")]
    return [(CPU_PACE, "CPU hours")]


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What so much music can be expected to give; sources in docs/plan.md."""

    hours: float  # from here on
    text: str


EXPECTATIONS = (
    Expectation(hours=0, text="enough to fine-tune a stage and to hear the chain work; a generator learns it by heart"),
    Expectation(
        hours=10,
        text="one style: its timbres and textures, little that was not in the library; a small preset and few steps",
    ),
    Expectation(
        hours=100,
        text="one genre or a few that are well covered; text picks between them; a small preset",
    ),
    Expectation(
        hours=1_000,
        text="several genres; others' users found 1,000 h nearly, and 2,000 h quite, enough for a generator",
    ),
    Expectation(
        hours=2_500,
        text="the paper: many genres, text that is followed; its authors suggest 50,000 h and more to go on",
    ),
)


def expectation_of(hours: float) -> Expectation:
    """What the literature and our judgement say of so many hours."""
    return next(each for each in reversed(EXPECTATIONS) if hours >= each.hours)
