"""kill -9 in the middle of a stage, then the same command: the bytes are those of a run that nobody disturbed."""

import shutil
import time
from pathlib import Path

import pytest
from cli_runs import CHAIN, Chain

from benchmarks.kill import Kill, kill, moments, published

OUTPUTS = {  # what a stage leaves, and what later ones leave of it
    "ingest": ["manifests", "shards", "latents"],
    "prompts": ["manifests/chunks.parquet", "shards", "latents"],
    "shard": ["shards", "latents"],
    "encode-latents": ["latents"],
}


@pytest.mark.parametrize("number", [0, 1], ids=["with its workers", "the main process"])
@pytest.mark.parametrize("stage", OUTPUTS)
def test_a_killed_command_run_again_ends_as_if_it_had_not_been_killed(
    chain: Chain, tmp_path: Path, stage: str, number: int
):
    space = Chain(workspace=tmp_path / "space", library=chain.library, outcomes={})
    words = [str(chain.library) if word == "LIBRARY" else word for word in CHAIN[stage]]
    prepare(chain.workspace, space.workspace, stage)
    began = time.monotonic()
    assert space.run(stage).code == 0
    duration, undisturbed = time.monotonic() - began, published(space.workspace)

    how = list(moments(duration, 2, seed=1))[number]
    prepare(chain.workspace, space.workspace, stage)
    while not kill(words, space.workspace, how) or published(space.workspace) == undisturbed:  # it was done by then
        prepare(chain.workspace, space.workspace, stage)
        how = Kill(moment=how.moment / 2, group=how.group)
    assert space.run(stage).code == 0
    assert published(space.workspace) == undisturbed


def prepare(finished: Path, space: Path, stage: str) -> None:
    """A copy of a finished workspace as it was before `stage`."""
    shutil.rmtree(space, ignore_errors=True)
    shutil.copytree(finished, space, ignore=shutil.ignore_patterns("runs/generator", "generated"))
    for name in OUTPUTS[stage]:
        path = space / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
