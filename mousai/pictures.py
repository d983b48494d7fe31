"""Pictures as PNG: mel spectrograms, curves, losses by noise level, confusion matrices."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mousai.audio import SAMPLE_RATE
from mousai.mel import HOP, log_mel
from mousai.storage import publish

RANGE_DB = 80  # shown below the loudest point


@contextmanager
def _figure(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[list[Axes]]:
    """Axes, row by row, of a figure that is published at `path` when the block ends."""
    with matplotlib.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        yield list(figure.subplots(rows, columns, squeeze=False).flat)
        with publish(path) as temporary:
            figure.savefig(temporary, format="png", dpi=130, metadata={"Software": None})


def draw_mels(path: Path, sounds: Sequence[tuple[str, Tensor]]) -> None:
    """Log-mel spectrograms of (title, audio [2, T]) one above the other, on one scale (the paper's Figure 6)."""
    mels = [log_mel(audio.cpu()) for _, audio in sounds]
    top = max(mel.max().item() for mel in mels)
    with _figure(path, len(sounds), 1, (5.6, 1.9 * len(sounds))) as axes:
        for axis, (title, _), mel in zip(axes, sounds, mels, strict=True):
            seconds = mel.shape[-1] * HOP / SAMPLE_RATE
            axis.imshow(mel.numpy(), origin="lower", aspect="auto", vmin=top - RANGE_DB, vmax=top, cmap="magma",
                        extent=(0, seconds, 0, mel.shape[0]))  # fmt: skip
            axis.set_title(title, parse_math=False)  # "Ca$h $tar" is no formula
            axis.set_ylabel("mel band")
        axes[-1].set_xlabel("seconds")


def draw_curves(path: Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str,
                ) -> None:  # fmt: skip
    """Named (x, y) curves in one picture."""
    with _figure(path, 1, 1, (5.6, 3)) as (axis,):
        for name, (x, y) in curves.items():
            axis.plot(x, y, label=name, marker="." if len(x) < 30 else None, linewidth=1.2)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)


def draw_confusion(path: Path, names: Sequence[str], matrices: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """Confusion matrices side by side (the paper's Figure 5): rows are what was asked for, columns what was heard."""
    with _figure(path, 1, len(matrices), (3.6 * len(matrices), 3.4)) as axes:
        for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
            top = max(1, *(value for row in matrix for value in row))
            axis.imshow(matrix, cmap="Blues", vmin=0, vmax=top)
            for i, row in enumerate(matrix):
                for j, value in enumerate(row):
                    axis.text(j, i, str(value), ha="center", va="center", color="white" if value > top / 2 else "black")
            axis.set(title=title, xlabel="recognised as", ylabel="asked for")
            axis.set_xticks(range(len(names)), names, rotation=30)
            axis.set_yticks(range(len(names)), names)
