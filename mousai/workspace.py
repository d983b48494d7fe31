"""A workspace: the folder with `mousai.toml` in which every command finds its input and leaves its output."""

import errno
import fcntl
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, TextIO

from mousai.config import Preset, from_dict
from mousai.errors import UserError
from mousai.presets import find_preset
from mousai.settings import IngestSettings, Paths, SelectSettings, ShardSettings
from mousai.storage import publish, read_json, write_json

FILE = "mousai.toml"
_CURRENT = "encoder.json"  # in latents/: whose latents the generator trains on

TEMPLATE = """\
# A mousai workspace. Every number of the preset can be overridden here; `mousai params` shows what results.
preset = "{preset}"  # {about}

[paths]  # relative to this file, or absolute: another disk will do
manifests = "manifests"
shards = "shards"
latents = "latents"
runs = "runs"
generated = "generated"
exports = "exports"

[ingest]
min_duration = 1.0  # seconds; shorter files are rejected as too_short
time_limit = 60.0  # seconds of work on a file, and as many again for each 4 MB of it; 0: no limit
memory_limit = 2000  # MB that reading a file may take; 0: no limit

[select]  # which tracks are trained on; `mousai ingest --dry-run` says what this leaves out; more in docs/quality.md
max_errors_per_minute = 60.0  # packets that the decoder refused
max_silence_share = 0.9  # of the track
min_loudness = -60.0  # LUFS
max_dc = 0.5  # offset; 1 is full scale
max_balance_db = 40.0  # one channel over the other: beyond, one is dead
min_correlation = -0.95  # of left and right: below, they cancel each other

[shard]
audio_format = "flac"  # or "wav": twice the space, faster to read

# For example:
# [train_dmae]
# batch_size = 16
# [generator]
# text_encoder = "/models/t5-base"  # a folder, or a model hub's name
"""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The folder, its preset with the overrides applied, and its settings."""

    folder: Path
    preset: Preset
    paths: Paths = field(default_factory=Paths)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    shard: ShardSettings = field(default_factory=ShardSettings)

    @property
    def manifests(self) -> Path:
        return self.folder / self.paths.manifests

    @property
    def shards(self) -> Path:
        return self.folder / self.paths.shards

    @property
    def latents(self) -> Path:
        return self.folder / self.paths.latents

    @property
    def runs(self) -> Path:
        return self.folder / self.paths.runs

    @property
    def generated(self) -> Path:
        return self.folder / self.paths.generated

    @property
    def exports(self) -> Path:
        return self.folder / self.paths.exports

    def use_latents(self, encoder: str) -> None:
        """Make the latents of the DMAE with this id the current ones."""
        if not self.has_latents() or self.encoder() != encoder:
            write_json(self.latents / _CURRENT, {"encoder": encoder})

    def has_latents(self) -> bool:
        """Whether encode-latents has run."""
        return (self.latents / _CURRENT).exists()

    def encoder(self) -> str:
        """The id of the DMAE whose latents are current; UserError where there are none."""
        if not self.has_latents():
            raise UserError(f"{self.latents} holds no latents. Make them with: mousai encode-latents")
        path = self.latents / _CURRENT
        try:
            return str(read_json(path)["encoder"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error!r}). Delete it and run: mousai encode-latents") from error

    @contextmanager
    def lock(self, name: str = ".lock") -> Iterator[None]:
        """Hold the workspace for one writing command, or under another name; UserError while another one does."""
        with self._lock_file(name) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"another mousai command is at work in {self.folder}. Wait until it is done") from error
            yield

    def _lock_file(self, name: str) -> TextIO:
        path = self.folder / name
        try:
            return path.open("w")
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise UserError(
                f"{path}: {error.strerror}. This command writes into {self.folder}, so make that writable; what needs "
                "no more than to read is: mousai verify --dry-run, mousai plan, mousai report --out ELSEWHERE"
            ) from error


def make_workspace(folder: Path, preset: str) -> Workspace:
    """Make a workspace in `folder`, or return the one that is there; UserError if that has another preset."""
    chosen = find_preset(preset)
    if (folder / FILE).exists():
        workspace = open_workspace(folder)
        if workspace.preset.name != preset:
            raise UserError(
                f"{folder} is a workspace with the preset {workspace.preset.name!r} already. "
                f"Choose another folder, or edit {folder / FILE}"
            )
        return workspace
    with publish(folder / FILE) as temporary:
        temporary.write_text(TEMPLATE.format(preset=chosen.name, about=chosen.about), encoding="utf-8")
    return open_workspace(folder)


def set_only_licences(folder: Path, licences: Sequence[str]) -> Workspace:
    """Write `select.only_licences` into `mousai.toml`, all else of it left as it is; the workspace as it is then."""
    path = folder / FILE
    open_workspace(folder)  # whatever is wrong with the file is said first
    line = f"only_licences = {json.dumps(list(licences), ensure_ascii=False)}"
    text = path.read_text(encoding="utf-8")
    text, found = re.subn(r"^only_licences *= *\[[^\]\n]*\]", lambda _: line, text, flags=re.MULTILINE)
    if not found:
        text, found = re.subn(r"^\[select\].*$", lambda table: f"{table[0]}\n{line}", text, count=1, flags=re.MULTILINE)
    if not found:
        text = f"{text.rstrip()}\n\n[select]\n{line}\n"
    try:
        if tomllib.loads(text)["select"]["only_licences"] != list(licences):
            raise ValueError(text)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is laid out in a way of its own. Write into its table [select]: {line}") from error
    with publish(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return open_workspace(folder)


def open_workspace(folder: Path) -> Workspace:
    """The workspace in `folder`; UserError where there is none, or `mousai.toml` says what cannot be."""
    path = folder / FILE
    if not path.exists():
        raise UserError(
            f"{folder.absolute()} is not a workspace ({FILE} is missing). Make one with: mousai init {folder}"
        )
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    if "preset" not in values:
        raise UserError(f'{path} names no preset: add a line such as preset = "paper"')
    base = find_preset(str(values.pop("preset")))
    workspace = Workspace(
        folder=folder,
        paths=from_dict(Paths, values.pop("paths", {}), f"{path} [paths]"),
        ingest=from_dict(IngestSettings, values.pop("ingest", {}), f"{path} [ingest]"),
        select=from_dict(SelectSettings, values.pop("select", {}), f"{path} [select]"),
        shard=from_dict(ShardSettings, values.pop("shard", {}), f"{path} [shard]"),
        preset=from_dict(Preset, values, str(path), base),  # what is left
    )
    _require_apart(workspace, path)
    return workspace


def _require_apart(workspace: Workspace, file: Path) -> None:
    """UserError where a stage would leave its output among another one's, and clear that away."""
    folders = {name: getattr(workspace, name).resolve() for name in vars(workspace.paths)}
    for (name, folder), (other, outer) in permutations(folders.items(), 2):
        if folder.is_relative_to(outer):
            how = "are one folder" if folder == outer else "lie one in the other"
            raise UserError(f"{file} [paths]: {name} and {other} {how} ({folder}). Give each a folder of its own")
