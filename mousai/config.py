"""What can be said about the models and their training: frozen dataclasses, and their way in and out of JSON or TOML.

Lengths are samples at 48 kHz unless a name says frames; one latent frame is `DMAEConfig.hop` samples.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from mousai.errors import UserError


def _require(holds: bool, what: str) -> None:
    """ValueError, which `from_dict` turns into the user's, unless `holds`; a comparison with NaN never does."""
    if not holds:
        raise ValueError(what)


def _require_positive(config: Any, *names: str) -> None:
    for name in names:
        _require(getattr(config, name) >= 1, f"{name} is {getattr(config, name)}, and should be 1 or more")


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of a U-Net, outermost first (section 4.1)."""

    channels: int
    factor: int = 2  # time steps in per time step out
    items: int = 1  # repetitions of [R, M, I?, A?, C?], once on the way down and once on the way up
    attention: bool = False
    cross_attention: bool = False
    inject: int = 0  # channels of the latent that is concatenated here; 0: none

    def __post_init__(self) -> None:
        _require_positive(self, "channels", "factor", "items")
        _require(self.inject >= 0, f"inject is {self.inject}, and should be 0 or more")


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
    open_branches: bool = False  # beyond the paper: every level's branch starts at full scale instead of near zero

    def __post_init__(self) -> None:
        _require_positive(self, "in_channels", "time_features", "heads", "head_features", "groups")
        _require(len(self.levels) > 0, "levels is empty, and should have one at least")

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
    standardise: bool = False  # beyond the paper: every bin of the magnitudes brought to mean 0 and std 1
    whiten: bool = False  # beyond the paper: channels decorrelated before the tanh, which keeps them all alive

    def __post_init__(self) -> None:
        _require_positive(self, "channels", "latent_channels", "hop")
        _require(self.n_fft >= self.hop, f"n_fft is {self.n_fft}, and should be at least hop, {self.hop}")
        _require(self.n_fft % 2 == 1, f"n_fft is {self.n_fft}, and should be odd: then T samples give T / hop frames")
        _require(all(stride >= 1 and blocks >= 0 for stride, blocks in self.downs), "downs should be [stride, blocks]")


@dataclass(frozen=True, kw_only=True)
class EnvelopeConfig:
    """Beyond the paper: the decoder is preconditioned by band powers that are predicted from the latent."""

    bands: int = 0  # of the MDCT, which has as many samples a frame; 0: no preconditioning
    channels: int = 256
    blocks: int = 2  # residual

    def __post_init__(self) -> None:
        _require_positive(self, "channels")
        _require(self.bands >= 0, f"bands is {self.bands}, and should be 0 or more")
        _require(self.blocks >= 0, f"blocks is {self.blocks}, and should be 0 or more")


@dataclass(frozen=True, kw_only=True)
class DMAEConfig:
    """Diffusion magnitude autoencoder: U-Net, encoder and the learned patch stem between audio and U-Net."""

    unet: UNetConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    envelope: EnvelopeConfig = field(default_factory=EnvelopeConfig)
    patch: int = 64  # samples per U-Net time step
    noise_levels: Literal["angle", "log_snr"] = "angle"  # what is uniform in them; beyond the paper: "log_snr"
    stem_init: Literal["random", "dct"] = "random"  # beyond the paper: "dct" starts from an orthogonal transform
    gain: float = 1.0  # beyond the paper: audio is multiplied by this before diffusion, towards unit variance
    pre_emphasis: float = 0.0  # beyond the paper: x[t] - a·x[t-1] before diffusion, undone after it

    def __post_init__(self) -> None:
        _require_positive(self, "patch")
        _require(0 < self.gain < math.inf, f"gain is {self.gain}, and should be above 0")
        _require(0 <= self.pre_emphasis < 0.95, f"pre_emphasis is {self.pre_emphasis}, and should be below 0.95")
        bands = self.envelope.bands
        _require(bands == 0 or self.hop % bands == 0, f"bands of envelope is {bands}, and should divide {self.hop}")

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

    def __post_init__(self) -> None:
        _require_positive(self, "text_length")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained; the defaults are section 5.2."""

    steps: int = 1_000_000
    batch_size: int = 32
    length: int  # samples of audio per example
    learning_rate: float = 1e-4
    warmup: int = 0  # steps over which the rate rises to it; beyond the paper
    cooldown: int = 0  # last steps over which the rate falls to 0; beyond the paper
    encoder_rate: float = 1.0  # of it for the DMAE's encoder; beyond the paper: less keeps an unused latent alive
    texture: float = 0.0  # weight of the texture of a preconditioned DMAE's powers; beyond the paper
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

    def __post_init__(self) -> None:
        _require_positive(self, "steps", "batch_size", "checkpoint_every", "validate_every", "preview_every")
        _require_positive(self, "validation_examples")
        for name in ("warmup", "cooldown", "texture"):
            _require(0 <= getattr(self, name) < math.inf, f"{name} is {getattr(self, name)}, and should be 0 or more")
        for name in ("learning_rate", "eps", "ema_power"):
            _require(0 < getattr(self, name) < math.inf, f"{name} is {getattr(self, name)}, and should be above 0")
        for name in ("encoder_rate", "weight_decay", "text_drop"):
            _require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}, and should be between 0 and 1")
        for value in (*self.betas, self.ema_beta):
            _require(0 <= value < 1, f"betas and ema_beta should be at least 0 and below 1, and {value} is not")


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
    validation_share: float = 0.01  # of the hours
    needs_gpu: bool = True

    def __post_init__(self) -> None:
        _require_positive(self, "chunks_per_shard")
        share = self.validation_share
        _require(0 < share < 1, f"validation_share is {share}, and should be between 0 and 1")
        _require(
            not self.train_dmae.texture or self.dmae.envelope.bands > 0,
            "texture of train_dmae is that of the powers that precondition a DMAE: "
            "set texture = 0 where dmae.envelope has no bands",
        )
        divisors = {"train_dmae": self.dmae.divisor, "train_generator": self.dmae.hop * self.generator.unet.divisor}
        for stage, divisor in divisors.items():
            length = getattr(self, stage).length
            if length < 1 or length % divisor:
                raise ValueError(f"length of {stage} is {length}, and should be a multiple of {divisor} samples")
        _require(not self.train_generator.texture, "texture of train_generator should be 0: it is for train_dmae")
        if self.train_generator.length != self.chunk_length:
            raise ValueError(
                f"chunk_length is {self.chunk_length} and length of train_generator {self.train_generator.length}: "
                "the generator is trained on whole chunks, so set both"
            )
        step, hop = self.dmae.patch, self.dmae.hop  # samples per time step of a level, and per latent frame
        for level in self.dmae.unet.levels:
            step *= level.factor
            if level.inject and step != hop:
                raise ValueError(f"a level of dmae with {step} samples a step injects the latent, with {hop} a frame")


C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(kind: type[C], values: dict[str, Any], where: str, base: C | None = None) -> C:
    """The config that `values` describe; fields that they leave out come from `base`, else from the defaults.

    UserError, starting with `where`, for a key that `kind` does not know or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is {values!r}, and should be a table")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(hints)}")
    given = {
        name: _convert(hints[name], value, f"{where}: {name}", getattr(base, name, None))
        for name, value in values.items()
    }
    try:
        return kind(**given) if base is None else dataclasses.replace(base, **given)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:  # "missing 1 required …: 'channels'", or what does not fit together
        raise UserError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str, base: Any) -> Any:
    """`value`, as JSON or TOML gives it, as what `hint` asks for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_dict(hint, value, where, base)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(_convert(kind, each, where, None) for kind, each in zip(kinds, value, strict=True))
    if origin is Literal and value in args:
        return value
    if origin in (types.UnionType, typing.Union) and any(type(value) is arg for arg in args):
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if type(value) is hint:
        return value
    wanted = " or ".join(map(repr, args)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise UserError(f"{where} is {value!r}, and should be {wanted}")
