"""The house: every module stands on a floor and imports only from floors below it.

FLOORS is also the order in which to read the code.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mousai", "pipeline")

GROUND = [  # what both packages stand on
    {"mousai.errors", "mousai.seeds", "mousai.progress", "mousai.batches", "mousai.charts", "mousai.settings"},
    {"mousai.storage"},
    {"mousai.audio", "mousai.page"},
]
FLOORS = [
    *GROUND,
    {"pipeline.loudness"},  # what an ear hears
    {  # nouns, and what is said about a model
        "pipeline.records", "pipeline.raw_tags", "pipeline.texts", "pipeline.licences",
        "pipeline.songs", "pipeline.instruments", "pipeline.executors",
        "pipeline.figures", "pipeline.proof", "pipeline.spectrogram", "pipeline.fingerprint", "pipeline.quality",
        "mousai.config", "mousai.diffusion", "mousai.ema", "mousai.text", "mousai.lineage", "mousai.runlog",
    },
    {  # tables, files and prompts; networks
        "pipeline.manifest", "pipeline.tags", "pipeline.decode", "pipeline.prompts", "pipeline.bands",
        "pipeline.encode_files",
        "pipeline.limits",
        "mousai.presets", "mousai.unet", "mousai.samplers", "mousai.mel", "mousai.envelope", "mousai.pretrained",
        "mousai.checkpoint",
    },
    {"pipeline.selection"},  # which tracks are trained on
    {  # plans and shards; models, and how anything is trained
        "pipeline.metadata", "pipeline.walk",
        "pipeline.chunks", "pipeline.tars", "pipeline.synth", "pipeline.excerpt", "pipeline.split_figures",
        "pipeline.duplicates",
        "pipeline.track_figures",
        "mousai.workspace", "mousai.dmae", "mousai.generator", "mousai.fit", "mousai.pictures",
        "pipeline.removal", "mousai.centroids", "mousai.costs", "mousai.texture",
    },
    {  # stages
        "pipeline.ingest", "pipeline.shard", "pipeline.encode_latents", "pipeline.load", "pipeline.report",
        "pipeline.verify",
        "pipeline.contents", "mousai.train_dmae", "mousai.train_generator", "mousai.generate", "mousai.params",
        "mousai.doctor", "mousai.judge", "pipeline.rewrite",
    },
    {  # what stage 1 must show; a dataset's page; shards in the form of other toolkits
        "mousai.stage_one", "pipeline.extremes", "pipeline.report_page", "pipeline.card", "pipeline.export_hf",
        "pipeline.export_audiocraft", "pipeline.export_lhotse",
    },
    {"mousai.demo", "pipeline.export"},  # tests what was generated; hands the shards to others
    {"pipeline.remove"},  # takes out of all that the stages made
    {"cli"},  # introduces them to each other
]  # fmt: skip
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}


def path_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def existing() -> set[str]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if file.name != "__init__.py"]
    cli = [ROOT / "cli.py"] if (ROOT / "cli.py").exists() else []
    return {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in (*files, *cli)}


def imports(source: str) -> Iterator[str]:
    """The modules of this project that `source` imports, also inside its functions."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            whole = node.module in PACKAGES  # from mousai import audio
            names = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
        yield from (name for name in names if name.split(".")[0] in (*PACKAGES, "cli"))


def imports_of(module: str) -> set[str]:
    return set(imports(path_of(module).read_text(encoding="utf-8")))


MODULES = sorted(existing() & FLOOR.keys(), key=lambda module: (FLOOR[module], module))


def test_every_module_stands_on_one_floor():
    assert sum(map(len, FLOORS)) == len(FLOOR)
    assert existing() - FLOOR.keys() == set()


def test_no_floor_names_a_module_that_is_gone():
    assert FLOOR.keys() - existing() - {"cli"} == set()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str):
    assert [name for name in imports_of(module) if FLOOR.get(name, 99) >= FLOOR[module]] == []


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("mousai.")])
def test_models_know_nothing_of_data_files(module: str):
    assert [name for name in imports_of(module) if not name.startswith("mousai.")] == []


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("pipeline.")])
def test_the_pipeline_knows_only_the_ground_floor_of_models(module: str):
    ground = set.union(*GROUND)
    assert [name for name in imports_of(module) if not name.startswith("pipeline.") and name not in ground] == []


def test_every_way_to_import_is_seen():
    source = (
        "import torch, mousai.audio\nimport cli\nfrom mousai import mel as m, unet\nfrom json import dumps\n"
        "def f():\n    if True:\n        from pipeline.tars import x\n"
    )
    assert sorted(imports(source)) == ["cli", "mousai.audio", "mousai.mel", "mousai.unet", "pipeline.tars"]
