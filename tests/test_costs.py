"""A plan's figures are those of the paper where the paper states them, and of arithmetic one can do by hand."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import mousai
from test_report import HOUR, track, write_tables

from mousai.costs import (
    EXPECTATIONS,
    MODELS,
    STAGES,
    Basis,
    Cost,
    Library,
    expectation_of,
    library_of,
    plan_costs,
    stage_rates,
)
from mousai.errors import UserError
from mousai.presets import PAPER, PRESETS, TINY, find_preset
from mousai.storage import write_json
from pipeline.chunks import read_chunks


def costs_of(hours: float, preset: str = "paper") -> dict[str, list[Cost]]:
    """Name -> the lines of that name, before the first comma of it."""
    found: dict[str, list[Cost]] = {}
    for cost in plan_costs(library_of(hours, PRESETS[preset].chunk_length), PRESETS[preset]):
        found.setdefault(cost.name if cost.unit == "passes" else cost.name.split(",")[0], []).append(cost)
    return found


def test_the_papers_library_takes_the_space_that_arithmetic_says():
    costs = {name: lines[0].value for name, lines in costs_of(2500).items()}
    assert costs["chunks"] == 205_994  # 2,500 h / 43.69 s
    assert costs["shards"] == 805
    assert costs["audio as WAV"] == 2500 * 3600 * 48_000 * 2 * 2
    assert costs["latents"] == 205_994 * 128 * 1024  # [32, 2048] of 2 bytes


def test_the_papers_training_takes_the_papers_week_a_stage():
    for stage in ("train dmae", "train generator"):
        stated, expected = costs_of(2500)[stage]
        assert stated.source.basis == Basis.STATED and stated.value == pytest.approx(7 * 24, rel=0.001)
        assert expected.source.basis == Basis.EXPECTED and expected.value < stated.value / 4


def test_training_time_does_not_depend_on_hours_and_passes_do():
    few, many = costs_of(10), costs_of(1000)
    assert few["train generator"] == many["train generator"]
    for stage, length in (("train dmae", 2**18), ("train generator", 2**21)):
        heard = 1_000_000 * 32 * length / 48_000 / 3600
        assert few[f"{stage}, passes"][0].value == pytest.approx(heard / 10)
        assert many[f"{stage}, passes"][0].value == pytest.approx(heard / 1000)


def test_twice_the_hours_are_twice_the_cost_of_every_stage_before_training():
    one, two = costs_of(100), costs_of(200)
    for name in ("audio as FLAC", "ingest", "shard", "encode-latents: reading", "encode-latents: encoding"):
        assert two[name][0].value == pytest.approx(2 * one[name][0].value)


def test_rates_come_from_the_benchmark_where_it_has_been_run(tmp_path: Path):
    assert stage_rates(tmp_path / "shard.json") == STAGES
    write_json(tmp_path / "shard.json", {
        "rates": [{"name": "mousai", "cpu": [90, 100, 120]}, {"name": "mousai, ingest alone", "cpu": [50]}],
        "bytes_per_second": 96_000, "machine": {"cpu": "Abacus", "cores": 2}, "date": "2026-11-25", "work": "songs",
    })  # fmt: skip
    rates = stage_rates(tmp_path / "shard.json")
    assert (rates.ingest, rates.shard, rates.flac) == (50, 100, 0.5)
    assert "Abacus" in rates.source.device and "2026-11-25: songs" in rates.source.text


def test_the_results_of_the_benchmark_can_be_read():
    rates = stage_rates()
    assert rates.ingest > 1 and rates.shard > 1 and 0.2 < rates.flac < 1


def test_steps_and_batches_of_the_workspace_count():
    half = dataclasses.replace(PAPER, train_dmae=dataclasses.replace(PAPER.train_dmae, steps=250_000, batch_size=64))
    library = library_of(100, PAPER.chunk_length)
    whole, less = ([c.value for c in plan_costs(library, preset) if "train dmae" in c.name] for preset in (PAPER, half))
    assert less == pytest.approx([value / 2 for value in whole])


def test_a_preset_for_the_cpu_is_costed_on_the_cpu():
    assert {cost.unit for lines in costs_of(1, "tiny").values() for cost in lines} == {
        "", "bytes", "core hours", "CPU hours", "passes",
    }  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_those_of_the_readme(preset: str):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f" {MODELS[preset].dmae_parameters:,} | {MODELS[preset].generator_parameters:,} |" in text


def test_the_operations_of_a_preset_are_those_that_pytorch_counts():
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, root / "benchmarks" / "flops.py", "tiny"], capture_output=True, text=True,
                          check=True, cwd=root, env={"PYTHONPATH": str(root)})  # fmt: skip
    model = MODELS["tiny"]
    sizes = f"{model.dmae_parameters:_}, {model.generator_parameters:_}"
    assert done.stdout.split("Model(")[1] == (
        f"{model.encoder / 1e9:g}e9, {model.dmae / 1e9:g}e9, {model.generator / 1e9:g}e9, {sizes}),\n"
    )


def test_a_preset_that_was_renamed_is_refused_with_the_names_there_are():
    with pytest.raises(UserError, match="tiny"):
        plan_costs(Library(duration=3600, chunks=10), dataclasses.replace(TINY, name="mine"))


def test_expectations_go_by_hours():
    assert [expectation_of(hours) for hours in (0.5, 10, 99, 100, 2499, 1e6)] == [
        EXPECTATIONS[0], EXPECTATIONS[1], EXPECTATIONS[1], EXPECTATIONS[2], EXPECTATIONS[3], EXPECTATIONS[4],
    ]  # fmt: skip


def test_a_library_is_measured_as_it_will_be_cut_and_placed(tmp_path: Path):
    space = tmp_path / "m"
    assert mousai("init", space, "--preset", "small").code == 0
    tracks = [track("a"), track("b", length=HOUR // 2), track("c", id="a"), track("d", id=None, length=None)]
    tracks += [track("e", decode_errors=10**6), track("f", length=48_000, artists=["Another"])]
    write_tables(space / "manifests", tracks)
    done = mousai("plan", "-w", space, "--json")
    said = json.loads(done.out)
    counted = {cost["name"]: cost["value"] for cost in said["costs"]}
    assert said["hours"] == pytest.approx(1.5 + 1 / 3600)
    length = find_preset("small").chunk_length
    assert counted["chunks"] == round(HOUR / length) + round(HOUR / 2 / length) + 1
    assert not (space / "manifests" / "chunks.parquet").exists()
    assert mousai("prompts", "-w", space, "--no-tokens", "--json").code == 0
    placed = {(chunk.split, chunk.shard) for chunk in read_chunks(space / "manifests")}
    assert counted["shards"] == len(placed) > 1


def test_the_command_plans_without_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = mousai("plan", "--hours", 100, "--json")
    assert done.code == 0
    said = json.loads(done.out)
    assert (said["hours"], said["preset"]) == (100.0, "paper")
    assert {cost["source"]["basis"] for cost in said["costs"]} == {"counted", "measured", "stated", "expected"}
    assert "[1]" in mousai("plan", "--hours", 2500, "--preset", "small").out
    refused = mousai("plan")
    assert refused.code == 1 and "mousai init" in refused.err


def test_the_command_plans_the_library_of_a_workspace(tmp_path: Path):
    assert mousai("init", tmp_path / "m", "--preset", "small").code == 0
    write_tables(tmp_path / "m" / "manifests", [track("a", id=None, length=None)])
    refused = mousai("plan", "-w", tmp_path / "m")
    assert refused.code == 1 and "--hours" in refused.err
    write_tables(tmp_path / "m" / "manifests", [track("a"), track("b")])
    assert "2 hours of music, preset small" in mousai("plan", "-w", tmp_path / "m").out


def test_the_table_of_passes_in_the_docs_is_what_the_plan_says():
    page = (Path(__file__).parents[1] / "docs" / "plan.md").read_text(encoding="utf-8")
    for hours in (10, 100, 2500):
        costs = costs_of(hours)
        dmae, generator = (costs[f"train {stage}, passes"][0].value for stage in ("dmae", "generator"))
        assert f"| {hours:,} h | {dmae:,.0f} times | {generator:,.0f} times |" in page
