"""Checkpoints: a folder of safetensors and JSON that appears whole or not at all; no pickle anywhere.

`model.safetensors` and `ema.safetensors` hold weights and buffers, `optimizer.safetensors` the optimizer's tensors,
`checkpoint.json` all the rest, and `tracks.txt` what it was trained on. Checkpoints of a run lie in
`RUN/checkpoints/step-00001000`.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from mousai.errors import UserError
from mousai.lineage import read_tracks, write_tracks
from mousai.storage import publish_folder, read_json, sha256_of_file, write_json

Tensors = dict[str, Tensor]
_ABOUT = ("kind", "step", "config", "training", "provenance")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that is needed to go on training, to generate, and to say where the weights came from."""

    kind: str  # "dmae" or "generator"
    config: dict[str, Any]  # of the model
    step: int
    model: Tensors
    ema: Tensors
    optimizer: Tensors
    training: dict[str, Any] = field(default_factory=dict)  # FitConfig, seconds trained so far
    provenance: dict[str, Any] = field(default_factory=dict)  # version, data hash, command line, encoder id
    tracks: frozenset[str] | None = None  # ids of all that it was trained on; None: not known


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Publish a checkpoint in `run` and delete all but the newest `keep`."""
    folder = run / "checkpoints" / f"step-{checkpoint.step:08}"
    with publish_folder(folder) as temporary:
        for name in ("model", "ema", "optimizer"):
            tensors: Tensors = getattr(checkpoint, name)
            path = temporary / f"{name}.safetensors"
            save_file({key: value.contiguous() for key, value in tensors.items()}, path)
            path.chmod(0o644)  # safetensors makes files that only their owner may read
        about = {key: getattr(checkpoint, key) for key in _ABOUT}
        write_json(temporary / "checkpoint.json", about)
        if checkpoint.tracks is not None:
            write_tracks(temporary, checkpoint.tracks)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return folder


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run; None where there is none."""
    checkpoints = list_checkpoints(run)
    return checkpoints[-1] if checkpoints else None


def load_checkpoint(folder: Path, kind: str, *, training: bool = False) -> Checkpoint:
    """The checkpoint in `folder`; model and optimizer only if `training`, else they are empty and `ema` is there.

    UserError where it is missing, damaged or of another kind.
    """
    about = read_about(folder, kind)
    loaded: dict[str, Tensors] = {}
    for name in ("model", "ema", "optimizer"):
        wanted = training or name == "ema"
        try:
            loaded[name] = load_file(folder / f"{name}.safetensors") if wanted else {}
        except Exception as error:  # safetensors raises its own error type, with no common base
            raise UserError(
                f"{folder}/{name}.safetensors is damaged ({error}). Delete {folder} to use an older one"
            ) from error
    return Checkpoint(
        **about,
        model=loaded["model"],
        ema=loaded["ema"],
        optimizer=loaded["optimizer"],
        tracks=read_tracks(folder),
    )


def read_about(folder: Path, kind: str) -> dict[str, Any]:
    """All of the checkpoint in `folder` but its tensors; UserError as from `load_checkpoint`."""
    path = folder / "checkpoint.json"
    if not path.exists():
        raise UserError(f"{folder} holds no checkpoint. Make one with: mousai train {kind}")
    try:
        about = {key: read_json(path)[key] for key in _ABOUT}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}). Delete {folder} to use an older one") from error
    if about["kind"] != kind:
        raise UserError(f"{folder} is a checkpoint of a {about['kind']}, and a {kind} is needed here")
    return about


def weights_id(folder: Path) -> str:
    """What identifies the EMA weights of a checkpoint: 16 hex digits of their hash."""
    return sha256_of_file(folder / "ema.safetensors")[:16]
