"""Every number of the models and their training: frozen dataclasses, and the presets that are instances of them.

Lengths are samples at 48 kHz unless a name says frames; one latent frame is `DMAEConfig.hop` samples.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from mousai.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of a U-Net, outermost first (section 4.1)."""

    channels: int
    factor: int = 2  # time steps in per time step out
    items: int = 1  # repetitions of [R, M, I?, A?, C?], once on the way down and once on the way up
    attention: bool = False
    cross_attention: bool = False
    inject: int = 0  # channels of the latent that is concatenated here; 0: none


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The 1D U-Net that both stages use (section 4.1)."""

    in_channels: int
    levels: tuple[Level, ...]
    time_features: int = 1024
    heads: int = 12
    head_features: int = 64
    groups: int = 8  # of GroupNorm
    text_features: int = 0  # width of the text embedding; 0: no text

    @property
    def divisor(self) -> int:
        """Input lengths must be multiples of this."""
        return math.prod(level.factor for level in self.levels)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The magnitude encoder (section 4.2)."""

    channels: int = 512
    downs: tuple[tuple[int, int], ...] = ((2, 4), (2, 8))  # (stride, residual blocks after it)
    latent_channels: int = 32
    n_fft: int = 1023  # gives exactly 512 bins; the paper's 1024 would give 513
    hop: int = 256  # samples
    magnitude: Literal["linear", "log"] = "linear"  # the paper's is linear
    latent_norm: bool = False  # beyond the paper: BatchNorm before the tanh, which keeps it from saturating


@dataclass(frozen=True, kw_only=True)
class DMAEConfig:
    """Diffusion magnitude autoencoder: U-Net, encoder and the learned patch stem between audio and U-Net."""

    unet: UNetConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    patch: int = 64  # samples per U-Net time step
    stem_init: Literal["random", "dct"] = "random"  # beyond the paper: "dct" starts from an orthogonal transform
    gain: float = 1.0  # beyond the paper: audio is multiplied by this before diffusion, towards unit variance
    pre_emphasis: float = 0.0  # beyond the paper: x[t] - a·x[t-1] before diffusion, undone after it

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return self.encoder.hop * math.prod(stride for stride, _ in self.encoder.downs)

    @property
    def divisor(self) -> int:
        """Audio lengths are padded to multiples of this many samples."""
        return math.lcm(self.patch * self.unet.divisor, self.hop)


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Text-conditional latent generator (section 4.3)."""

    unet: UNetConfig
    text_encoder: str = "google-t5/t5-base"
    text_length: int = 64  # tokens: longer prompts are cut
    whiten: bool = False  # beyond the paper: latents scaled to mean 0 and std 1 a channel, with the training statistics


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained; the defaults are section 5.2."""

    steps: int = 1_000_000
    batch_size: int = 32
    length: int  # samples of audio per example
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.95, 0.999)
    eps: float = 1e-6
    weight_decay: float = 1e-3
    ema_beta: float = 0.995
    ema_power: float = 0.7
    text_drop: float = 0.1  # probability that an example's text is replaced by the learned mask
    seed: int = 0
    checkpoint_every: int = 5_000  # steps
    validate_every: int = 5_000  # steps
    preview_every: int = 20_000  # steps
    validation_examples: int = 64


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that `mousai.toml` can name or override."""

    name: str
    about: str
    chunk_length: int
    chunks_per_shard: int
    dmae: DMAEConfig
    generator: GeneratorConfig
    train_dmae: FitConfig
    train_generator: FitConfig
    needs_gpu: bool = True


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
        ),
        encoder=EncoderConfig(channels=160, downs=((2, 1), (2, 2)), magnitude="log", latent_norm=True),
        stem_init="dct",
        gain=10.0,
        pre_emphasis=0.9,
    ),
    generator=GeneratorConfig(
        unet=UNetConfig(
            in_channels=32,
            text_features=384,
            levels=generator_levels((96, 160, 192, 224), (1, 2, 2, 2), (1, 1, 2, 2), (0, 0, 1, 1)),
            time_features=256,
            heads=4,
        ),
        text_encoder="minilm",
        whiten=True,
    ),
    train_dmae=FitConfig(length=2**16, steps=100_000, learning_rate=5e-4),
    train_generator=FitConfig(length=2**20, steps=50_000, learning_rate=5e-4),
)

TINY = Preset(
    name="tiny",
    about="two CPU cores and minutes: what the demo and the tests train; options beyond the paper",
    chunk_length=2**19,
    chunks_per_shard=64,
    needs_gpu=False,
    dmae=DMAEConfig(
        unet=UNetConfig(
            in_channels=128,
            levels=dmae_levels((128, 160, 192), (1, 4, 4), (1, 1, 2), 32, depth=2),
            time_features=128,
        ),
        encoder=EncoderConfig(channels=128, downs=((2, 1), (2, 1)), magnitude="log", latent_norm=True),
        stem_init="dct",
        gain=10.0,
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
        length=2**15, steps=20_000, batch_size=4, learning_rate=2e-3,
        checkpoint_every=500, validate_every=250, preview_every=1_000, validation_examples=16,
    ),
    train_generator=FitConfig(
        length=2**19, steps=5_000, batch_size=16, learning_rate=2e-3,
        checkpoint_every=200, validate_every=100, preview_every=500, validation_examples=32,
    ),
)  # fmt: skip

PRESETS = {preset.name: preset for preset in (PAPER, PAPER_32X, SMALL, MICRO, TINY)}


def find_preset(name: str) -> Preset:
    """The preset called `name`; UserError with the known names otherwise."""
    if name not in PRESETS:
        raise UserError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
