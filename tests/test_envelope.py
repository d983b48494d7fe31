"""Preconditioning by the latent: an orthogonal transform, closed-form scales, and a decode path that loses nothing."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from mousai.batches import AudioBatch
from mousai.config import EnvelopeConfig
from mousai.diffusion import LOG_SNR, alpha_beta, noise_level, noise_levels, noise_place, noised, wiener_loss
from mousai.dmae import DMAE
from mousai.ema import averaged_copy, update_ema
from mousai.envelope import MDCT, POWER_FLOOR, REGIONS, SPANS, Envelope, local_power, mel_regions, mid_side, scales
from mousai.mel import log_mel_distance
from mousai.presets import PAPER, TINY
from mousai.texture import texture_distance
from mousai.train_dmae import SURPRISE, _preconditioned_loss, dmae_loss
from pipeline.songs import songs
from pipeline.synth import render

LENGTH = 2**13


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tiny(**changes: object) -> DMAE:
    torch.manual_seed(0)
    return DMAE(dataclasses.replace(TINY.dmae, **changes)).eval()  # type: ignore[arg-type]


def music(length: int, seed: int = 0) -> Tensor:
    """[1, 2, length]: two decaying tones and a little noise, left and right not the same."""
    time = torch.arange(length) / 48_000
    tones = torch.stack([torch.sin(2 * math.pi * f * time) * torch.exp(-3 * time) for f in (220.0, 330.0)])
    return 0.3 * tones[None] + 0.01 * draw(1, 2, length, seed=seed)


@pytest.mark.parametrize("bands", [64, 512])
def test_the_mdct_gives_audio_back(bands: int):
    audio = draw(2, 2, LENGTH)
    coefficients = MDCT(bands)(audio)
    assert coefficients.shape == (2, 2, LENGTH // bands + 1, bands)
    assert torch.allclose(MDCT(bands).inverse(coefficients), audio, atol=1e-5)


def test_the_mdct_is_orthogonal_so_white_noise_stays_white():
    audio = draw(1, 2, LENGTH)
    coefficients = MDCT(256)(audio)
    assert coefficients.square().sum() == pytest.approx(audio.square().sum().item(), rel=1e-5)
    inner = coefficients[:, :, 1:-1]  # the first and last frames are half outside
    assert inner.square().mean(dim=(0, 1, 2)).mean() == pytest.approx(1, abs=0.03)


def test_a_tone_lies_in_its_band():
    tone = torch.sin(2 * math.pi * 3020 * torch.arange(LENGTH) / 48_000).expand(1, 2, LENGTH)
    power = MDCT(512)(tone).square().mean(dim=2)[0]
    assert int(power[0].argmax()) == int(3020 / (24_000 / 512))
    assert power[1].max() < 1e-6 * power[0].max()  # the side of a mono signal is silent


def test_mid_and_side_are_a_rotation():
    audio = draw(1, 2, 16)
    assert torch.allclose(mid_side(mid_side(audio)), audio, atol=1e-6)


@pytest.mark.parametrize("level", [0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("power", [1e-6, 0.1, 1.0, 30.0])
def test_the_skip_is_the_best_linear_guess_and_the_scales_leave_unit_variance(level: float, power: float):
    sigma = torch.tensor([level])
    data, noise = math.sqrt(power) * draw(1, 2, 100_000, seed=1), draw(1, 2, 100_000, seed=2)
    x, v = noised(data, noise, sigma)
    into, skip, out = (each.item() for each in scales(torch.full((1, 1, 1, 1), power), sigma))
    rest = (v - skip * x) / out
    assert (into * x).var() == pytest.approx(1, abs=0.02)
    assert rest.var() == pytest.approx(1, abs=0.02)
    assert (rest * x).mean() / x.std() == pytest.approx(0, abs=0.01)  # nothing linear is left
    wiener = wiener_loss(torch.tensor([power]), sigma[0])
    assert (v - skip * x).square().mean() == pytest.approx(wiener.item(), rel=0.03)


def test_where_a_band_is_silent_the_noise_is_all_removed():
    sigma = torch.tensor([0.3])
    _, skip, out = (each.item() for each in scales(torch.full((1, 1, 1, 1), POWER_FLOOR), sigma))
    alpha, beta = (each.item() for each in alpha_beta(sigma))
    assert alpha - beta * skip == pytest.approx(0, abs=1e-6)  # x_0 = alpha·x - beta·v, of any x
    assert abs(out) < 1e-3


def test_the_loss_of_powers_is_least_at_the_power_of_gaussian_coefficients():
    envelope = Envelope(EnvelopeConfig(bands=64, channels=16), 32, 1024)
    coefficients = 0.1 * draw(4, 2, 300, 64)
    losses = [envelope.loss(torch.full_like(coefficients, 10 ** (db / 10)), coefficients) for db in (-23, -20, -17)]
    assert losses[1].shape == (4, 300)
    assert losses[1].mean() < min(losses[0].mean(), losses[2].mean())


def test_a_band_of_few_loud_tones_gets_its_mean_power_and_not_its_median():
    envelope = Envelope(EnvelopeConfig(bands=512, channels=16), 32, 1024)
    tones = 0.01 * draw(1, 2, 40, 512)
    tones[..., 400::16] = 1.0  # a sixteenth of the coefficients, far above the rest
    median, mean = torch.full_like(tones, 1e-4), torch.full_like(tones, 1e-4)
    mean[..., 400:] = 1 / 16
    assert envelope.loss(mean, tones).mean() < envelope.loss(median, tones).mean()


def test_regions_of_the_mel_scale_share_out_the_bands():
    shares = mel_regions(512)
    assert shares.shape[0] == 512 and 70 < shares.shape[1] <= REGIONS
    assert torch.allclose(shares.sum(dim=0), torch.ones(shares.shape[1]))
    widths = shares.sum(dim=1)
    assert widths[21] / widths[300] == pytest.approx((700 + 300.5 * 46.875) / (700 + 21.5 * 46.875), rel=0.35)


def test_local_power_at_the_ends_knows_only_the_frames_that_are_there():
    coefficients = torch.tensor([1.0, 2.0, 3.0, 4.0])[None, None, :, None].expand(1, 2, 4, 8)
    assert local_power(coefficients)[0, 0, :, 0].tolist() == pytest.approx([2.5, 14 / 3, 29 / 3, 12.5])


def test_an_envelope_starts_from_the_mean_level_of_every_band():
    envelope = Envelope(EnvelopeConfig(bands=64, channels=16), 32, 1024)
    coefficients = draw(2, 2, 33, 64) * torch.arange(1, 65)
    envelope.observe(coefficients)
    power = envelope(draw(1, 32, 2))
    assert power.shape == (1, 2, 33, 64)
    assert torch.allclose(power[0, :, 5], coefficients.square().mean(dim=(0, 2)), rtol=1e-3)


@pytest.mark.parametrize("kind", ["angle", "log_snr"])
def test_places_and_noise_levels_are_each_others_inverse(kind: str):
    places = torch.linspace(0, 1, 11)
    levels = noise_level(places, kind)
    assert torch.allclose(noise_place(levels, kind), places, atol=1e-3)
    assert (levels.diff() > 0).all()


def test_log_snr_levels_are_evenly_spaced_in_the_logarithm():
    alpha, beta = alpha_beta(noise_level(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), "log_snr"))
    log_snr = 2 * (alpha / beta).log()
    assert log_snr.tolist() == pytest.approx([LOG_SNR[1], sum(LOG_SNR) / 2, LOG_SNR[0]])


@pytest.mark.parametrize("kind", ["angle", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_sampler_stops_at_one_level_more_than_it_has_steps(kind: str, steps: int):
    levels = noise_levels(steps, kind, torch.device("cpu"))
    assert len(levels) == steps + 1 and levels[-1] == 0 and levels[0] > 0.98
    assert (levels.diff() < 0).all()


PLAIN = {"envelope": EnvelopeConfig(), "noise_levels": "angle", "pre_emphasis": 0.0, "gain": 1.0}


@pytest.mark.parametrize(
    "changes, steps",
    [({}, 2), ({}, 50), (PLAIN, 2), (PLAIN, 50), ({"pre_emphasis": 0.0}, 2), ({"noise_levels": "angle"}, 50)],
)
def test_an_oracle_that_knows_the_audio_rebuilds_it_through_the_decode_path(
    changes: dict[str, object], steps: int, monkeypatch: pytest.MonkeyPatch
):
    """Encoder, gain, pre-emphasis, preconditioning, sampler and back: to 60 dB below the signal."""
    dmae = tiny(**changes)
    audio = music(LENGTH)
    known = dmae.to_signal(audio)

    def oracle(x: Tensor, sigma: Tensor, latent: Tensor) -> Tensor:
        """What the network would have to say, given whitened x, for the velocity to be the true one."""
        level = sigma.double().clamp(max=1 - 1e-7)
        alpha, beta = (weight[:, None, None] for weight in alpha_beta(level))
        if dmae.mdct is None or dmae.envelope is None:
            return (alpha * (x - alpha * known) / beta - beta * known).float()
        into, skip, out = scales(dmae.envelope(latent), sigma)
        coefficients, clean = dmae.mdct(x) / into, dmae.mdct(known)
        alpha, beta = alpha[..., None], beta[..., None]
        velocity = alpha * (coefficients - alpha * clean) / beta - beta * clean
        return -dmae.mdct.inverse(((velocity - skip * coefficients) / out).float())

    monkeypatch.setattr(dmae, "_network", oracle)
    decoded = dmae.decode(dmae.encode(audio), [0], steps)
    error = (decoded - audio).square().mean() / audio.square().mean()
    assert 10 * math.log10(error.item()) < -60


def test_an_untrained_decoder_still_draws_noise_of_the_right_colour():
    dmae = tiny()
    assert dmae.envelope is not None and dmae.mdct is not None
    audio = torch.cat([music(2**15, seed) for seed in range(4)])
    dmae.envelope.observe(dmae.mdct(dmae.to_signal(audio)))
    decoded = dmae.decode(dmae.encode(audio), range(4), 50)
    spectra = [dmae.mdct(dmae.to_signal(each)).square().mean(dim=(0, 2))[0] for each in (audio, decoded)]
    assert (10 * torch.log10(spectra[1] / spectra[0])).abs().mean() < 1.5  # dB, a band


def test_the_loss_does_not_count_what_is_invalid():
    """An untrained decoder does not look at its latent, so that only the loss itself could see the rest."""
    dmae, valid, losses = tiny(), LENGTH // 2, []
    reach = max(SPANS) // 2 * TINY.dmae.envelope.bands + 2048  # powers are compared over spans around a frame
    for rest in (0.0, 0.5):
        audio = 0.1 * draw(2, 2, 2 * LENGTH)
        audio[:, :, valid + reach :] *= rest
        batch = AudioBatch(audio=audio, valid_length=torch.tensor([valid, 2 * LENGTH]), track_ids=["a", "b"])
        losses.append(dmae_loss(dmae, batch, torch.Generator().manual_seed(0)).detach())
    assert losses[0][0] == pytest.approx(losses[1][0].item(), rel=1e-5)
    assert losses[0][1] != pytest.approx(losses[1][1].item(), rel=1e-2)


def test_what_the_powers_know_survives_any_number_of_steps(monkeypatch: pytest.MonkeyPatch):
    """A network that knows nothing more leaves noise of exactly these powers; DDIM would lose half of it in 5 steps."""
    dmae = tiny()
    assert dmae.envelope is not None and dmae.mdct is not None
    powers = 10 ** draw(1, 2, LENGTH // 512 + 1, 512)
    monkeypatch.setattr(dmae.envelope, "forward", lambda latent: powers)
    noise = draw(1, 2, LENGTH, seed=1)
    for steps in (1, 5, 50):
        signal = dmae._sample(noise, torch.zeros(1, 32, LENGTH // 1024), steps)
        assert torch.allclose(signal, dmae.mdct.inverse(powers.sqrt() * dmae.mdct(noise)), rtol=1e-3, atol=1e-3)


def test_settled_powers_are_right_on_average_and_unobserved_ones_are_left_alone():
    envelope = Envelope(EnvelopeConfig(bands=64, channels=16), 32, 1024)
    latent, coefficients = draw(4, 32, 8), 0.1 * draw(4, 2, 129, 64)
    envelope.settle(envelope(latent), coefficients)
    assert not envelope.correction.any()
    envelope.level.fill_(math.log(0.02))
    envelope.settle(envelope(latent), coefficients)
    assert (10 * torch.log10(envelope(latent) / 0.01)).abs().mean() < 0.3  # dB
    shifted = envelope.correction.clone()
    envelope.settle(envelope(latent), coefficients)
    assert torch.allclose(envelope.correction, shifted, atol=0.01)  # once is enough


def test_silence_gives_a_finite_loss_and_silence():
    dmae = tiny().train()
    batch = AudioBatch(audio=torch.zeros(1, 2, LENGTH), valid_length=torch.tensor([LENGTH]), track_ids=["a"])
    for _ in range(3):
        loss = dmae_loss(dmae, batch, torch.Generator().manual_seed(0)).mean()
        loss.backward()
        assert loss.isfinite()
    assert dmae.eval().decode(dmae.encode(batch.audio), [0], 5).abs().max() < 1e-3


def test_the_paper_has_none_of_it():
    assert PAPER.dmae.envelope.bands == 0 and PAPER.dmae.noise_levels == "angle"
    assert not PAPER.dmae.encoder.standardise and not PAPER.dmae.encoder.whiten


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dmae_overfits_one_second_until_it_is_recognisable():
    """Log-mel distance below 3 dB; a wrong second of music is above 10."""
    torch.manual_seed(0)
    dmae = DMAE(TINY.dmae).train()
    song = render(next(song for song in songs() if song.genre == "pop"))[:, 480_000:528_000]
    audio = torch.nn.functional.pad(torch.from_numpy(song).float(), (0, 2**16 - 48_000)).expand(1, 2, -1)
    batch = AudioBatch(audio=audio, valid_length=torch.tensor([48_000]), track_ids=["a"])
    ema, optimizer = averaged_copy(dmae), torch.optim.AdamW(dmae.parameters(), lr=2e-3, betas=(0.95, 0.999))
    for step in range(1000):
        optimizer.zero_grad()
        dmae_loss(dmae, batch, torch.Generator().manual_seed(step)).mean().backward()
        optimizer.step()
        update_ema(ema, dmae, 0.98)
    assert isinstance(ema, DMAE)
    ema.settle(audio)
    decoded = ema.decode(ema.encode(audio), [0], 25)
    assert log_mel_distance(audio[..., :48_000], decoded[..., :48_000]).item() < 3


def test_texture_hears_level_and_swing_and_nothing_else():
    noise = draw(2, 2, 2**15)
    assert texture_distance(noise, noise).tolist() == [0, 0]
    assert texture_distance(0.5 * noise, noise).tolist() == pytest.approx([3.01] * 2, abs=0.01)  # means only: 6.02 / 2
    other = draw(2, 2, 2**15, seed=1)
    assert texture_distance(other, noise).max() < 1  # white noise as well
    beats = noise * (torch.arange(2**15) // 4096 % 2 * 0.9 + 0.1)
    assert texture_distance(beats, noise).min() > 5


def test_texture_teaches_the_powers_and_not_the_network():
    dmae = tiny().train()
    batch = AudioBatch(audio=0.1 * music(LENGTH), valid_length=torch.tensor([LENGTH]), track_ids=["a"])
    without, with_texture = (
        dmae_loss(dmae, batch, torch.Generator().manual_seed(0), texture=weight) for weight in (0.0, 1.0)
    )
    (with_texture - without).sum().backward()
    assert dmae.envelope is not None and dmae.envelope.last.weight.grad is not None
    assert dmae.envelope.last.weight.grad.abs().max() > 1e-4
    assert all(each.grad is None or each.grad.abs().max() < 1e-6 for each in dmae.unet.parameters())


def test_texture_without_preconditioning_is_an_error():
    with pytest.raises(ValueError, match=r"set texture = 0 where dmae\.envelope has no bands"):
        dataclasses.replace(PAPER, train_dmae=dataclasses.replace(PAPER.train_dmae, texture=1.0))


def test_a_moment_that_the_powers_missed_does_not_rule_the_network():
    """At little noise a coefficient that is a million times too strong reached the network as a thousand stds."""
    dmae, seen = tiny(), []
    assert dmae.mdct is not None
    audio = 1e-5 * draw(1, 2, LENGTH)
    audio[..., LENGTH // 2] = 0.9
    clean = dmae.mdct(dmae.to_signal(audio))
    usual, latent = dmae.turn, dmae.encode(audio)
    dmae.turn = lambda x, *given: seen.append(x) or usual(x, *given)  # type: ignore[assignment, func-returns-value]
    powers, sigma = torch.full_like(clean, 1e-7), torch.tensor([1e-4])
    _preconditioned_loss(dmae, latent, powers, clean, torch.zeros_like(clean), sigma, torch.tensor([LENGTH]))
    assert seen[0].abs().max() < 1.01 * SURPRISE < (clean / powers.sqrt()).abs().max() / 100


def test_kept_statistics_stay_while_weights_are_trained_and_settled():
    dmae = tiny().train()
    dmae.keep_statistics()
    assert dmae.envelope is not None
    before = {name: value.clone() for name, value in dmae.named_buffers() if "correction" not in name}
    dmae.envelope.level.fill_(-3.0)
    before["envelope.level"].fill_(-3.0)
    batch = AudioBatch(audio=0.1 * music(LENGTH), valid_length=torch.tensor([LENGTH]), track_ids=["a"])
    dmae_loss(dmae, batch, torch.Generator().manual_seed(0)).mean().backward()
    dmae.settle(batch.audio)
    after = dict(dmae.named_buffers())
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []
