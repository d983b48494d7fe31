"""Make the weights that come with mousai: a trained DMAE's averages as fp16, judged after the rounding.

    python benchmarks/ship.py CHECKPOINT mousai/weights/NAME --judge WORKSPACE [--unheard WORKSPACE]

--judge names the workspace that the DMAE was trained in: its training shards give the latents' statistics, its held-out
tracks are judged. Of an --unheard one, whose tracks it has never seen, the larger split is judged. Beside the weights
come `figures.json`, a picture of crops and some to listen to; the model card is written by hand.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mousai.audio import SAMPLE_RATE, peak_gain
from mousai.checkpoint import load_checkpoint
from mousai.config import DMAEConfig, from_dict
from mousai.dmae import DMAE
from mousai.generate import load_dmae
from mousai.judge import decode_all, judge
from mousai.lineage import write_tracks
from mousai.pictures import draw_mels
from mousai.stage_one import CROP_LENGTH, CROPS, STEPS
from mousai.storage import publish_folder, write_json
from mousai.train_dmae import DMAEWatch, power_spectrum
from mousai.workspace import open_workspace
from pipeline.load import audio_examples
from pipeline.manifest import read_table
from pipeline.prompts import tracks_by_id
from pipeline.records import Track
from pipeline.songs import songs


def export(checkpoint: Path, folder: Path, calibration: Tensor) -> None:
    """Write the averaged weights as fp16, with statistics of the *rounded* weights over audio [N, 2, T], as fp32.

    Whitening magnifies what is small: with the statistics of the unrounded weights, the decoder is 15 dB too loud.
    """
    loaded = load_checkpoint(checkpoint, "dmae")
    dmae = DMAE(from_dict(DMAEConfig, loaded.config, str(checkpoint))).eval()
    dmae.load_state_dict(loaded.ema)
    with torch.no_grad():
        for parameter in dmae.parameters():
            parameter.copy_(parameter.half())
    dmae.settle(calibration)
    parameters = dict(dmae.named_parameters())
    halved = {name: value.half() if name in parameters else value for name, value in dmae.state_dict().items()}
    with publish_folder(folder) as temporary:
        if (card := folder / "README.md").exists():
            shutil.copy(card, temporary)
        save_file(halved, temporary / "ema.safetensors")
        (temporary / "ema.safetensors").chmod(0o644)
        provenance = {key: value for key, value in loaded.provenance.items() if key != "command"}
        about = {"config": loaded.config, "training": loaded.training, "provenance": provenance}
        write_json(temporary / "checkpoint.json", {"kind": "dmae", "step": loaded.step, **about})
        if loaded.tracks is not None:
            write_tracks(temporary, loaded.tracks)


def figures(dmae: DMAE, workspace: Path, split: str) -> dict[str, Any]:
    """Losses by noise level, and the curve over decoder steps, on a split of a workspace."""
    shards = open_workspace(workspace).shards
    short = {"shards": shards, "split": split, "length": 2**15}
    watch = DMAEWatch(
        examples=audio_examples(**short, count=64), demo=audio_examples(**short, count=0),
        calibration=audio_examples(**short, count=0), seed=0,
        power=power_spectrum(dmae, audio_examples(shards, "train", length=2**15, count=256).audio),
    )  # fmt: skip
    examples = audio_examples(shards, split, length=CROP_LENGTH, count=CROPS)
    curve = []
    for steps in STEPS:
        curve.append(asdict(judge(dmae, examples, steps=steps)[0]))
        print(json.dumps(curve[-1]), flush=True)
    tracks = len(set(examples.track_ids))
    return {"held_out_tracks": tracks, "curve": curve, "levels": watch.validate(dmae)}


def draw(dmae: DMAE, workspace: Path, path: Path, count: int = 3) -> None:
    """One picture of some held-out crops, each above its reconstruction, in 64 colours: a third of the bytes."""
    examples = audio_examples(open_workspace(workspace).shards, "val", length=2**18, count=count)
    judged, decoded = judge(dmae, examples, steps=STEPS[-1])
    pairs = [(("held out", a), ("auto-encoded", b)) for a, b in zip(examples.audio, decoded, strict=True)]
    draw_mels(path, [each for pair in pairs for each in pair])
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)
    print(f"{path}: {judged.distance:.2f} dB")


def hear(dmae: DMAE, workspace: Path, folder: Path, count: int = 3) -> None:
    """Real held-out crops of 5.5 s and what becomes of them, as Ogg Vorbis for the demo's page, with their titles."""
    space = open_workspace(workspace)
    tracks = tracks_by_id(read_table(space.manifests / "tracks.parquet", Track))
    invented = {song.artists[0] for song in songs(0)}  # the same for any seed
    examples = audio_examples(space.shards, "val", length=2**18, count=CROPS)
    first = {tracks[each].path: i for i, each in reversed(list(enumerate(examples.track_ids)))}  # a crop a track
    real = sorted(i for i in first.values() if not invented & set(tracks[examples.track_ids[i]].artists))
    titles = {}
    with publish_folder(folder) as temporary:
        for number, i in enumerate(real[:: max(1, len(real) // count)][:count]):
            _, decoded = decode_all(dmae, examples.audio[i : i + 1], STEPS[-1], seed=0)
            for name, audio in (("true", examples.audio[i]), ("decoded", decoded[0])):
                quiet = audio * peak_gain(audio.abs().max().item())
                soundfile.write(temporary / f"{number}-{name}.ogg", quiet.T.numpy(), SAMPLE_RATE, format="OGG")
            track = tracks[examples.track_ids[i]]
            named = (track.title or Path(track.path).stem, *track.artists, Path(track.library).name)
            titles[str(number)] = ", ".join(named)
        write_json(temporary / "titles.json", titles)


def main() -> None:
    """Export, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--unheard", type=Path, action="append", default=[])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shards = open_workspace(given.judge).shards
    export(given.checkpoint, given.folder, audio_examples(shards, "train", length=2**15, count=512).audio)
    dmae = load_dmae(given.folder, torch.device("cpu"))
    found = {}
    for workspace, split in ((given.judge, "val"), *((each, "train") for each in given.unheard)):
        found[workspace.name] = figures(dmae, workspace, split)
    write_json(given.folder / "figures.json", found)
    draw(dmae, given.judge, given.folder / "corpus.png")
    hear(dmae, given.judge, given.folder / "heard")


if __name__ == "__main__":
    main()
