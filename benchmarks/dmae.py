"""One run of the experiment log (docs/experiments.md): train a DMAE for so many minutes, then judge it.

    python benchmarks/dmae.py WORKSPACE --minutes 5 [--seed 0] [--set dmae.gain=10 …] [--log FILE]

WORKSPACE has shards. One thread, so that two runs fit two cores. Prints a JSON row, and appends it to FILE.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from mousai.checkpoint import latest_checkpoint
from mousai.config import Preset, from_dict
from mousai.fit import Run, fit
from mousai.generate import load_dmae
from mousai.judge import judge
from mousai.train_dmae import DMAEWatch, build_dmae, dmae_loss, power_spectrum
from mousai.workspace import Workspace, open_workspace
from pipeline.load import audio_batches, audio_examples

DECODER_STEPS = 25


def overridden(preset: Preset, settings: list[str]) -> Preset:
    """The preset with "a.b=VALUE" applied in turn, values as JSON or words."""
    for setting in settings:
        keys, _, text = setting.partition("=")
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text
        for key in reversed(keys.split(".")):
            value = {key: value}
        preset = from_dict(Preset, value, setting, preset)
    return preset


def experiment(space: Workspace, preset: Preset, minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    """Train for `minutes` and return the figures of the averaged model."""
    config, device = preset.train_dmae, torch.device("cpu")
    training = audio_examples(space.shards, "train", length=config.length, count=64)
    dmae = build_dmae(preset.dmae, seed, device)
    watch = DMAEWatch(
        examples=audio_examples(space.shards, "val", length=config.length, count=config.validation_examples),
        demo=audio_examples(space.shards, "val", length=config.length, count=0),
        calibration=training,
        power=power_spectrum(dmae, training.audio),
        seed=seed,
    )
    rows: list[dict[str, Any]] = []

    def validate(model: torch.nn.Module) -> dict[str, Any]:
        rows.append(watch.validate(model))
        return rows[-1]

    batches = audio_batches(space.shards, length=config.length, batch_size=config.batch_size, seed=seed, workers=0)
    run = Run(
        folder=folder, kind="dmae", model_config=preset.dmae, provenance={}, batches=batches,
        loss=partial(dmae_loss, texture=config.texture),
        settle=watch.settle, validate=validate, preview=lambda model, path: None, budget=60 * minutes,
    )  # fmt: skip
    result = fit(dmae, config, run)
    model = load_dmae(cast(Path, latest_checkpoint(folder)), device)
    examples = audio_examples(space.shards, "val", length=2**16, count=40)
    judged, _ = judge(model, examples, steps=DECODER_STEPS)
    return {"steps": result.step, **rows[-1], **asdict(judged)}


def main() -> None:
    """Run, print and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the run's folder here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    space = open_workspace(given.workspace)
    preset = overridden(space.preset, given.settings)
    with tempfile.TemporaryDirectory() as temporary:
        figures = experiment(space, preset, given.minutes, given.seed, given.keep or Path(temporary))
    row = {"settings": given.settings, "seed": given.seed, "minutes": given.minutes, **figures}
    line = json.dumps({key: rounded(value) for key, value in row.items()})
    print(line)
    if given.log:
        with given.log.open("a") as file:
            file.write(line + "\n")


def rounded(value: Any) -> Any:
    """Floats to four digits, inside lists and dicts as well."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
