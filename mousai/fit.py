"""The one training loop: handed a model, its loss and its batches, it trains, logs, saves and resumes.

Step n (from 0) uses batch n and draws its noise from (seed, n): a run cut anywhere and resumed sees what an uncut run
would have seen.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mousai.checkpoint import Checkpoint, Tensors, latest_checkpoint, load_checkpoint, save_checkpoint
from mousai.config import FitConfig, to_dict
from mousai.ema import averaged_copy, decay_at, update_ema
from mousai.errors import UserError
from mousai.lineage import read_tracks
from mousai.progress import progress
from mousai.runlog import append_row, read_rows, truncate
from mousai.seeds import seed_of
from mousai.storage import publish_folder, require_space

LOG_EVERY = 10  # steps between rows of the log

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]  # (model, batch, noise source) -> loss of each example [B]
Batches = Callable[[int], Iterator[Any]]  # first step -> endless batches
Validate = Callable[[nn.Module], dict[str, Any]]  # EMA model -> figures for the log
Settle = Callable[[nn.Module], None]  # bring statistics of the EMA model's activations up to date
Preview = Callable[[nn.Module, Path], None]  # (EMA model, folder to draw in)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run lives, what it trains and what it is handed beside the model."""

    folder: Path
    kind: str  # "dmae" or "generator"
    model_config: Any
    provenance: dict[str, Any]
    batches: Batches
    loss: Loss
    settle: Settle
    validate: Validate
    preview: Preview
    budget: float | None = None  # seconds of training in all; None: until `steps`
    start: Path | None = None  # a checkpoint whose averaged weights a new run starts from; None: the model as it is
    tracks: frozenset[str] | None = frozenset()  # ids of all that is trained on; None: not known


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """How training ended."""

    step: int
    seconds: float  # trained so far, over all sittings, without the validation at the end
    new_steps: int
    interrupted: bool


def fit(model: nn.Module, config: FitConfig, run: Run) -> FitResult:
    """Train `model` in place until `config.steps` or `run.budget`, resuming from the latest checkpoint of the run.

    SIGINT and SIGTERM finish the step, save and return. UserError where the run's checkpoint is of another
    configuration, or the loss stops being finite.
    """
    run = replace(run, tracks=_tracks_so_far(run))
    run.settle(model)
    ema = averaged_copy(model)
    optimizer = make_optimizer(model, config)
    first, spent = _resume(run, model, ema, optimizer)
    if first >= config.steps or (run.budget is not None and spent >= run.budget):
        _look(run, ema, first)
        return FitResult(step=first, seconds=spent, new_steps=0, interrupted=False)
    truncate(run.folder, first)
    weights = sum(each.numel() * each.element_size() for each in model.state_dict().values())
    require_space(run.folder, 4 * 3 * weights, "training")  # weights, EMA and two moments; three checkpoints at a time
    unit, total = ("steps", config.steps - first) if run.budget is None else ("s", run.budget - spent)
    step, waited, started = first, 0.0, time.monotonic()
    shown = started
    with _signals() as interrupted, progress(f"train {run.kind}", total, unit) as advance:
        batches = run.batches(first)
        over = stopped = False
        while not over:
            before = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - before
            loss = _train_step(model, ema, optimizer, batch, run.loss, config, step)
            step += 1
            now = time.monotonic()
            seconds = spent + now - started
            stopped = interrupted()
            over = stopped or step >= config.steps or (run.budget is not None and seconds >= run.budget)
            if over or step % LOG_EVERY == 0:
                row = _row(step, loss, seconds, (step - first) / (now - started), waited / (now - started))
                append_row(run.folder, row)
                new_steps = step - max(first, (step - 1) // LOG_EVERY * LOG_EVERY)
                advance(new_steps if run.budget is None else now - shown, _note(row))
                shown = now
            save, validate, preview = (
                over or step % every == 0
                for every in (config.checkpoint_every, config.validate_every, config.preview_every)
            )
            if save or validate or preview:
                run.settle(ema)
            if save:
                _finite(loss, step)
                _save(run, config, model, ema, optimizer, step, seconds)
            if stopped:
                break
            if validate:
                append_row(run.folder, {"step": step, **run.validate(ema)})
            if preview:
                _preview(run, ema, step)
    return FitResult(step=step, seconds=seconds, new_steps=step - first, interrupted=stopped)


def _look(run: Run, ema: nn.Module, step: int) -> None:
    """Validate and preview a finished run's last step, where a kill came between saving it and that."""
    if not any(row["step"] == step and "loss" not in row for row in read_rows(run.folder)):
        append_row(run.folder, {"step": step, **run.validate(ema)})
    if not _preview_folder(run, step).exists():
        _preview(run, ema, step)


def _preview(run: Run, ema: nn.Module, step: int) -> None:
    with publish_folder(_preview_folder(run, step)) as folder:
        run.preview(ema, folder)


def _preview_folder(run: Run, step: int) -> Path:
    return run.folder / "previews" / f"step-{step:08}"


def make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """AdamW over all parameters (section 5.2), those of an `encoder` at `config.encoder_rate` times the rate."""
    named = list(model.named_parameters())
    rates = {True: config.encoder_rate * config.learning_rate, False: config.learning_rate}
    groups = [
        {"params": [each for name, each in named if name.startswith("encoder.") == encoder], "lr": rate}
        for encoder, rate in rates.items()
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=next(model.parameters()).is_cuda,
    )


def _train_step(
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    loss_of: Loss,
    config: FitConfig,
    step: int,
) -> Tensor:
    """One update of the weights and of their average; the batch's mean loss."""
    device = next(model.parameters()).device
    model.train()
    generator = torch.Generator(device).manual_seed(seed_of(config.seed, "step", step))
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss = loss_of(model, batch, generator).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    set_rate(optimizer, config, step)
    optimizer.step()
    update_ema(ema, model, decay_at(step + 1, config.ema_beta, config.ema_power))
    return loss.detach()


def set_rate(optimizer: torch.optim.Optimizer, config: FitConfig, step: int) -> None:
    """Every group's rate at `step`: it rises linearly over the first `warmup` steps and falls over the last ones."""
    rise = (step + 1) / config.warmup if step < config.warmup else 1.0
    fall = (config.steps - step) / config.cooldown if config.steps - step < config.cooldown else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("full_lr", group["lr"]) * min(rise, fall)


def _row(step: int, loss: Tensor, seconds: float, rate: float, data_wait: float) -> dict[str, Any]:
    """A line of the log; UserError where the loss is no longer a number."""
    return {
        "step": step,
        "loss": _finite(loss, step),
        "seconds": round(seconds, 2),
        "steps_per_second": round(rate, 3),
        "data_wait": round(data_wait, 4),
    }


def _note(row: dict[str, Any]) -> str:
    return f"loss {row['loss']:.4f} · {row['steps_per_second']:.2f} steps/s · data {row['data_wait']:.0%}"


def _finite(loss: Tensor, step: int) -> float:
    """The loss as a number; UserError where it is none, before anything is saved."""
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(
            f"the loss is {value} at step {step}. The last checkpoint is good: lower learning_rate in mousai.toml "
            "and run the same command again."
        )
    return value


def _resume(run: Run, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Load the run's latest checkpoint, else `run.start`, in place; its step and the seconds trained so far."""
    folder = latest_checkpoint(run.folder)
    if folder is None:
        if run.start is not None:
            weights = load_checkpoint(run.start, run.kind).ema
            model.load_state_dict(weights)
            ema.load_state_dict(weights)
        return 0, 0.0
    checkpoint = load_checkpoint(folder, run.kind, training=True)
    if json.loads(json.dumps(to_dict(run.model_config))) != checkpoint.config:
        raise UserError(
            f"{run.folder} was trained with another model configuration than mousai.toml has now. "
            f"Start anew with: mousai train {run.kind} --restart (the old run is kept under another name)"
        )
    model.load_state_dict(checkpoint.model)
    ema.load_state_dict(checkpoint.ema)
    restore_optimizer(optimizer, checkpoint.optimizer)
    return checkpoint.step, float(checkpoint.training["seconds"])


def _tracks_so_far(run: Run) -> frozenset[str] | None:
    """What is trained on now and what the weights that the run goes on from were; None if these do not say."""
    source = latest_checkpoint(run.folder) or run.start
    before = frozenset[str]() if source is None else read_tracks(source)
    return None if before is None or run.tracks is None else before | run.tracks


def _save(
    run: Run,
    config: FitConfig,
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    save_checkpoint(
        run.folder,
        Checkpoint(
            kind=run.kind,
            config=to_dict(run.model_config),
            step=step,
            model=model.state_dict(),
            ema=ema.state_dict(),
            optimizer=optimizer_tensors(optimizer),
            training={"fit": to_dict(config), "seconds": seconds},
            provenance=run.provenance,
            tracks=run.tracks,
        ),
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's state as flat tensors, "PARAMETER.NAME"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """The inverse of `optimizer_tensors`; hyperparameters stay as the optimizer has them."""
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that is true once SIGINT or SIGTERM came; a second one acts as usual."""
    received: list[int] = []
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def receive(number: int, _frame: Any) -> None:
        received.append(number)
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, receive)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
