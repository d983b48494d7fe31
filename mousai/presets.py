"""The presets: one instance of every number, from the paper's down to what two CPU cores train in minutes.

`paper` is the paper and nothing else. What other presets switch on beyond it is named in `config.py`.
"""

import dataclasses

from mousai.config import (
    DMAEConfig,
    EncoderConfig,
    EnvelopeConfig,
    FitConfig,
    GeneratorConfig,
    Level,
    Preset,
    UNetConfig,
)
from mousai.errors import UserError


def dmae_levels(channels: tuple[int, ...], factors: tuple[int, ...], items: tuple[int, ...], inject: int, depth: int,
                ) -> tuple[Level, ...]:  # fmt: skip
    """Levels without attention, with `inject` latent channels at `depth`."""
    shape = zip(channels, factors, items, strict=True)
    return tuple(
        Level(channels=c, factor=f, items=n, inject=inject if i == depth else 0) for i, (c, f, n) in enumerate(shape)
    )


def generator_levels(channels: tuple[int, ...], factors: tuple[int, ...], items: tuple[int, ...],
                     attention: tuple[int, ...]) -> tuple[Level, ...]:  # fmt: skip
    """Levels with cross attention everywhere and attention where `attention` is 1."""
    return tuple(
        Level(channels=c, factor=f, items=n, attention=bool(a), cross_attention=True)
        for c, f, n, a in zip(channels, factors, items, attention, strict=True)
    )


PAPER = Preset(
    name="paper",
    about="the paper: 48 kHz stereo, 44 s of context, 857 M parameters, one A100 for a week a stage",
    chunk_length=2**21,
    chunks_per_shard=256,  # about 1 GB of FLAC
    dmae=DMAEConfig(
        unet=UNetConfig(
            in_channels=256,
            levels=dmae_levels(
                (256, 512, 512, 512, 1024, 1024, 1024), (1, 2, 2, 2, 2, 2, 2), (1, 2, 2, 2, 2, 2, 2), 32, depth=4
            ),
        ),
    ),
    generator=GeneratorConfig(
        unet=UNetConfig(
            in_channels=32,
            text_features=768,
            levels=generator_levels(
                (128, 256, 512, 512, 1024, 1024), (1, 2, 2, 2, 2, 2), (2, 2, 2, 4, 8, 8), (0, 0, 1, 1, 1, 1)
            ),
        ),
    ),
    train_dmae=FitConfig(length=2**18),
    train_generator=FitConfig(length=2**21),
)

PAPER_32X = dataclasses.replace(
    PAPER,
    name="paper-32x",
    about="section 6.4: half the compression, twice the latent frames",
    dmae=DMAEConfig(
        unet=UNetConfig(
            in_channels=256,
            levels=dmae_levels(
                (256, 512, 512, 512, 1024, 1024, 1024), (1, 2, 2, 2, 2, 2, 2), (1, 2, 2, 2, 2, 2, 2), 32, depth=3
            ),
        ),
        encoder=EncoderConfig(downs=((2, 4), (1, 8))),  # 512 samples a frame: derived, the paper gives no layout
    ),
)

SMALL = Preset(
    name="small",
    about="a 24 GB card and about a day: the paper's shape at half its width, 22 s of context",
    chunk_length=2**20,
    chunks_per_shard=512,
    dmae=DMAEConfig(
        unet=UNetConfig(
            in_channels=128,
            levels=dmae_levels(
                (128, 256, 256, 256, 512, 512, 512), (1, 2, 2, 2, 2, 2, 2), (1, 2, 2, 2, 2, 2, 2), 32, depth=4
            ),
            time_features=512,
        ),
        encoder=EncoderConfig(channels=256),
    ),
    generator=GeneratorConfig(
        unet=UNetConfig(
            in_channels=32,
            text_features=768,
            levels=generator_levels(
                (128, 256, 384, 384, 512, 512), (1, 2, 2, 2, 2, 2), (2, 2, 2, 4, 4, 4), (0, 0, 1, 1, 1, 1)
            ),
            time_features=512,
            heads=8,
        ),
    ),
    train_dmae=FitConfig(length=2**17, steps=300_000, batch_size=16),
    train_generator=FitConfig(length=2**20, steps=300_000, batch_size=16),
)

MICRO = Preset(
    name="micro",
    about="weights under 30 MB, an hour on a big GPU; encoder and noise options beyond the paper",
    chunk_length=2**20,
    chunks_per_shard=512,
    dmae=DMAEConfig(
        unet=UNetConfig(
            in_channels=128,
            levels=dmae_levels((128, 160, 192, 256), (1, 4, 4, 2), (1, 2, 2, 2), 32, depth=2),
            time_features=256,
            open_branches=True,
        ),
        encoder=EncoderConfig(channels=160, downs=((2, 1), (2, 2)), magnitude="log", standardise=True, whiten=True),
        envelope=EnvelopeConfig(bands=512, channels=128),
        noise_levels="log_snr",
        stem_init="dct",
        gain=25.0,
        pre_emphasis=0.9,
    ),
    generator=GeneratorConfig(
        unet=UNetConfig(
            in_channels=32,
            text_features=384,
            levels=generator_levels((96, 144, 176, 208), (1, 2, 2, 2), (1, 1, 2, 1), (0, 0, 1, 1)),
            time_features=256,
            heads=4,
        ),
        text_encoder="minilm",
        whiten=True,
    ),
    train_dmae=FitConfig(length=2**16, steps=100_000, learning_rate=1e-3, encoder_rate=0.1, warmup=200, texture=4.0),
    train_generator=FitConfig(length=2**20, steps=50_000, learning_rate=5e-4),
)

TINY = Preset(
    name="tiny",
    about="two CPU cores and minutes: what the demo and the tests train; options beyond the paper",
    chunk_length=2**19,
    chunks_per_shard=64,
    validation_share=0.15,  # a small library's 1% would be one song
    needs_gpu=False,
    dmae=DMAEConfig(
        unet=UNetConfig(
            in_channels=128,
            levels=dmae_levels((128, 160, 192), (1, 4, 4), (1, 1, 2), 32, depth=2),
            time_features=128,
            open_branches=True,
        ),
        encoder=EncoderConfig(channels=128, downs=((2, 1), (2, 1)), magnitude="log", standardise=True, whiten=True),
        envelope=EnvelopeConfig(bands=512),
        noise_levels="log_snr",
        stem_init="dct",
        gain=25.0,
        pre_emphasis=0.9,
    ),
    generator=GeneratorConfig(
        unet=UNetConfig(
            in_channels=32,
            text_features=384,
            levels=generator_levels((64, 96, 128), (1, 2, 2), (1, 1, 1), (0, 1, 1)),
            time_features=128,
            heads=4,
            head_features=32,
        ),
        text_encoder="minilm",
        whiten=True,
    ),
    train_dmae=FitConfig(
        length=2**15, steps=20_000, batch_size=4, learning_rate=2e-3, encoder_rate=0.05, ema_beta=0.999, warmup=200,
        texture=4.0,
        checkpoint_every=500, validate_every=500, preview_every=5_000, validation_examples=16,
    ),
    train_generator=FitConfig(
        length=2**19, steps=5_000, batch_size=16, learning_rate=2e-3,
        checkpoint_every=200, validate_every=100, preview_every=1_000, validation_examples=32,
    ),
)  # fmt: skip

PRESETS = {preset.name: preset for preset in (PAPER, PAPER_32X, SMALL, MICRO, TINY)}


def find_preset(name: str) -> Preset:
    """The preset called `name`; UserError with the known names otherwise."""
    if name not in PRESETS:
        raise UserError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
