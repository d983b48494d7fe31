"""The networks: the paper's sizes, the laws of each block, and the ways between audio, signal and latent."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mousai.config import DMAEConfig, EncoderConfig, Level, UNetConfig
from mousai.dmae import DMAE, MagnitudeEncoder, Whitening, stereo_dct
from mousai.generator import Generator
from mousai.presets import MICRO, PAPER, PAPER_32X, TINY
from mousai.unet import Attention, Modulation, TimeFeatures, UNet

U_NET, ENCODER, GENERATOR, T5_ENCODER = 160_669_568, 24_438_304, 562_557_248, 109_628_544

NET = UNetConfig(
    in_channels=4,
    levels=(
        Level(channels=8, factor=1, cross_attention=True),
        Level(channels=16, factor=3, inject=2, cross_attention=True),
        Level(channels=16, factor=2, items=2, attention=True, cross_attention=True),
    ),
    time_features=8, heads=2, head_features=4, text_features=6,
)  # fmt: skip
LENGTH, BATCH, TOKENS = 24, 3, 5
SMALL_DMAE = DMAEConfig(
    unet=UNetConfig(
        in_channels=64,
        levels=(Level(channels=16, factor=1), Level(channels=16, factor=4, inject=4), Level(channels=16)),
        time_features=8,
    ),
    encoder=EncoderConfig(channels=16, downs=((2, 1), (1, 1)), latent_channels=4, n_fft=127, hop=64),
    patch=32, stem_init="dct", gain=10.0, pre_emphasis=0.9,
)  # fmt: skip


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(make: Callable[[], nn.Module]) -> nn.Module:
    """The module with seeded weights, no matter what ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


def count(make: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())


def run(net: nn.Module, length: int = LENGTH, **changed: Tensor) -> Tensor:
    given = {
        "x": draw(BATCH, 4, length, seed=1),
        "sigma": torch.tensor([0.1, 0.5, 0.9]),
        "latent": draw(BATCH, 2, length // 3, seed=2),
        "text": draw(BATCH, TOKENS, 6, seed=3),
        "text_mask": torch.ones(BATCH, TOKENS, dtype=torch.bool),
    }
    out = net(**(given | changed))
    assert isinstance(out, Tensor)
    return out


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return build(lambda: UNet(NET))


@pytest.fixture(scope="module")
def dmae() -> DMAE:
    return build(lambda: DMAE(SMALL_DMAE))  # type: ignore[return-value]


def test_the_papers_dmae_has_185_million_parameters():
    assert count(lambda: DMAE(PAPER.dmae)) == U_NET + ENCODER == 185_107_872


def test_the_papers_encoder_has_24_million_of_them():
    assert count(lambda: MagnitudeEncoder(PAPER.dmae.encoder)) == ENCODER


def test_the_papers_generator_has_857_million_parameters_with_text_encoder_and_dmae():
    from transformers import T5Config, T5EncoderModel

    t5_base = T5Config(vocab_size=32_128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
    assert count(lambda: Generator(PAPER.generator)) == GENERATOR
    assert count(lambda: T5EncoderModel(t5_base)) == T5_ENCODER
    assert GENERATOR + T5_ENCODER + U_NET + ENCODER == 857_293_664


def test_the_learned_mask_is_counted_with_the_generator():
    assert count(lambda: Generator(PAPER.generator).unet) == GENERATOR - 64 * 768  # a vector for each token


@pytest.mark.parametrize(("log2", "frames"), [(18, 256), (21, 2048)])
def test_the_papers_latents_are_1024_times_shorter_than_audio(log2: int, frames: int):
    with torch.device("meta"):
        assert DMAE(PAPER.dmae).encode(torch.zeros(1, 2, 2**log2)).shape == (1, 32, frames)


def test_the_papers_decoder_turns_latents_into_a_velocity_of_audio():
    with torch.device("meta"):
        out = DMAE(PAPER.dmae).velocity(torch.zeros(2, 2, 2**18), torch.zeros(2), torch.zeros(2, 32, 256))
    assert out.shape == (2, 2, 2**18)


def test_paper_32x_halves_the_compression():
    with torch.device("meta"):
        latent = DMAE(PAPER_32X.dmae).encode(torch.zeros(1, 2, 2**18))
    assert (2 * 2**18 / latent.numel(), PAPER_32X.dmae.hop) == (32, 512)
    assert PAPER.dmae.hop == 1024


def test_micros_weights_fit_in_30_megabytes_of_fp16():
    assert 2 * (count(lambda: DMAE(MICRO.dmae)) + count(lambda: Generator(MICRO.generator))) < 30e6


@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_any_multiple_of_the_divisor_works(net: nn.Module, times: int):
    assert NET.divisor == 6
    assert run(net, 6 * times).shape == (BATCH, 4, 6 * times)


@pytest.mark.parametrize("length", [5, 7, 15])
def test_other_lengths_raise(net: nn.Module, length: int):
    with pytest.raises(ValueError, match=f"{length} is not a multiple of 6"):
        run(net, length)


def test_the_skip_wraps_the_whole_net():
    """A block is x + scale·branch: without its scale it is the identity."""
    closed = build(lambda: UNet(NET))
    closed.outer.scale.weight.zero_()
    closed.outer.scale.bias.zero_()
    assert torch.equal(run(closed), draw(BATCH, 4, LENGTH, seed=1))


def test_examples_of_a_batch_do_not_see_each_other(net: nn.Module):
    x = draw(BATCH, 4, LENGTH, seed=1)
    changed = torch.cat([x[:1], draw(2, 4, LENGTH, seed=9)])
    assert torch.equal(run(net)[0], run(net, x=changed)[0])
    assert not torch.equal(run(net)[1], run(net, x=changed)[1])


@pytest.mark.parametrize("name", ["x", "sigma", "latent", "text"])
def test_the_velocity_depends_on_everything_that_is_given(net: nn.Module, name: str):
    other = {"x": draw(BATCH, 4, LENGTH, seed=9), "sigma": torch.tensor([0.2, 0.6, 0.8]),
             "latent": draw(BATCH, 2, LENGTH // 3, seed=9), "text": draw(BATCH, TOKENS, 6, seed=9)}  # fmt: skip
    assert (run(net, **{name: other[name]}) - run(net)).abs().amax(dim=(1, 2)).min() > 1e-5


def test_masked_tokens_cannot_change_the_output(net: nn.Module):
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    text = draw(BATCH, TOKENS, 6, seed=3)
    garbled = torch.where(mask[:, :, None], text, 100 * draw(BATCH, TOKENS, 6, seed=9))
    assert torch.equal(run(net, text=garbled, text_mask=mask), run(net, text=text, text_mask=mask))
    assert not torch.equal(run(net, text=garbled), run(net, text=text))


def test_masked_tokens_are_as_good_as_absent_ones(net: nn.Module):
    mask = torch.arange(TOKENS).expand(BATCH, -1) < 2
    short = run(net, text=draw(BATCH, TOKENS, 6, seed=3)[:, :2], text_mask=mask[:, :2])
    torch.testing.assert_close(run(net, text_mask=mask), short, atol=1e-5, rtol=0)  # fp32 rounding


def test_the_latent_enters_at_its_level_only(net: nn.Module):
    """On the way down, what lies outside that level is blind to the latent, and what lies at it is not."""

    def first_items(latent: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []
        levels = [net.outer, net.outer.inner, net.outer.inner.inner]
        hooks = [level.items_in[0].register_forward_hook(lambda _m, _i, out: seen.append(out)) for level in levels]
        run(net, latent=latent)
        for hook in hooks:
            hook.remove()
        return seen

    one, other = (first_items(draw(BATCH, 2, LENGTH // 3, seed=seed)) for seed in (2, 9))
    assert [torch.equal(a, b) for a, b in zip(one, other, strict=True)] == [True, False, False]
    assert [item.inject is not None for level in (net.outer, net.outer.inner, net.outer.inner.inner)
            for item in (*level.items_in, *level.items_out)] == [False] * 2 + [True] * 2 + [False] * 4  # fmt: skip


def test_attention_is_softmax_of_scaled_products_without_a_position():
    attention = build(lambda: Attention(8, 2, 4))
    x = draw(2, 8, 6)
    steps = functional.layer_norm(x.transpose(1, 2), (8,))
    q, (k, v) = steps @ attention.to_q.weight.T, (steps @ attention.to_kv.weight.T).chunk(2, dim=-1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / 2, dim=-1)  # √4
        heads.append(weights @ v[..., head])
    expected = x + (torch.cat(heads, dim=-1) @ attention.to_out.weight.T).transpose(1, 2)
    torch.testing.assert_close(attention(x), expected)
    order = [3, 1, 5, 0, 2, 4]
    torch.testing.assert_close(attention(x[..., order]), attention(x)[..., order])


def test_the_noise_levels_features_pass_the_last_layer_twice():
    time = build(lambda: TimeFeatures(8))
    sigma = torch.tensor([0.0, 0.3, 1.0])
    angles = 2 * math.pi * sigma[:, None] * time.weights
    x = functional.gelu(time.first(torch.cat([sigma[:, None], angles.sin(), angles.cos()], dim=1)))
    torch.testing.assert_close(time(sigma), functional.gelu(time.tied(functional.gelu(time.tied(x)))))


def test_modulation_scales_and_shifts_a_layer_norm_over_channels():
    modulation = build(lambda: Modulation(8, 3))
    x, features = draw(2, 8, 5), draw(2, 3, seed=1)
    scale, shift = modulation.linear(features)[:, None].chunk(2, dim=-1)
    expected = functional.layer_norm(x.transpose(1, 2), (8,), eps=1e-6) * (1 + scale) + shift
    torch.testing.assert_close(modulation(x, features), expected.transpose(1, 2))


@pytest.mark.parametrize("frames", [4, 7, 64])
def test_the_stft_has_512_bins_a_channel_and_one_frame_every_256_samples(frames: int):
    encoder = build(lambda: MagnitudeEncoder(EncoderConfig(channels=8)))
    assert encoder.magnitude(draw(1, 2, 256 * frames)).shape == (1, 2 * 512, frames)


def test_the_stft_is_scaled_by_the_root_of_its_size():
    """White noise of std 1 has a mean square of the window's, 3/8; a full-scale sine reaches √1023 / 4."""
    encoder = build(lambda: MagnitudeEncoder(EncoderConfig(channels=8)))
    left, right = encoder.magnitude(draw(1, 2, 2**18))[0].unflatten(0, (2, 512))
    for noise in (left, right):
        assert noise[1:].square().mean().item() == pytest.approx(3 / 8, rel=0.02)  # 4 of 0.5% from 40,000 free numbers
    sine = torch.sin(2 * math.pi * 100 / 1023 * torch.arange(2**14)).expand(1, 2, -1)
    inside = encoder.magnitude(sine)[0, :512, 4:-4]
    assert inside.argmax(dim=0).unique().tolist() == [100]
    torch.testing.assert_close(inside[100], torch.full_like(inside[100], math.sqrt(1023) / 4), rtol=1e-3, atol=0)


def test_the_log_of_silence_is_finite():
    encoder = build(lambda: MagnitudeEncoder(EncoderConfig(channels=8, magnitude="log")))
    assert encoder.magnitude(torch.zeros(1, 2, 4096)).max().item() == pytest.approx((math.log(1e-4) + 4.5) / 2.5)


@pytest.mark.parametrize("config", [EncoderConfig(channels=8), TINY.dmae.encoder], ids=["linear", "log and whitened"])
def test_latents_lie_between_minus_one_and_one(config: EncoderConfig):
    latent = build(lambda: MagnitudeEncoder(config))(0.3 * draw(2, 2, 2**14))
    assert latent.abs().max() < 1
    assert latent.std() > 0.01


def correlated(seed: int) -> Tensor:
    """[4, 3, 500] with three channels of very different sizes that say partly the same."""
    mix = torch.tensor([[5.0, 0.0, 0.0], [4.0, 0.5, 0.0], [0.1, 0.1, 0.2]])
    return torch.tensor([[1.0], [-3.0], [0.0]]) + mix @ draw(4, 3, 500, seed=seed)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_whitened_channels_have_no_mean_no_correlation_and_unit_variance(precision: torch.dtype):
    """Also under the autocast in which it is trained on a GPU."""
    whitening, h = Whitening(3).eval(), correlated(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        whitening.observe(h, 1.0)
        out = whitening(h).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.cov(), torch.eye(3), atol=0.05, rtol=0)  # the ridge keeps the faintest below 1


def test_whitening_learns_its_statistics_while_it_trains_and_not_afterwards():
    whitening = Whitening(3, momentum=0.5).train()
    for seed in range(20):
        whitening(correlated(seed))
    h = correlated(99).transpose(0, 1).flatten(1)
    torch.testing.assert_close(whitening.covariance, h.cov(), atol=2.0, rtol=0)  # 25 at most, of 2000 draws
    before = whitening.eval().covariance.clone()
    whitening(correlated(7))
    assert torch.equal(whitening.covariance, before)


def test_settling_takes_the_statistics_of_the_weights_as_they_are():
    model = build(lambda: DMAE(dataclasses.replace(SMALL_DMAE, encoder=dataclasses.replace(SMALL_DMAE.encoder,
                                                                                           whiten=True))))  # fmt: skip
    audio = 0.1 * draw(4, 2, 2**14)
    model.settle(audio)
    latents = model.encode(audio).atanh().transpose(0, 1).flatten(1) / 0.8
    torch.testing.assert_close(latents.cov(), torch.eye(4), atol=0.05, rtol=0)


def test_phase_is_never_seen(dmae: DMAE):
    audio = draw(1, 2, 4096)
    torch.testing.assert_close(dmae.encode(-audio), dmae.encode(audio))


def test_the_stereo_dct_is_orthonormal():
    basis = stereo_dct(64).flatten(1).double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(128, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_head_undoes_a_dct_stem(dmae: DMAE):
    x = draw(2, 2, 32 * 5)
    torch.testing.assert_close(dmae.head(dmae.stem(x)), x, atol=1e-5, rtol=0)


def test_a_dct_stem_wants_its_number_of_channels():
    with pytest.raises(ValueError, match="32 channels, not 64"):
        DMAE(dataclasses.replace(SMALL_DMAE, patch=16))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_audio_comes_back_from_the_signal(dmae: DMAE, precision: torch.dtype):
    """Also under the autocast in which pieces are generated: the inverse filter must not run in 8 bits."""
    audio = 0.3 * draw(2, 2, 4096)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        back = dmae.to_audio(dmae.to_signal(audio))
    torch.testing.assert_close(back, audio, atol=2e-6, rtol=0)  # -114 dB: below 16 bits


def test_the_paper_diffuses_audio_itself():
    assert (PAPER.dmae.gain, PAPER.dmae.pre_emphasis) == (1.0, 0.0)
    plain, audio = build(lambda: DMAE(dataclasses.replace(SMALL_DMAE, gain=1.0, pre_emphasis=0.0))), draw(1, 2, 512)
    assert torch.equal(plain.to_signal(audio), audio) and torch.equal(plain.to_audio(audio), audio)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_latents_of_any_length_decode_as_if_their_last_frame_went_on(dmae: DMAE, frames: int):
    assert (dmae.config.hop, dmae.config.divisor) == (128, 256)
    latent = draw(2, 4, frames).tanh()
    audio = dmae.decode(latent, [1, 2], steps=2)
    assert audio.shape == (2, 2, 128 * frames)
    longer = latent if frames % 2 == 0 else torch.cat([latent, latent[..., -1:]], dim=-1)
    assert torch.equal(dmae.decode(longer, [1, 2], steps=2)[..., : 128 * frames], audio)
