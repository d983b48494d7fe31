"""What the pages say is what the program does: commands, options, settings, figures, examples and links."""

import dataclasses
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import cli
from mousai.config import DMAEConfig, EncoderConfig, FitConfig, GeneratorConfig, Level, Preset, UNetConfig
from mousai.presets import PRESETS
from mousai.settings import IngestSettings, Paths, SelectSettings, ShardSettings
from mousai.workspace import make_workspace, open_workspace
from pipeline.records import RECORDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
WORKSPACE = (ROOT / "docs" / "workspace.md").read_text(encoding="utf-8")
COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
COMMON = {"--workspace", "-w", "--workers", "-j", "--device", "--json", "--help"}
COLUMNS = ("paper", "small", "micro", "tiny")
STAGES = {"paths": Paths, "ingest": IngestSettings, "select": SelectSettings, "shard": ShardSettings}
EXAMPLES = {
    "tracks.parquet": "tracks",
    "rejected.parquet": "rejected",
    "fingerprints.parquet": "fingerprints",
    "removed.parquet": "removed",
    "metadata.parquet": "metadata",
    "chunks.parquet": "chunks",
    "splits.parquet": "splits",
    "shards/SPLIT/mousai-SPLIT-NNNNNN.parquet": "shard-members",
    "latents/ENCODER/SPLIT/mousai-SPLIT-NNNNNN.parquet": "latent-members",
    "*_stats.json": "shard-stats",
}


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Command -> what the README says under its heading."""
    found = re.split(r"^### `mousai ([a-z-]+)[^`]*`$", README, flags=re.MULTILINE)
    return {
        name: re.split(r"^#", text, flags=re.MULTILINE)[0] for name, text in zip(found[1::2], found[2::2], strict=True)
    }


def options(command: Any) -> set[str]:
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts) if name.startswith("-")}


def has_option(text: str, option: str) -> bool:
    return re.search(rf"(?<![\w-]){option}(?![\w-])", text) is not None


def leaves(kind: type[Any], prefix: str = "") -> Iterator[str]:
    """The keys that `mousai.toml` can set in a config, dotted."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if hint == tuple[Level, ...]:
            yield from (f"{prefix}{field.name}.{each.name}" for each in dataclasses.fields(Level))
        elif dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{field.name}"


def shown(config: Any, key: str) -> str:
    """The value under a dotted key, as the page shows it."""
    first, _, rest = key.partition(".")
    value = getattr(config, first)
    if first == "levels":
        return " ".join(str(int(getattr(level, rest))) for level in value)
    return shown(value, rest) if rest else json.dumps(value)


def preset_keys() -> list[str]:
    return [key for key in leaves(Preset) if key not in ("name", "about")]


def test_every_command_has_its_section_in_the_readme():
    assert sections().keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_in_the_section_of_its_command(name: str):
    assert [each for each in sorted(options(COMMANDS[name]) - COMMON) if not has_option(sections()[name], each)] == []


def test_common_options_are_in_the_readme():
    assert [each for each in sorted(COMMON - {"--help"}) if not has_option(README, each)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_commands_and_options_that_there_are(page: Path):
    for line in "\n".join(blocks(page, "sh")).splitlines():
        for call in re.findall(r"(?:^|&& )mousai ([^&#\n]*)", line):
            name, *words = call.split()
            assert name in COMMANDS
            assert [word for word in words if word.startswith("-") and word not in options(COMMANDS[name])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_readme_lists_every_page():
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in README] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_those_that_are_counted(preset: str):
    from mousai.params import count_parameters

    (row,) = re.findall(rf"^\| `{preset}` \|.*$", README, re.MULTILINE)
    counts = count_parameters(PRESETS[preset])
    for part in ("DMAE in all", "generator in all", "generator with its frozen parts"):
        assert counts[part] is None or f" {counts[part]:,} " in row
    assert f" {PRESETS[preset].chunk_length / 48_000:.1f} s " in row


def test_the_parts_of_the_paper_are_those_that_are_counted():
    from mousai.params import count_parameters

    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    rows = [f"| {part} | {number:,} |" for part, number in count_parameters(PRESETS["paper"]).items()]
    assert [row for row in rows if row not in page] == []


@pytest.mark.parametrize("key", preset_keys())
def test_every_setting_is_on_the_page_of_the_workspace_with_its_values(key: str):
    values = " | ".join(shown(PRESETS[name], key) for name in COLUMNS)
    assert f"| `{key}` | {values} | " in WORKSPACE


@pytest.mark.parametrize("name", STAGES)
def test_every_setting_of_the_stages_is_there_with_its_default(name: str):
    for field in dataclasses.fields(STAGES[name]):
        assert f"| `{name}.{field.name}` | {json.dumps(field.default).replace('Infinity', 'inf')} | " in WORKSPACE


def test_no_setting_is_on_the_page_that_is_gone():
    stages = {f"{name}.{key}" for name, kind in STAGES.items() for key in leaves(kind)}
    assert set(re.findall(r"^\| `([a-z_.0-9]+)` \|", WORKSPACE, re.MULTILINE)) == {*preset_keys(), *stages}


def test_every_kind_of_config_is_covered():
    keys = preset_keys()
    for kind in (DMAEConfig, EncoderConfig, GeneratorConfig, UNetConfig, FitConfig, Level):
        assert [field.name for field in dataclasses.fields(kind) if not any(field.name in key for key in keys)] == []


@pytest.mark.parametrize("text", blocks(ROOT / "docs" / "workspace.md", "toml"))
def test_a_mousai_toml_on_the_page_can_be_read(tmp_path: Path, text: str):
    make_workspace(tmp_path, "paper")
    (tmp_path / "mousai.toml").write_text(text, encoding="utf-8")
    open_workspace(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_a_page_compiles(page: Path):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves files to the collector
def test_the_page_of_the_shards_reads_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    from audio_files import write_tone

    from pipeline.chunks import ChunkPlan, update_chunks
    from pipeline.ingest import ingest
    from pipeline.shard import shard

    monkeypatch.chdir(tmp_path)
    (tmp_path / "music").mkdir()
    for number in (1, 2):
        write_tone(tmp_path / "music" / f"{number}.flac", 2.0, frequency=220.0 * number)
    ingest([tmp_path / "music"], tmp_path / "manifests", workers=1)
    update_chunks(tmp_path / "manifests", ChunkPlan(chunk_length=48_000, divisor=1_000, chunks_per_shard=8))
    shard(tmp_path / "manifests", tmp_path / "shards", workers=1)
    (snippet,) = blocks(ROOT / "docs" / "shards.md", "python")
    exec(compile(snippet, "shards.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "(48000, 2) 48000 1 of 2" in lines[0] and "(48000, 2) 48000 2 of 2" in lines[1]


def test_every_table_has_an_example():
    assert EXAMPLES.keys() == RECORDS.keys()
    assert {path.stem for path in (ROOT / "manifests" / "examples").glob("*")} == set(EXAMPLES.values())


@pytest.mark.parametrize("table", RECORDS)
def test_an_example_has_the_columns_of_its_table_and_nothing_of_the_machine_that_made_it(table: str):
    text = (ROOT / "manifests" / "examples" / f"{EXAMPLES[table]}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert list(row) == [field.name for field in dataclasses.fields(RECORDS[table])]
        assert all(str(row[key]).startswith("/music") for key in ("path", "raw_path", "library") if key in row)
    assert not re.search(r"/(tmp|home|root|work|Users)/", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_plain(page: Path):
    text = page.read_text(encoding="utf-8")
    assert max(map(len, (line for line in text.splitlines() if not line.startswith("|")))) <= 120
    assert not re.search("[\U0001f300-\U0001faff]", text)


if __name__ == "__main__":  # the rows of docs/workspace.md, to copy what has changed
    for each in preset_keys():
        print(f"| `{each}` | {' | '.join(shown(PRESETS[name], each) for name in COLUMNS)} | ")
