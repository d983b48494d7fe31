"""The diffusion: the ideal velocity of a Gaussian is known exactly, so sampler and losses have known answers."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from mousai.batches import AudioBatch, others
from mousai.diffusion import Velocity, alpha_beta, noised, v_loss, valid_mask, wiener_loss
from mousai.dmae import DMAE
from mousai.generator import Generator
from mousai.presets import TINY
from mousai.samplers import ddim, guided, starting_noise
from mousai.train_dmae import dmae_loss, power_spectrum

CHANNELS = 3
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
MIX = torch.tensor([[0.8, 0.0, 0.0], [0.5, 0.3, 0.0], [-0.4, 0.2, 1.5]], dtype=torch.float64)
COVARIANCE = MIX @ MIX.T  # of the channels with one another, the same at each time step


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """E[v | x] for data of MEAN and COVARIANCE, from the posterior means of data and noise."""
    alpha, beta = (weight[:, None, None] for weight in alpha_beta(sigma.double()))
    spread = alpha**2 * COVARIANCE + beta**2 * torch.eye(CHANNELS, dtype=torch.float64)
    surprise = torch.linalg.inv(spread) @ (x - alpha * MEAN[:, None])
    x_0 = MEAN[:, None] + alpha * COVARIANCE @ surprise
    eps = beta * surprise
    return alpha * eps - beta * x_0


def exact_sample(noise: Tensor) -> Tensor:
    """Where the ideal ODE takes `noise`: along the principal axes it scales each by its std."""
    variances, axes = torch.linalg.eigh(COVARIANCE)
    return MEAN[:, None] + axes @ variances.sqrt().diag() @ axes.T @ noise


def knowing(x_0: Tensor) -> Velocity:
    """The velocity of one who knows the data, and so the noise."""

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        alpha, beta = (weight[:, None, None] for weight in alpha_beta(sigma.double()))
        return alpha * (x - alpha * x_0) / beta - beta * x_0

    return network


def silent(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.zeros_like(x)


def test_the_weights_run_along_the_quarter_circle():
    alpha, beta = alpha_beta(torch.tensor([0.0, 1 / 3, 1.0], dtype=torch.float64))
    torch.testing.assert_close(alpha, torch.tensor([1.0, math.sqrt(3) / 2, 0.0], dtype=torch.float64))
    torch.testing.assert_close(beta, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))


def test_the_velocity_is_the_derivative_of_x_along_phi():
    x_0, eps, step = draw(4, 2, 5, seed=1), draw(4, 2, 5, seed=2), 1e-5
    sigma = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    after, before = (noised(x_0, eps, sigma + sign * step)[0] for sign in (1, -1))
    slope = (after - before) / (2 * step * math.pi / 2)
    torch.testing.assert_close(noised(x_0, eps, sigma)[1], slope, atol=1e-8, rtol=0)  # a central difference errs by h²


def test_ddim_recovers_mean_and_covariance_of_gaussian_data():
    noise = draw(CHANNELS, 500)
    noise -= noise.mean(dim=1, keepdim=True)
    noise = torch.linalg.inv(torch.linalg.cholesky(noise.cov())) @ noise  # mean 0 and unit covariance to the last digit
    samples = ddim(gaussian_velocity, noise[None], steps=200)[0]
    torch.testing.assert_close(samples.mean(dim=1), MEAN, atol=1e-5, rtol=0)  # the weights are of fp32
    torch.testing.assert_close(samples.cov(), COVARIANCE, atol=0.04, rtol=0)  # 200 steps err by 1% of the std, at 1.6


def test_more_steps_come_closer_to_the_exact_sample():
    noise = draw(8, CHANNELS, 100)
    errors = [(ddim(gaussian_velocity, noise, n) - exact_sample(noise)).abs().max().item() for n in (4, 16, 64, 256)]
    for coarse, fine in itertools.pairwise(errors):
        assert fine < coarse / 3  # a first-order method gains a factor of 4
    assert errors[-1] < 0.02 * COVARIANCE.diagonal().max().sqrt()


def test_one_step_gives_the_posterior_mean():
    """From pure noise nothing is known about the data but its mean."""
    torch.testing.assert_close(
        ddim(gaussian_velocity, draw(2, CHANNELS, 7), steps=1), MEAN[None, :, None].expand(2, -1, 7), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_an_oracle_that_knows_the_data_rebuilds_it_in_any_number_of_steps(steps: int):
    x_0 = draw(2, 2, 30, seed=3)
    torch.testing.assert_close(ddim(knowing(x_0), draw(2, 2, 30, seed=4), steps), x_0, atol=1e-6, rtol=0)


def test_ddim_calls_the_network_once_a_step_at_equal_distances_from_pure_noise():
    seen: list[float] = []

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (3,)
        seen.append(sigma[0].item())
        return torch.zeros_like(x)

    ddim(network, torch.zeros(3, 1, 4), steps=4)
    assert seen == [1.0, 0.75, 0.5, 0.25]


def test_ddim_wants_a_step():
    with pytest.raises(ValueError, match="at least 1"):
        ddim(silent, torch.zeros(1, 1, 4), steps=0)


def test_noise_depends_on_the_seed_and_not_on_the_batch():
    together = starting_noise([5, 6, 5], 2, 9, torch.device("cpu"))
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1], starting_noise([6], 2, 9, torch.device("cpu"))[0])
    assert not torch.equal(together[0], together[1])


def test_starting_noise_is_white_with_unit_variance():
    noise = starting_noise([1], 2, 100_000, torch.device("cpu"))
    assert abs(noise.mean().item()) < 5 / math.sqrt(200_000)
    assert abs(noise.var().item() - 1) < 5 * math.sqrt(2 / 200_000)


def test_the_loss_is_the_mean_square_of_the_velocity_where_nothing_is_predicted():
    x_0, eps, sigma = draw(3, 2, 8, seed=5), draw(3, 2, 8, seed=6), torch.tensor([0.2, 0.5, 0.8])
    expected = noised(x_0, eps, sigma)[1].square().mean(dim=(1, 2))
    torch.testing.assert_close(v_loss(silent, x_0, eps, sigma), expected)


def test_an_oracle_has_no_loss():
    x_0, eps, sigma = draw(3, 2, 8, seed=5), draw(3, 2, 8, seed=6), torch.tensor([0.2, 0.5, 0.8])
    assert v_loss(knowing(x_0), x_0, eps, sigma).max() < 1e-12  # rounding: the weights are of fp32


def test_what_is_invalid_does_not_count_in_the_loss():
    x_0, eps, sigma = draw(2, 2, 10, seed=7), draw(2, 2, 10, seed=8), torch.tensor([0.3, 0.6])
    valid = (torch.arange(10) < torch.tensor([[4], [10]])).double()

    def network(x: Tensor, sigma: Tensor) -> Tensor:  # sees each time step alone
        return 0.3 * x

    masked = v_loss(network, x_0, eps, sigma, valid)
    spoilt = torch.where(valid[:, None].bool(), x_0, 1e6)
    assert torch.equal(v_loss(network, spoilt, eps, sigma, valid), masked)
    short = v_loss(network, x_0[:1, :, :4], eps[:1, :, :4], sigma[:1])
    torch.testing.assert_close(masked, torch.cat([short, v_loss(network, x_0[1:], eps[1:], sigma[1:])]))


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_wiener_loss_is_what_linear_regression_reaches(level: float):
    """Predict each number of v from all of x by least squares, over many draws of stationary Gaussian data."""
    draws, size = 50_000, 12
    distance = torch.arange(size, dtype=torch.float64).minimum(size - torch.arange(size, dtype=torch.float64))
    power = (10 * torch.exp(-(distance**2) / 4) + 0.01).double()  # [size], all of the circle's frequencies
    shaped = torch.fft.ifft(torch.fft.fft(draw(draws, size, seed=9)) * power.sqrt()).real
    x, v = noised(shaped[:, None], draw(draws, 1, size, seed=10), torch.full((draws,), level, dtype=torch.float64))
    weights = torch.linalg.lstsq(x[:, 0], v[:, 0]).solution
    reached = (v[:, 0] - x[:, 0] @ weights).square().mean().item()
    predicted = wiener_loss(power, torch.tensor(level, dtype=torch.float64)).item()
    assert reached == pytest.approx(predicted, rel=0.015)  # five standard errors of 600,000 squares, few of them large


@pytest.mark.parametrize("std", [0.1, 1.0, 3.0])
def test_the_wiener_loss_of_white_data_over_the_quarter_circle_is_the_std(std: float):
    sigma = torch.linspace(0, 1, 2001, dtype=torch.float64)
    by_level = wiener_loss(torch.full((5,), std**2, dtype=torch.float64), sigma)
    assert by_level.shape == sigma.shape
    assert torch.trapezoid(by_level, sigma).item() == pytest.approx(std, rel=1e-9)


def test_colour_makes_the_wiener_loss_smaller():
    colored, sigma = torch.tensor([0.1, 0.4, 2.5]), torch.linspace(0.1, 0.9, 9)
    white = colored.mean().expand(3)
    assert torch.all(wiener_loss(colored, sigma) < wiener_loss(white, sigma))


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (1.0, 3.0), (5.0, 11.0)])
def test_guidance_goes_from_the_unconditional_velocity_through_the_conditional_one(scale: float, expected: float):
    network = guided(lambda x, sigma: 3 * x, lambda x, sigma: x, scale)
    assert torch.equal(network(torch.ones(1, 1, 2), torch.ones(1)), torch.full((1, 1, 2), expected))


def test_guidance_of_scale_one_does_not_ask_the_unconditional_network():
    def unconditional(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("not needed")

    guided(silent, unconditional, 1)(torch.ones(1, 1, 2), torch.ones(1))


def test_the_power_spectrum_of_white_noise_is_its_variance_at_every_frequency():
    dmae = DMAE(dataclasses.replace(TINY.dmae, gain=2.0, pre_emphasis=0.0))
    audio = 0.1 * torch.randn(4, 2, 2**15, generator=torch.Generator().manual_seed(0))
    power = power_spectrum(dmae, audio)
    assert power.mean().item() == pytest.approx(0.04, rel=0.02)
    assert 0.5 < power.min() / 0.04 < power.max() / 0.04 < 1.6  # each the mean of 256 squares: 9% of spread


def test_the_wrong_example_is_of_another_track_where_there_is_one():
    tracks = ["a", "a", "b", "c", "c"]
    assert all(tracks[i] != tracks[j] for i, j in enumerate(others(tracks)))
    assert others(["a"] * 4) == [2, 3, 0, 1]


def test_the_dmaes_loss_is_one_number_an_example_and_blind_to_what_is_invalid():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dmae = DMAE(TINY.dmae).eval()
    audio = 0.1 * torch.randn(2, 2, 4096, generator=torch.Generator().manual_seed(1))
    valid = torch.tensor([1000, 4096])
    assert valid_mask(valid, audio).sum(dim=1).tolist() == [1000, 4096]
    batch = AudioBatch(audio=audio, valid_length=valid, track_ids=["a", "b"])
    loss = dmae_loss(dmae, batch, torch.Generator().manual_seed(2))
    assert loss.shape == (2,)
    everything = dataclasses.replace(batch, valid_length=torch.tensor([4096, 4096]))
    other = dmae_loss(dmae, everything, torch.Generator().manual_seed(2))
    assert loss[0] != other[0] and loss[1] == other[1]


def test_a_generated_latent_has_the_length_asked_for():
    generator = Generator(TINY.generator).eval().requires_grad_(False)
    text, mask = draw(1, 64, 384).float(), torch.ones(1, 64, dtype=torch.bool)
    generator.set_statistics(torch.full((32,), 3.0), torch.full((32,), 0.5))
    assert generator.sample(text, mask, 13, [1], steps=2, cfg=3.0).shape == (1, 32, 13)
    raw = draw(1, 32, 7).float()
    torch.testing.assert_close(generator.unwhiten(generator.whiten(raw)), raw)
    torch.testing.assert_close(generator.whiten(raw), (raw - 3) / 0.5)
