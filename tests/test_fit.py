"""The training loop on a model of a few weights: what is saved, what is seen again, and how it ends."""

import dataclasses
import os
import signal
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor, nn

from mousai.checkpoint import Checkpoint, latest_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from mousai.config import FitConfig
from mousai.ema import averaged_copy, decay_at, update_ema
from mousai.errors import UserError
from mousai.fit import FitResult, Run, fit, make_optimizer, set_rate
from mousai.presets import TINY
from mousai.runlog import append_row, last_value, read_rows, truncate
from mousai.seeds import seed_of

CONFIG = FitConfig(length=1, steps=40, batch_size=8, learning_rate=1e-2, checkpoint_every=15, validate_every=20,
                   preview_every=20)  # fmt: skip
TIMINGS = {"seconds", "steps_per_second", "data_wait"}


class Tiny(nn.Module):
    """A denoiser with weights and the buffers of a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.norm(self.inner(x)).tanh())  # type: ignore[no-any-return]


def make_model() -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tiny()


def line_batches(first: int) -> Iterator[Tensor]:
    """Points [8, 4] on a line; batch n depends on n alone."""
    step = first
    while True:
        generator = torch.Generator().manual_seed(step)
        yield torch.randn(8, 1, generator=generator) * torch.tensor([1.0, -1.0, 0.5, 2.0])
        step += 1


def denoising_loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(batch.shape, generator=generator)
    return (model(batch + 0.3 * noise) - batch).square().mean(dim=1)


def draw_nothing(model: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def make_run(folder: Path, **changed: Any) -> Run:
    handed: dict[str, Any] = {
        "kind": "dmae", "model_config": TINY.dmae, "provenance": {"version": "test"}, "batches": line_batches,
        "loss": denoising_loss, "settle": lambda ema: None,
        "validate": lambda ema: {"val_loss": ema.outer.weight.sum().item()}, "preview": draw_nothing,
    }  # fmt: skip
    return Run(folder=folder, **(handed | changed))


def train(folder: Path, config: FitConfig = CONFIG, **changed: Any) -> FitResult:
    return fit(make_model(), config, make_run(folder, **changed))


def when(step: int, act: Callable[[], None]) -> Callable[[int], Iterator[Tensor]]:
    """`line_batches`, with something that happens as the batch of `step` is asked for."""

    def batches(first: int) -> Iterator[Tensor]:
        for number, batch in enumerate(line_batches(first), first):
            if number == step:
                act()
            yield batch

    return batches


def crash() -> None:
    raise RuntimeError("the power failed")


def final(folder: Path) -> Checkpoint:
    latest = latest_checkpoint(folder)
    assert latest is not None
    return load_checkpoint(latest, "dmae", training=True)


def assert_same_tensors(one: Checkpoint, other: Checkpoint) -> None:
    for name in ("model", "ema", "optimizer"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert ours.keys() == theirs.keys() and len(ours) > 0
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == [], name


def test_a_kill_between_saving_the_last_step_and_judging_it_costs_nothing(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole)

    def killed(model: nn.Module) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, dataclasses.replace(CONFIG, validate_every=1_000), validate=killed)
    assert list_checkpoints(cut)[-1].name == f"step-{CONFIG.steps:08}"
    result = train(cut)
    assert result.new_steps == 0
    assert timeless(cut)[-1] == timeless(whole)[-1]
    assert (cut / "previews" / f"step-{CONFIG.steps:08}").is_dir()


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in read_rows(folder)]


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uncut")
    train(folder)
    return folder


def test_it_learns(tmp_path: Path):
    result = train(tmp_path, dataclasses.replace(CONFIG, steps=200, checkpoint_every=200))
    assert (result.step, result.new_steps, result.interrupted) == (200, 200, False)
    losses = [row["loss"] for row in read_rows(tmp_path) if "loss" in row]
    assert statistics.median(losses[-10:]) < 0.5 * statistics.median(losses[:10])


def test_the_log_has_a_row_every_ten_steps_and_one_for_each_validation(uncut: Path):
    rows = read_rows(uncut)
    assert [row["step"] for row in rows if "loss" in row] == [10, 20, 30, 40]
    assert [row["step"] for row in rows if "val_loss" in row] == [20, 40]
    assert sorted(path.name for path in (uncut / "previews").iterdir()) == ["step-00000020", "step-00000040"]


@pytest.mark.parametrize("cut", [3, 15, 29])  # before a checkpoint, right after one, and after a row of the log
def test_a_run_cut_in_two_equals_a_run_in_one(tmp_path: Path, uncut: Path, cut: int):
    with pytest.raises(RuntimeError, match="power"):
        train(tmp_path, batches=when(cut, crash))
    result = train(tmp_path)
    assert (result.step, result.new_steps) == (40, 40 - cut // 15 * 15)
    assert_same_tensors(final(tmp_path), final(uncut))
    assert timeless(tmp_path) == timeless(uncut)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, uncut: Path, number: signal.Signals):
    usual = signal.getsignal(number)
    result = train(tmp_path, batches=when(13, lambda: os.kill(os.getpid(), number)))
    assert (result.step, result.interrupted) == (14, True)
    assert final(tmp_path).step == 14
    assert signal.getsignal(number) is usual
    train(tmp_path)
    assert_same_tensors(final(tmp_path), final(uncut))


def test_the_rate_rises_linearly_stays_and_falls_towards_zero():
    config, seen = dataclasses.replace(CONFIG, warmup=4, steps=10, cooldown=2), []
    optimizer = make_optimizer(make_model(), config)
    for step in range(10):
        set_rate(optimizer, config, step)
        seen.append(optimizer.param_groups[0]["lr"] / config.learning_rate)
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.5])


def test_a_run_cut_during_warm_up_equals_a_run_in_one(tmp_path: Path):
    config = dataclasses.replace(CONFIG, warmup=30)
    train(tmp_path / "one", config)
    train(tmp_path / "two", dataclasses.replace(config, steps=10))
    train(tmp_path / "two", config)
    assert_same_tensors(final(tmp_path / "one"), final(tmp_path / "two"))


def test_a_new_run_starts_from_the_weights_it_is_given_and_a_resumed_one_does_not(tmp_path: Path, uncut: Path):
    start = latest_checkpoint(uncut)
    train(tmp_path, dataclasses.replace(CONFIG, steps=1, learning_rate=1e-9), start=start)
    assert torch.allclose(final(tmp_path).model["inner.weight"], final(uncut).ema["inner.weight"], atol=1e-6)
    train(tmp_path, dataclasses.replace(CONFIG, steps=5, learning_rate=1e-1), start=start)
    moved = final(tmp_path).model["inner.weight"]
    train(tmp_path, dataclasses.replace(CONFIG, steps=6, learning_rate=1e-9), start=start)
    assert torch.allclose(final(tmp_path).model["inner.weight"], moved, atol=1e-6)


def test_a_second_signal_does_not_wait(tmp_path: Path):
    def impatient() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, batches=when(17, impatient))
    assert final(tmp_path).step == 15


def test_the_average_moves_at_every_step_from_the_initial_weights_on(tmp_path: Path):
    weights: list[Tensor] = []

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        weights.append(model.get_parameter("inner.weight").detach().clone())
        return denoising_loss(model, batch, generator)

    train(tmp_path, dataclasses.replace(CONFIG, steps=5), loss=loss)
    checkpoint, average = final(tmp_path), weights[0]
    for update, after in enumerate([*weights[1:], checkpoint.model["inner.weight"]], start=1):
        average = average.lerp(after, (1 + update) ** -0.7)
    torch.testing.assert_close(checkpoint.ema["inner.weight"], average)


def test_the_average_is_settled_before_it_is_saved_and_looked_at(tmp_path: Path):
    train(
        tmp_path, dataclasses.replace(CONFIG, steps=10),
        settle=lambda model: model.norm.running_mean.fill_(7.0),
        validate=lambda ema: {"val_loss": ema.norm.running_mean.mean().item()},
    )  # fmt: skip
    assert last_value(tmp_path, "val_loss") == 7.0
    assert final(tmp_path).ema["norm.running_mean"].unique().tolist() == [7.0]


def test_a_finished_run_does_nothing_again(tmp_path: Path):
    train(tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    result = train(tmp_path, batches=when(40, crash))
    assert (result.step, result.new_steps) == (40, 0)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_more_steps_go_on_where_it_ended(tmp_path: Path, uncut: Path):
    train(tmp_path, dataclasses.replace(CONFIG, steps=20))
    train(tmp_path)
    assert_same_tensors(final(tmp_path), final(uncut))


def test_step_n_draws_from_the_seed_and_n(tmp_path: Path):
    seen: list[int] = []

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(generator.initial_seed())
        return denoising_loss(model, batch, generator)

    train(tmp_path, dataclasses.replace(CONFIG, steps=3, seed=7), loss=loss)
    assert seen == [seed_of(7, "step", n) for n in range(3)]


def test_a_budget_ends_training_and_is_spent_only_once(tmp_path: Path):
    first = train(tmp_path, budget=1e-9)
    assert (first.new_steps, final(tmp_path).step) == (1, 1)
    again = train(tmp_path, budget=1e-9)
    assert (again.new_steps, again.step) == (0, 1)
    assert 0 < again.seconds <= first.seconds


@pytest.mark.parametrize(("every", "noticed"), [(10, 20), (3, 12)])
def test_a_loss_that_is_no_number_is_a_users_error_and_is_never_saved(tmp_path: Path, every: int, noticed: int):
    config = dataclasses.replace(CONFIG, checkpoint_every=every)

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        return denoising_loss(model, batch, generator) * (1 if next(steps) < 10 else float("nan"))

    steps = iter(range(100))
    with pytest.raises(UserError, match=rf"the loss is nan at step {noticed}\..*lower learning_rate"):
        train(tmp_path, config, loss=loss)
    checkpoint = final(tmp_path)
    assert checkpoint.step <= 10
    assert all(tensor.isfinite().all() for tensor in checkpoint.model.values())


def test_a_run_of_another_model_is_a_users_error(tmp_path: Path):
    train(tmp_path, dataclasses.replace(CONFIG, steps=1))
    with pytest.raises(UserError, match=r"another model configuration.*mousai train dmae --restart"):
        train(tmp_path, model_config=dataclasses.replace(TINY.dmae, gain=1.0))
    with pytest.raises(UserError, match="is a checkpoint of a dmae, and a generator is needed"):
        train(tmp_path, kind="generator")


def test_only_the_two_newest_checkpoints_stay(uncut: Path):
    assert [path.name for path in list_checkpoints(uncut)] == ["step-00000030", "step-00000040"]


def test_a_checkpoint_holds_no_pickle(uncut: Path, monkeypatch: pytest.MonkeyPatch):
    folder = latest_checkpoint(uncut)
    assert folder is not None
    names = {path.name for path in folder.iterdir()}
    tensors = {f"{name}.safetensors" for name in ("model", "ema", "optimizer")}
    assert names == {"checkpoint.json", "tracks.txt", *tensors}
    with safetensors.safe_open(folder / "ema.safetensors", "pt") as file:
        assert set(file.keys()) == make_model().state_dict().keys()
    monkeypatch.setattr("torch.load", lambda *_, **__: crash())
    monkeypatch.setattr("pickle.Unpickler", lambda *_, **__: crash())
    checkpoint = load_checkpoint(folder, "dmae")
    assert (checkpoint.step, checkpoint.provenance) == (40, {"version": "test"})
    assert (checkpoint.model, checkpoint.optimizer) == ({}, {})


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, uncut: Path):
    train(tmp_path, dataclasses.replace(CONFIG, steps=20))
    torn = tmp_path / "checkpoints" / ".step-00000030.tmp"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    assert final(tmp_path).step == 20
    train(tmp_path)
    assert_same_tensors(final(tmp_path), final(uncut))
    assert not torn.exists()


@pytest.mark.parametrize("file", ["ema.safetensors", "checkpoint.json"])
def test_a_damaged_checkpoint_is_a_users_error(tmp_path: Path, file: str):
    tensors = {"weight": torch.ones(100)}
    folder = save_checkpoint(tmp_path, Checkpoint(kind="dmae", config={"a": 1}, step=1, model=tensors, ema=tensors,
                                                  optimizer=tensors))  # fmt: skip
    (folder / file).write_bytes((folder / file).read_bytes()[:40])
    with pytest.raises(UserError, match=rf"{file} is damaged.*Delete"):
        load_checkpoint(folder, "dmae")


def test_what_lies_ahead_of_a_resume_is_cut_from_the_log(tmp_path: Path):
    for step in (10, 20, 30):
        append_row(tmp_path, {"step": step, "loss": step / 10})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # a kill cut it short
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20, 30]
    truncate(tmp_path, 20)
    append_row(tmp_path, {"step": 30, "val_loss": 7.0})
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20, 30]
    assert (last_value(tmp_path, "loss"), last_value(tmp_path, "val_loss"), last_value(tmp_path, "x")) == (
        2.0,
        7.0,
        None,
    )


def test_the_average_moves_as_written_down_by_hand():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, 1.0)
    ema, average = averaged_copy(model), 1.0
    for update, (weight, decay) in enumerate([(2.0, 1 - 2**-0.7), (0.0, 1 - 3**-0.7), (4.0, 1 - 4**-0.7)], start=1):
        nn.init.constant_(model[0].weight, weight)
        model[1].running_mean.fill_(weight)
        update_ema(ema, model, decay_at(update, 0.995, 0.7))
        average = decay * average + (1 - decay) * weight
        assert ema[0].weight.item() == pytest.approx(average, rel=1e-6)
        assert ema[1].running_mean.item() == weight  # statistics are copied
    assert not any(parameter.requires_grad for parameter in ema.parameters())


def test_the_decay_grows_to_the_papers_0995():
    decays = [decay_at(update, 0.995, 0.7) for update in range(1, 3001)]
    assert decays == sorted(decays)
    assert decays.index(0.995) + 1 == 1937  # the least n with (1 + n)^-0.7 <= 0.005, 200^(10 / 7) - 1
    assert decays[-1] == 0.995


def test_the_hyperparameters_are_those_of_section_5_2():
    config, model = FitConfig(length=1), make_model()
    optimizer = make_optimizer(model, config)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-4, (0.95, 0.999), 1e-6, 1e-3)
    assert len(group["params"]) == len(list(model.parameters()))
    assert (config.ema_beta, config.ema_power, config.batch_size, config.steps) == (0.995, 0.7, 32, 1_000_000)
    assert config.text_drop == 0.1
