"""Are the shards what they were when they were made? Every tar against its stats, its table and its members.

A shard that is not loses its done marker: NAME_stats.json becomes NAME_damaged.json, so that training passes it over
and `mousai shard` (audio) or `mousai encode-latents` (latents) makes it, and nothing else, again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mousai.errors import UserError
from mousai.progress import progress
from mousai.storage import sha256_of_file
from pipeline.chunks import read_chunks
from pipeline.executors import run_jobs
from pipeline.manifest import read_table
from pipeline.records import LatentMember, Shard, ShardMember
from pipeline.tars import (
    finished_shards,
    is_set_aside,
    list_shards,
    member_spans,
    read_stats,
    set_stats_aside,
    shard_name,
)

_SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One tar that is not what it should be."""

    path: str
    problems: tuple[str, ...]  # sentences
    cure: str  # the command that makes it again, or removes it


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found."""

    num_shards: int  # tars that were looked at, or for
    num_chunks: int  # in the tars that are as they should be
    bytes: int  # likewise
    damages: tuple[Damage, ...]
    marked: bool  # whether the damaged ones have been marked, for the cures to find


@dataclass(frozen=True, kw_only=True)
class _Check:
    """A tar, and what it should be."""

    folder: Path
    name: str
    record: type[ShardMember] | type[LatentMember]
    planned: bool | None  # whether anything asks for it; None: nobody knows
    cure: str

    @property
    def tar(self) -> Path:
        return self.folder / f"{self.name}.tar"


@dataclass(frozen=True, kw_only=True)
class _Finding:
    problems: tuple[str, ...]
    num_chunks: int = 0
    bytes: int = 0


def verify(manifests: Path, shards: Path, latents: Path, *, workers: int, mark: bool = True) -> Verification:
    """Check every audio and latent shard, and, if `mark`, mark those that are damaged; UserError where there is none.

    Audio shards are asked for by the plan; latent shards by the audio shards, as far as these are there.
    """
    checks = [*_audio_checks(manifests, shards), *_latent_checks(shards, latents)]
    if not checks:
        raise UserError(f"{shards} holds no shards. Make them with: mousai shard")
    sizes = {check: check.tar.stat().st_size / 1e6 if check.tar.exists() else 0.0 for check in checks}
    findings: dict[_Check, _Finding] = {}
    with progress("verify", sum(sizes.values()), "MB") as advance:
        for check, finding in run_jobs(_examine, checks, workers):
            findings[check] = finding
            advance(sizes[check], check.name)
    damaged = [check for check in checks if findings[check].problems]
    if mark:
        for check in damaged:
            set_stats_aside(check.folder, check.name)
    sound = [findings[check] for check in checks if not findings[check].problems]
    return Verification(
        num_shards=len(checks),
        num_chunks=sum(finding.num_chunks for finding in sound),
        bytes=sum(finding.bytes for finding in sound),
        damages=tuple(Damage(path=str(each.tar), problems=findings[each].problems, cure=each.cure) for each in damaged),
        marked=mark,
    )


def _audio_checks(manifests: Path, shards: Path) -> Iterator[_Check]:
    there = {(split, name) for split in _SPLITS for name in list_shards(shards / split)}
    planned = None
    if there and (manifests / "chunks.parquet").exists():
        planned = {(chunk.split, shard_name(chunk.split, chunk.shard)) for chunk in read_chunks(manifests)}
    for split, name in sorted(there | (planned or set())):
        asked_for = None if planned is None else (split, name) in planned
        yield _Check(folder=shards / split, name=name, record=ShardMember, planned=asked_for, cure="mousai shard")


def _latent_checks(shards: Path, latents: Path) -> Iterator[_Check]:
    audio = {(split, name) for split in _SPLITS for name in list_shards(shards / split)}
    for encoder in sorted(path for path in latents.glob("*") if path.is_dir()):
        for split in _SPLITS:
            for name in list_shards(encoder / split):
                yield _Check(
                    folder=encoder / split,
                    name=name,
                    record=LatentMember,
                    planned=(split, name) in audio if audio else None,
                    cure="mousai encode-latents",
                )


def _examine(check: _Check) -> _Finding:
    """What is wrong with one tar, and what it holds."""
    problems = [] if check.planned is not False else ["nothing asks for it: it is an orphan"]
    if check.name not in finished_shards(check.folder):
        return _Finding(problems=(*problems, _why_unfinished(check)))
    try:
        stats = read_stats(check.folder, check.name)
        problems += [*_compare_names(check, stats), *_compare_tables(check, stats), *_compare_tars(check, stats)]
    except UserError as error:
        problems.append(str(error).partition(". ")[0])
        return _Finding(problems=tuple(problems))
    return _Finding(problems=tuple(problems), num_chunks=stats.num_chunks, bytes=stats.bytes)


def _why_unfinished(check: _Check) -> str:
    if is_set_aside(check.folder, check.name):
        return "it was found to be damaged before"
    return "it was never finished" if check.tar.exists() else "it is missing"


def _compare_names(check: _Check, stats: Shard) -> Iterator[str]:
    if (stats.name, stats.split) != (check.tar.name, check.folder.name):
        yield f"its stats are those of {stats.split}/{stats.name}"


def _compare_tables(check: _Check, stats: Shard) -> Iterator[str]:
    table = check.folder / f"{check.name}.parquet"
    if not table.exists():
        yield f"{table.name} is missing"
    elif sha256_of_file(table) != stats.table_sha256:
        yield f"{table.name} has changed"


def _compare_tars(check: _Check, stats: Shard) -> Iterator[str]:
    """The tar against its stats; and, where the table can be read, each member against its row."""
    if not check.tar.exists():
        yield "the tar is missing"
        return
    size = check.tar.stat().st_size
    if size != stats.bytes:
        yield f"it has {size} bytes, and had {stats.bytes}"
    if sha256_of_file(check.tar) != stats.sha256:
        yield "its content has changed"
    if (check.folder / f"{check.name}.parquet").exists():
        yield from _compare_members(check, stats)


def _compare_members(check: _Check, stats: Shard) -> Iterator[str]:
    import tarfile

    try:
        spans = member_spans(check.tar)
        rows = [row for row in read_table(check.tar.with_suffix(".parquet"), check.record) if row.offset >= 0]
    except (tarfile.TarError, OSError, UserError) as error:
        yield f"its members cannot be read ({str(error).partition('. ')[0]})"
        return
    places = {span: name for name, span in spans.items()}
    lost = [row.key for row in rows if not places.get((row.offset, row.size), "").startswith(f"{row.key}.")]
    lost += [row.key for row in rows if f"{row.key}.json" not in spans]
    if lost:
        yield f"{len(set(lost))} of {len(rows)} chunks are not where they were, {lost[0]} first"
    if not len(rows) == stats.num_chunks == len(spans) / 2:
        yield f"its stats count {stats.num_chunks} chunks, its table {len(rows)}, and it holds {len(spans)} members"
