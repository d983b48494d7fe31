"""The `mousai` command: it introduces `pipeline` (sound and files) to `mousai` (tensors); what they do lives there.

Results go to stdout, progress and warnings to stderr. A mistake of the user's is one line on stderr and exit code 1.
torch is imported only by the commands that need it, so that help comes at once.
"""

import argparse
import dataclasses
import errno
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mousai.errors import UserError
from mousai.pretrained import WEIGHTS, pretrained_dmae
from mousai.progress import clock, say_size
from mousai.workspace import Workspace, make_workspace, open_workspace, set_only_licences

if TYPE_CHECKING:
    import torch

    from mousai.config import FitConfig, Preset
    from mousai.costs import Cost
    from mousai.demo import Demo
    from mousai.dmae import DMAE
    from mousai.fit import FitResult
    from mousai.generate import Settings
    from mousai.train_dmae import DMAEWatch
    from pipeline.chunks import ChunkPlan, ChunkSummary
    from pipeline.ingest import IngestSummary
    from pipeline.limits import Limits
    from pipeline.records import Removed
    from pipeline.removal import Match
    from pipeline.selection import SelectionSummary

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="The workspace's folder.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", "-j", min=1, help="Processes; default: all cores.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
DeviceOption = Annotated[str | None, typer.Option(help='"cuda", "cuda:1", "cpu"; default: a GPU if there is one.')]
HERE = Path()
_RELEASES = 20  # lines that `remove` shows of what a request matches


def main() -> None:
    """Run the command line; the mistakes that a user can mend become one line and exit code 1."""
    try:
        app()
    except UserError as error:
        _fail(_in_workspace(str(error)))
    except OSError as error:  # a full disk, a read-only folder: the system's own words name the file
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))


def _fail(message: str) -> None:
    print(f"mousai: {' '.join(message.splitlines())}", file=sys.stderr)
    sys.exit(1)


def _in_workspace(text: str) -> str:
    """The text, its commands naming the workspace that was named with -w, so that they can be pasted."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-w", "--workspace")
    folder = parser.parse_known_args(sys.argv[1:])[0].workspace
    if folder is None or Path(folder).resolve() == Path.cwd():
        return text
    names = sorted(command.name or command.callback.__name__ for command in app.registered_commands if command.callback)
    taking = "|".join(name for name in names if name not in ("init", "demo"))  # where the workspace is no option
    return re.sub(
        rf"\bmousai (?:train (?:dmae|generator)|{taking})\b(?! -w)",
        lambda command: f"{command[0]} -w {shlex.quote(folder)}", text,
    )  # fmt: skip


@app.callback()
def _about() -> None:
    """Train your own text-to-music model from a folder of music (the Moûsai paper).

    The chain: init, ingest, shard, train dmae, encode-latents, train generator, generate.
    """


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to make the workspace.")],
    preset: Annotated[str, typer.Option(help="paper, paper-32x, small, micro or tiny.")] = "paper",
) -> None:
    """Make a workspace: a folder with mousai.toml, in which every other command finds its input."""
    existed = (folder / "mousai.toml").exists()
    workspace = make_workspace(folder, preset)
    name = workspace.preset.name
    state = "is a workspace already" if existed else "is now a workspace"
    print(f"{folder} {state}, preset {name}: {workspace.preset.about}.")
    if pretrained_dmae(workspace.preset.dmae):
        print("Its stage 1 comes trained: mousai train dmae is optional, and fine-tunes it on your music.")
    _next("mousai ingest ~/Music", folder)


@app.command()
def ingest(
    libraries: Annotated[list[Path] | None, typer.Argument(help="Folders of music; none: those known already.")] = None,
    workspace: WorkspaceOption = HERE,
    workers: WorkersOption = None,
    tags_only: Annotated[bool, typer.Option("--tags-only", help="Read tags; decode nothing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read and what [select] leaves out; write nothing.")
    ] = False,
    metadata: Annotated[
        Path | None, typer.Option(help="CSV, JSON or JSON lines that add to tags or override them, by path.")
    ] = None,
    title_from_filename: Annotated[
        bool | None, typer.Option(help="Tracks without a title get one by their name; default: as last time.")
    ] = None,
    only_licence: Annotated[
        list[str] | None, typer.Option(help='Train on this licence alone, such as CC0 or "CC-BY*"; may be repeated.')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a library: tags, decoded length and peak of every file, into manifests/tracks.parquet.

    A later run reads only what is new or has changed. What cannot be used is in rejected.parquet, with the reason.
    """
    from pipeline.ingest import ingest as run
    from pipeline.ingest import is_outdated
    from pipeline.metadata import BesideTags

    space = open_workspace(workspace)
    with nullcontext() if dry_run else space.lock():
        if only_licence:
            space = _with_licences(space, only_licence, dry_run)
        if is_outdated(space.manifests):
            print(
                f"mousai: {space.manifests} is of another version, or lacks a table: all is read again", file=sys.stderr
            )
        done = run(
            libraries or [], space.manifests, workers=_workers(workers), tags_only=tags_only, dry_run=dry_run,
            min_duration=space.ingest.min_duration, select=space.select, limits=_limits(space),
            beside=BesideTags(metadata=metadata, title_from_filename=title_from_filename),
        )  # fmt: skip
    if done.unmatched:
        print(
            f"mousai: paths in {metadata} that fit no file: {len(done.unmatched)}, the first is {done.unmatched[0]!r}. "
            "Paths are absolute, or relative to the folder that was ingested.", file=sys.stderr,
        )  # fmt: skip
    if as_json:
        return _print_json(done)
    changes = f"{done.num_new} new or changed, {done.num_unchanged} unchanged, {done.num_gone} gone"
    nothing = "" if done.changed or dry_run else "Nothing to do: "
    size = f"{_hours(done.duration)}, {say_size(done.bytes)}"
    if dry_run and not (space.manifests / "tracks.parquet").exists():
        print("No track is known yet.")
    else:
        print(f"{nothing}{done.num_tracks} tracks, {size} in {space.manifests} ({changes}).")
    if done.num_rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(done.reasons.items()))
        print(f"{done.num_rejected} files rejected: {reasons} (rejected.parquet says which).")
    _describe_selection(done.selection)
    if dry_run:
        print(f"{done.num_unread} files are new or changed and would be read. Nothing was written.")
    _next(_after_ingest(space, done, libraries or [], tags_only, dry_run), workspace)


@app.command()
def prompts(
    workspace: WorkspaceOption = HERE,
    show: Annotated[int, typer.Option(min=0, help="Print this many prompts as training would draw them.")] = 8,
    step: Annotated[int, typer.Option(min=0, help="The training step to draw them for.")] = 0,
    top: Annotated[int, typer.Option(min=0, help="Print this many of the library's frequent keywords.")] = 0,
    tokens: Annotated[bool, typer.Option(help="Report unknown and cut tokens under the text encoder.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Plan chunks and splits (chunks.parquet) and show the prompts that training will see."""
    from pipeline.chunks import spread_chunks
    from pipeline.prompts import draw_prompt, plain_prompt, top_keywords
    from pipeline.selection import read_selected

    space = open_workspace(workspace)
    with space.lock():
        summary = _plan_chunks(space)
    tracks = read_selected(space.manifests, space.select)
    seed = space.preset.train_generator.seed
    shown = spread_chunks(space.manifests, summary.num_chunks, show)
    drawn = [draw_prompt(tracks[each.track_id], each.index, each.count, seed=seed, step=step) for each in shown]
    keywords = top_keywords(list(tracks.values()), top)
    counted = spread_chunks(space.manifests, summary.num_chunks, 10_000 if tokens else 0)
    whole = [plain_prompt(tracks[each.track_id], each.index, each.count) for each in counted]
    shares = _token_shares(space, whole) if tokens else None
    if as_json:
        found = {"prompts": drawn, "keywords": keywords, "tokens": shares}
        return _print_json({**dataclasses.asdict(summary), **found})
    _describe_plan(summary)
    for prompt in drawn:
        print(f"  {prompt}")
    for keyword, count in keywords:
        print(f"  {count:6} {keyword}")
    if shares is not None:
        name = space.preset.generator.text_encoder
        print(f"{name}: {shares['unknown']:.2%} of tokens unknown, {shares['truncated']:.2%} of prompts cut.")
    _next("mousai shard", workspace)


@app.command()
def report(
    workspace: WorkspaceOption = HERE,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: report/ of the workspace.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Names a list.")] = 20,
    pictures: Annotated[bool, typer.Option(help="Draw spectrograms of the loudest and quietest tracks.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Write a page about the dataset (hours, genres, quality, duplicates, rejects, splits, prompts), and its card.

    Reads the tables, whatever stage they have reached, and changes nothing. With --json the figures are printed too.
    """
    from importlib.metadata import version

    from pipeline.card import write_card
    from pipeline.extremes import draw_extremes
    from pipeline.report import read_report
    from pipeline.report_page import write_report

    space = open_workspace(workspace)
    latents = space.latents / space.encoder() if space.has_latents() else None
    figures = read_report(space.manifests, space.shards, latents, select=space.select, top=top)
    folder = _output_folder(out or space.folder / "report")
    shown = [*figures.loudest, *figures.quietest] if pictures else []
    drawn, damages = draw_extremes(shown, space.manifests, space.shards)
    write_report(folder / "index.html", figures, drawn)
    write_card(folder / "README.md", figures, version("mousai"))
    for damage in damages:
        print(f"mousai: {_in_workspace(damage)}", file=sys.stderr)
    if as_json:
        return _print_json(figures)
    for text in figures.missing:
        print(f"mousai: {text}", file=sys.stderr)
    print(f"{folder / 'index.html'}  (open it in a browser)")
    print(f"{folder / 'README.md'}  (a dataset card, to publish with the shards)")
    _next(_next_command(space), workspace)


@app.command()
def shard(workspace: WorkspaceOption = HERE, workers: WorkersOption = None, as_json: JsonOption = False) -> None:
    """Cut the library into chunks of 48 kHz stereo FLAC and pack them into WebDataset tars.

    Chunks are planned first where that has not been done. Only shards that are missing or stale are made.
    """
    from pipeline.shard import shard as run

    space = open_workspace(workspace)
    with space.lock():
        _require_finished_removal(space, but_for_exports=True)  # which may want shards made before they can be anew
        summary = _plan_chunks(space)
        done = run(
            space.manifests, space.shards, audio_format=space.shard.audio_format, select=space.select,
            workers=_workers(workers), limits=_limits(space),
        )  # fmt: skip
    if as_json:
        return _print_json({**dataclasses.asdict(done), "selection": dataclasses.asdict(summary.selection)})
    _describe_plan(summary)
    nothing = "Nothing to do: " if not done.num_made and not done.num_removed else ""
    print(
        f"{nothing}{done.num_chunks} chunks, {_hours(done.duration)}, {say_size(done.bytes)} in {space.shards} "
        f"({done.num_made} shards made, {done.num_kept} kept, {done.num_removed} removed)."
    )
    for path, error in done.failures:
        print(f"mousai: {path} is missing from its shard: {error}", file=sys.stderr)
    if done.num_failed:
        print(f"{done.num_failed} chunks failed. Re-read their files with: mousai ingest && mousai shard")
    _next(_next_command(space), workspace)


@app.command()
def remove(
    artist: Annotated[list[str] | None, typer.Option(help="An artist, featured ones too; may be repeated.")] = None,
    album: Annotated[list[str] | None, typer.Option(help="An album.")] = None,
    track: Annotated[list[str] | None, typer.Option(help="A title, or a track's id.")] = None,
    path: Annotated[list[str] | None, typer.Option(metavar="PATH", help="A file, or a folder with all in it.")] = None,
    from_list: Annotated[
        Path | None, typer.Option("--list", help="A CSV file with columns of artist, album, track, path.")
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Of a --path that is gone: take out what was there; keep nothing out.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take what is named off the list again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, or come back; touch nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Take music out of tables, shards and latents, prove that it is gone, and keep it out of later scans.

    Options of one kind add up, those of different kinds narrow each other. Without any: finish what was cut off, and
    search once more for all that is on the list. Your files are not touched.
    """
    from pipeline import removal
    from pipeline import remove as stage

    named = {"artist": artist or [], "album": album or [], "track": track or [], "path": path or []}
    lines = removal.read_list(from_list) if from_list else {}
    rules = [*removal.make_rules(named), *lines.values()]
    space = open_workspace(workspace)
    with nullcontext() if dry_run else space.lock():
        if undo:
            return _describe_undone(stage.undo(space.manifests, rules, dry_run=dry_run), dry_run, workspace, as_json)
        if forget:
            _require_forgettable(rules)
        matches = stage.find_removals(space.manifests, rules, all_must_match=not (from_list or forget))
        if not as_json:
            _describe_matches(matches)
        _warn_of_unmatched(space, matches, from_list, lines)
        if matches and not (dry_run or yes):
            _confirm("Take all that out?")
        done = _remove(space, matches, forget, dry_run)
    proof = done["proof"]
    if as_json:
        _print_json(done | {"proof": proof and dataclasses.asdict(proof)})
    else:
        _describe_removal(space, done)
        if done["taken"] and (space.folder / "report").exists():
            print("The report shows the data as it was. Make it again with: mousai report")
    if proof and not proof.holds:
        sys.exit(1)


@app.command("encode-latents")
def encode_latents(
    workspace: WorkspaceOption = HERE,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A DMAE's checkpoint; default: the newest of runs/dmae.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Chunks that are encoded together.")] = 4,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode every chunk once with the trained DMAE: latents [32, L] for the generator.

    The DMAE is frozen beside them: the generator's checkpoints will refer to it.
    """
    from mousai.generate import freeze, latent_encoder, load_dmae
    from pipeline.encode_latents import Encoder
    from pipeline.encode_latents import encode_latents as run

    space = open_workspace(workspace)
    with space.lock():
        _require_finished_removal(space)
        frozen = freeze(checkpoint or _latest(space, "dmae"), space.latents)
        dmae = load_dmae(frozen, _device(device))
        encoder = Encoder(
            encode=latent_encoder(dmae), id=frozen.parent.name, hop=dmae.config.hop, divisor=dmae.config.divisor
        )
        done = run(space.shards, space.latents, encoder, batch_size=batch_size, workers=_workers(workers))
        space.use_latents(encoder.id)
    if as_json:
        return _print_json({**dataclasses.asdict(done), "encoder": encoder.id})
    nothing = "Nothing to do: " if not done.num_made and not done.num_removed else ""
    print(
        f"{nothing}{done.num_chunks} latents, {_hours(done.duration)}, {say_size(done.bytes)} "
        f"in {space.latents / encoder.id} ({done.num_made} shards made, {done.num_kept} kept)."
    )
    _next("mousai train generator", workspace)


@app.command()
def train(
    stage: Annotated[str | None, typer.Argument(help="dmae or generator; default: whichever is next.")] = None,
    workspace: WorkspaceOption = HERE,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all; default: the preset's.")] = None,
    budget: Annotated[str | None, typer.Option("--for", help="Time in all, such as 90s, 30m, 24h, 7d.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew; the old run is kept under another name.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start the DMAE from random weights, not from those with mousai.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Loader processes; default: 0 on a CPU, else cores.")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a stage, resuming where the last run ended. Ctrl-C finishes the step, saves, and stops."""
    space = open_workspace(workspace)
    stage = stage or _next_stage(space)
    if stage not in ("dmae", "generator"):
        raise UserError(f"there is no stage {stage!r}: mousai train dmae, or mousai train generator")
    if from_scratch and stage == "generator":
        raise UserError("--from-scratch is for the DMAE: no weights come for the generator, which always starts so")
    seconds = None if budget is None else _parse_duration(budget)
    chosen = _device(device)
    if space.preset.needs_gpu and chosen.type == "cpu" and device != "cpu":
        raise UserError(f"the preset {space.preset.name} needs a GPU, and {_why_no_gpu()} To insist: --device cpu")
    with space.lock():
        _require_finished_removal(space)
        if stage == "dmae":
            _require_validation(space.shards, "mousai shard")
        else:
            _require_validation(space.latents / space.encoder(), "mousai encode-latents")
        if restart:
            _set_aside(space.runs / stage)
        config = getattr(space.preset, f"train_{stage}")
        config = config if steps is None else dataclasses.replace(config, steps=steps)
        workers = workers if workers is not None else (0 if chosen.type == "cpu" else min(8, _workers(None)))
        if stage == "dmae":
            start = _starting_weights(space, from_scratch)
            result = _train_dmae(space, config, chosen, workers, seconds, start)
        else:
            result = _train_generator(space, config, chosen, workers, seconds)
    if as_json:
        _print_json(result)
    else:
        _describe_training(space, stage, result)
        _next("mousai encode-latents" if stage == "dmae" else 'mousai generate "PROMPT"', workspace)
    if result.interrupted:
        sys.exit(130)


def _train_dmae(
    space: Workspace, config: "FitConfig", device: "torch.device", workers: int, budget: float | None,
    start: Path | None,
) -> "FitResult":  # fmt: skip
    import functools

    from mousai.fit import Run, fit
    from mousai.train_dmae import build_dmae, dmae_loss
    from pipeline.load import audio_batches, training_tracks
    from pipeline.records import ShardMember

    batches = audio_batches(
        space.shards, length=config.length, batch_size=config.batch_size, seed=config.seed, workers=workers
    )
    with _model_of(space):
        dmae = build_dmae(space.preset.dmae, config.seed, device)
    if start is not None:
        dmae.keep_statistics()
    watch = _dmae_watch(space, config, dmae)
    run = Run(
        folder=space.runs / "dmae", kind="dmae", model_config=space.preset.dmae,
        provenance={**_provenance(), "shards": _shards_hash(space.shards), "pretrained": start and start.name},
        batches=batches, loss=functools.partial(dmae_loss, texture=config.texture), settle=watch.settle,
        validate=watch.validate, preview=watch.preview, budget=budget, start=start,
        tracks=training_tracks(space.shards, ShardMember),
    )  # fmt: skip
    return fit(dmae, config, run)


def _dmae_watch(space: Workspace, config: "FitConfig", dmae: "DMAE") -> "DMAEWatch":
    """The held-out examples that a DMAE is watched by, and what it must know of its training data."""
    from mousai.train_dmae import DMAEWatch, power_spectrum
    from pipeline.load import audio_examples

    count, length = config.validation_examples, config.length
    training = audio_examples(space.shards, "train", length=length, count=4 * count)
    return DMAEWatch(
        examples=audio_examples(space.shards, "val", length=length, count=count),
        demo=audio_examples(space.shards, "val", length=max(length, 2**18), count=4),
        calibration=training,
        power=power_spectrum(dmae, training.audio.to(next(dmae.parameters()).device)),
        seed=config.seed,
    )


def _train_generator(
    space: Workspace, config: "FitConfig", device: "torch.device", workers: int, budget: float | None
) -> "FitResult":
    import functools

    from mousai.fit import Run, fit
    from mousai.generate import load_dmae
    from mousai.train_generator import GeneratorWatch, build_generator, generator_loss
    from pipeline.encode_latents import is_stale
    from pipeline.load import latent_batches, latent_examples, latent_statistics, training_tracks
    from pipeline.records import LatentMember
    from pipeline.selection import read_selected

    encoder = space.encoder()
    latents = space.latents / encoder
    _require_same_encoder(space, encoder)
    if is_stale(space.shards, space.latents, encoder):
        raise UserError(
            "the library has changed since its latents were made. Bring them up to date: mousai encode-latents"
        )
    tracks = read_selected(space.manifests, space.select)
    dmae = load_dmae(latents / "dmae", device)
    frames = config.length // dmae.config.hop
    with _model_of(space):
        generator, text = build_generator(space.preset.generator, latent_statistics(latents), config.seed, device)
    watch = GeneratorWatch(
        examples=latent_examples(latents, "val", tracks, frames=frames, count=config.validation_examples),
        encoder=text,
        decode=functools.partial(dmae.decode, steps=20),
        seed=config.seed,
    )
    run = Run(
        folder=space.runs / "generator", kind="generator", model_config=space.preset.generator,
        provenance={**_provenance(), "encoder": encoder, "shards": _shards_hash(latents)},
        batches=latent_batches(
            latents, tracks, frames=frames, batch_size=config.batch_size, seed=config.seed, workers=workers
        ),
        loss=functools.partial(generator_loss, text, config.text_drop), settle=lambda model: None,
        validate=watch.validate, preview=watch.preview, budget=budget, tracks=training_tracks(latents, LatentMember),
    )  # fmt: skip
    return fit(generator, config, run)


@app.command()
def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="What to play; one piece each.")] = None,
    workspace: WorkspaceOption = HERE,
    prompts_file: Annotated[Path | None, typer.Option(help="A text file with a prompt a line.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Length; default: the preset's chunk.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps of the generator.")] = 50,
    decoder_steps: Annotated[int, typer.Option(min=1, help="Sampling steps of the decoder.")] = 50,
    cfg: Annotated[float, typer.Option(min=0, help="Classifier-free guidance; the paper says above 3.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same piece.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pieces a prompt.")] = 1,
    audio_format: Annotated[Literal["wav", "flac"], typer.Option("--format", help="wav or flac.")] = "wav",
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: generated/ of the workspace.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate 48 kHz stereo music from text, with its settings in the file's tags and in a JSON beside it."""
    from mousai.generate import Settings, load_cascade, piece_seed, write_piece

    space = open_workspace(workspace)
    wanted = [*(prompts or []), *_read_prompts(prompts_file)]
    if not wanted:
        raise UserError('say what to play: mousai generate "Egyptian Darbuka, Drums, Rythm, (Deluxe Edition), 2 of 4"')
    length = seconds or space.preset.chunk_length / 48_000
    if any(not _is_text(prompt) for prompt in wanted):
        raise UserError("a prompt holds bytes that are no UTF-8 text")
    settings = Settings(seconds=length, steps=steps, decoder_steps=decoder_steps, cfg=cfg)
    folder = _output_folder(out or space.generated)
    cascade = load_cascade(_latest(space, "generator"), space.latents, _device(device))
    pieces = [(prompt, piece_seed(seed, index)) for prompt in wanted for index in range(count)]
    written = [write_piece(cascade, prompt, each, settings, folder, audio_format) for prompt, each in pieces]
    if as_json:
        return _print_json([dataclasses.asdict(piece) for piece in written])
    for piece in written:
        made = f"{piece.seconds:.1f} s in {piece.took:.1f} s" if piece.took else "was there already"
        print(f"{piece.path}  ({made})")


@app.command()
def reconstruct(
    file: Annotated[Path, typer.Argument(help="Any audio file.")],
    workspace: WorkspaceOption = HERE,
    start: Annotated[float, typer.Option(min=0, help="Where to begin, seconds.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How much of it.")] = 30.0,
    decoder_steps: Annotated[int, typer.Option(min=1, help="Sampling steps of the decoder.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same sound.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: generated/ of the workspace.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hear stage 1 alone: a file through encoder and decoder, as WAV, with a mel picture of both."""
    from mousai.generate import Redraw, reconstruct_audio
    from pipeline.decode import Unusable
    from pipeline.excerpt import read_stretch

    space = open_workspace(workspace)
    folder = _output_folder(out or space.generated)
    try:
        audio = read_stretch(file, start, seconds)
    except Unusable as error:
        raise UserError(f"{file} cannot be used: {error}") from error
    redraw = Redraw(steps=decoder_steps, seed=seed, device=_device(device))
    done = reconstruct_audio(_latest(space, "dmae"), audio, folder, file.stem, redraw)
    if as_json:
        return _print_json(done)
    kept = "" if done.made else "was there already; "
    print(f"{done.path}  ({kept}log-mel distance {done.log_mel_distance:.1f} dB; the picture: {done.picture})")


@app.command()
def export(
    export_format: Annotated[
        Literal["hf", "audiocraft", "lhotse"], typer.Option("--format", help="Which toolkit is to load it.")
    ],
    workspace: WorkspaceOption = HERE,
    split: Annotated[Literal["train", "val"] | None, typer.Option(help="train or val; default: both.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: exports/FORMAT.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Hand the shards to another toolkit: a folder for Hugging Face datasets, audiocraft or lhotse.

    Run again, it redoes only what has changed. The folder belongs to the export: what it does not need is removed.
    """
    from pipeline.export import export as run
    from pipeline.shard import require_current

    space = open_workspace(workspace)
    folder = out or space.exports / export_format
    with space.lock():
        _require_finished_removal(space, but_for_exports=True)
        _plan_chunks(space)
        require_current(space.manifests, space.shards, space.shard.audio_format, space.select)
        done = run(
            space.manifests, space.shards, folder, export_format,
            splits=(split,) if split else ("train", "val"), select=space.select,
        )  # fmt: skip
    if as_json:
        return _print_json(done)
    nothing = "" if done.changed else "Nothing to do: "
    how = ", ".join(f"{count} {what}" for what, count in done.done.items())
    print(f"{nothing}{done.num_chunks} chunks, {_hours(done.duration)} in {folder} for {done.format} ({how}).")


@app.command()
def verify(
    workspace: WorkspaceOption = HERE,
    workers: WorkersOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look: mark nothing for repair.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every tar against its counts, sizes, member offsets and hashes; exit code 1 if anything is damaged.

    What is damaged is named and marked, so that mousai shard or mousai encode-latents makes that again and no more.
    """
    from pipeline.verify import verify as run

    space = open_workspace(workspace)
    with nullcontext() if dry_run else space.lock():  # to look, nothing need be writable
        done = run(space.manifests, space.shards, space.latents, workers=_workers(workers), mark=not dry_run)
    if as_json:
        _print_json(done)
    else:
        for damage in done.damages:
            print(f"{damage.path}: {'; '.join(damage.problems)}")
        held = f"{done.num_chunks} chunks, {say_size(done.bytes)}"
        print(f"{len(done.damages)} of {done.num_shards} tars damaged; the others hold {held}, as they were made.")
        _next(done.damages[0].cure if done.damages else _next_command(space), workspace)
    if done.damages:
        sys.exit(1)


@app.command()
def params(
    preset: Annotated[
        str | None, typer.Argument(help="A preset; default: the workspace's, with its overrides.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Count the parameters of both stages, part by part, to the last digit."""
    from mousai.params import count_parameters
    from mousai.presets import find_preset

    chosen = find_preset(preset) if preset else open_workspace(workspace).preset
    counts = count_parameters(chosen)
    if as_json:
        return _print_json(counts)
    for part, number in counts.items():
        print(f"{number:>13,}  {part}" if number is not None else f"{'not loaded':>13}  {part}")


@app.command()
def plan(
    workspace: WorkspaceOption = HERE,
    hours: Annotated[
        float | None, typer.Option(min=0.01, help="Hours of music; default: those that were ingested.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A preset; default: the workspace's, else paper.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a library costs before you start: shards, space, CPU and GPU time, and what to expect of it.

    Needs no workspace where --hours is given. Every figure names what it rests on.
    """
    from mousai.costs import Library, expectation_of, library_of, plan_costs
    from mousai.presets import find_preset
    from pipeline.chunks import preview_chunks

    space = open_workspace(workspace) if hours is None or (workspace / "mousai.toml").exists() else None
    chosen = space.preset if space and not preset else find_preset(preset or "paper")
    if hours is not None:
        library = library_of(hours, chosen.chunk_length)
    else:
        assert space is not None
        try:
            size = preview_chunks(space.manifests, _chunk_plan(chosen), space.select)
        except UserError as error:
            raise UserError(f"{error}, or say how much it is to be: mousai plan --hours 100") from error
        library = Library(duration=size.duration, chunks=size.num_chunks, shards=size.num_shards)
    costs = plan_costs(library, chosen)
    expected = expectation_of(library.duration / 3600)
    if as_json:
        about = {"hours": library.duration / 3600, "preset": chosen.name, "expect": expected.text}
        return _print_json({**about, "costs": [dataclasses.asdict(cost) for cost in costs]})
    print(f"{library.duration / 3600:,.4g} hours of music, preset {chosen.name}")
    sources = list(dict.fromkeys(cost.source for cost in costs))
    for cost in costs:
        print(
            f"  {cost.name:<32} {_say_cost(cost):<24} [{sources.index(cost.source) + 1}] "
            + ", ".join(filter(None, [cost.source.basis, cost.source.device]))
        )
    for number, source in enumerate(sources, 1):
        print(f"[{number}] {source.text}")
    print(f"What to expect: {expected.text} (docs/plan.md says on what grounds).")


def _say_cost(cost: "Cost") -> str:
    if cost.unit == "bytes":
        return say_size(cost.value) + (
            f" ({say_size(cost.low)} to {say_size(cost.high)})" if cost.low and cost.high else ""
        )
    if cost.unit == "passes":
        return f"{cost.value:,.0f} times" if cost.value >= 10 else f"{cost.value:.2g} times"
    if not cost.unit:
        return f"{cost.value:,.0f}"
    kind = cost.unit.removesuffix("hours")
    if cost.value >= 48:
        return f"{cost.value / 24:,.1f} {kind}days"
    return f"{cost.value:,.1f} {kind}hours" if cost.value >= 1 else f"{cost.value * 60:,.1f} {kind}minutes"


@app.command()
def doctor(workspace: WorkspaceOption = HERE, as_json: JsonOption = False) -> None:
    """Say what this machine can do, what to mend, and which command is next."""
    from mousai.doctor import examine

    space = open_workspace(workspace) if (workspace / "mousai.toml").exists() else None
    findings = examine(space)
    if as_json:
        return _print_json([dataclasses.asdict(finding) for finding in findings])
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'MEND'}  {finding.subject}: {finding.text}")
    _next("mousai init DIR --preset paper" if space is None else _next_command(space), workspace)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to make the demo's workspace.")] = Path("demo"),
    generator_for: Annotated[str, typer.Option(help="Training time of the generator.")] = "2m",
    workers: WorkersOption = None,
) -> None:
    """Run the whole chain on a built-in synthetic library, in ten minutes on two cores, and show what came."""
    with make_workspace(folder, "tiny").lock(".demo.lock"):  # its stages take the workspace's own
        _demo(folder, generator_for, workers)


def _demo(folder: Path, generator_for: str, workers: int | None) -> None:
    import time

    from mousai.demo import SETTINGS, as_json, write_demo
    from mousai.storage import read_json, write_json
    from pipeline.synth import make_library

    started = time.monotonic()
    finished = folder / "demo.json"
    if finished.exists() and (folder / "index.html").exists():
        print(f"Nothing to do: {folder / 'index.html'} is there. To make it anew, delete {folder} first.")
        return _print_json(read_json(finished)["bars"])
    stages: dict[str, Callable[[], Any]] = {
        "a library to learn from": lambda: make_library(folder / "library", workers=_workers(workers)),
        "ingest": lambda: ingest([folder / "library"], folder, workers=workers),
        "shard": lambda: shard(folder, workers=workers),
        "encode-latents": lambda: encode_latents(folder, workers=workers, device="cpu"),
        "train generator": lambda: train("generator", folder, budget=generator_for),
    }
    for title, run in stages.items():
        print(f"\n== {title}")
        run()
    print("\n== generate, one piece a genre, and test whether the text is followed")
    shown = _gather_demo(open_workspace(folder), started, SETTINGS)
    judged = write_demo(shown, folder / "runs")
    write_json(finished, as_json(shown, judged))
    for ok, text in judged:
        print(f"{'holds' if ok else 'FAILS'}  {text}")
    for piece in shown.pieces:
        print(piece.path)
    print(f"{folder / 'index.html'}  (open it in a browser)")
    _next("mousai init my-music --preset small && mousai ingest ~/Music -w my-music", Path.cwd())


def _gather_demo(space: Workspace, started: float, settings: "Settings") -> "Demo":
    """Generate the demo's pieces, classify, and collect what its page shows."""
    import time
    from collections import Counter

    from mousai import demo as show
    from mousai import stage_one
    from mousai.generate import load_cascade, write_piece
    from pipeline import load
    from pipeline.manifest import read_table
    from pipeline.prompts import draw_prompt
    from pipeline.records import Rejected
    from pipeline.selection import read_selected

    cascade = load_cascade(_latest(space, "generator"), space.latents, _device(None))
    tracks = read_selected(space.manifests, space.select)
    genres = {key: next(g for g in show.GENRES if g in " ".join(t.genres).lower()) for key, t in tracks.items()}
    latents, frames = space.latents / space.encoder(), space.preset.chunk_length // cascade.dmae.config.hop
    encoded = {split: load.latent_examples(latents, split, tracks, frames=frames) for split in ("train", "val")}
    audio = {split: load.audio_examples(space.shards, split, length=2**18, count=100) for split in ("train", "val")}
    crops = {}
    for split, count in (("train", stage_one.TRAINING_CROPS), ("val", stage_one.CROPS)):
        examples = load.audio_examples(space.shards, split, length=stage_one.CROP_LENGTH, count=count)
        crops[split] = stage_one.Labelled(examples=examples, genres=[genres[each] for each in examples.track_ids])
    real = show.RealChunks(
        train=(encoded["train"], [genres[each] for each in encoded["train"].track_ids]),
        val=(encoded["val"], [genres[each] for each in encoded["val"].track_ids]),
        train_audio=(audio["train"], [genres[each] for each in audio["train"].track_ids]),
        val_audio=(audio["val"], [genres[each] for each in audio["val"].track_ids]),
    )
    pieces = [write_piece(cascade, show.genre_prompt(genre, 1), 0, settings, space.generated) for genre in show.GENRES]
    for piece in pieces:
        show.draw_piece(piece)
    rejected = read_table(space.manifests / "rejected.parquet", Rejected, "mousai ingest LIBRARY")
    codecs = Counter(track.codec for track in tracks.values())
    first = list(tracks.values())[:: max(1, len(tracks) // 6)]
    return show.Demo(
        folder=space.folder,
        counts=[
            ("tracks", len(tracks)),
            ("music", _hours(sum(track.length or 0 for track in tracks.values()) / 48_000)),
            ("chunks to train on", len(encoded["train"].track_ids)),
            ("chunks held out", len(encoded["val"].track_ids)),
            *((f"tracks in {codec}", count) for codec, count in sorted(codecs.items())),
        ],
        rejected=[(Path(row.path).name, f"{row.reason}: {row.detail}") for row in rejected],
        prompts=[draw_prompt(track, 1, 4, seed=0, step=step) for step, track in enumerate(first)],
        pieces=pieces,
        genres=show.run_genre_test(cascade, real),
        stage_one=stage_one.examine(
            cascade.dmae,
            _dmae_watch(space, space.preset.train_dmae, cascade.dmae),
            crops["train"],
            crops["val"],
            space.folder / "stage-1",
            _latest(space, "dmae").name,
        ),
        weights=pretrained_dmae(space.preset.dmae),
        minutes=(time.monotonic() - started) / 60,
    )


def _with_licences(space: Workspace, licences: list[str], dry_run: bool) -> Workspace:
    """The workspace that trains on these licences alone; only a dry run leaves mousai.toml as it is."""
    if not dry_run:
        return set_only_licences(space.folder, licences)
    return dataclasses.replace(space, select=dataclasses.replace(space.select, only_licences=tuple(licences)))


def _require_forgettable(rules: "list[Removed]") -> None:
    if not rules or any(rule.location is None or rule.artist or rule.album or rule.title for rule in rules):
        raise UserError("--forget goes with --path alone: mousai remove --forget --path DIR")


def _confirm(question: str) -> None:
    """Ask on the terminal; UserError where there is none, exit code 1 after a no."""
    if not sys.stdin.isatty():
        raise UserError("nobody is there to be asked, so nothing was touched. To remove it: --yes; to look: --dry-run")
    typer.confirm(question, abort=True, err=True)


def _remove(space: Workspace, matches: "list[Match]", forget: bool, dry_run: bool) -> dict[str, Any]:
    """Take out what was matched and all else on the list; what was done, what is left, and who was trained on it."""
    from mousai.lineage import trained_with
    from pipeline import remove as stage
    from pipeline.removal import read_removed, recordings, requests

    places = stage.Places(
        manifests=space.manifests, shards=space.shards, latents=space.latents, runs=space.runs, exports=space.exports
    )
    rules = [match.rule for match in matches]
    ids = {track.id for match in matches for track in match.tracks if track.id}
    taken, proof = None, None
    if not dry_run:
        taken, proof = (stage.forget if forget else stage.remove)(places, rules, space.shard.audio_format)
        ids |= set() if forget else recordings(read_removed(space.manifests))
    shipped = [path.parent for path in WEIGHTS.glob("*/checkpoint.json")]
    lineages = trained_with(ids, space.runs, space.latents, shipped)
    return {
        "matches": [_match_facts(match) for match in matches],
        "taken": taken and dataclasses.asdict(taken),
        "proof": proof,
        "kept_out": requests(read_removed(space.manifests)),
        "trained_with": [dataclasses.asdict(each) for each in lineages if each.is_concerned],
        "cannot_say": [each.path for each in lineages if each.is_unknown],
    }


def _match_facts(match: "Match") -> dict[str, Any]:
    tracks = [
        {"path": track.path, "id": track.id, "artists": track.artists, "album": track.album, "title": track.title,
         "duration": (track.length or 0) / 48_000}
        for track in (*match.tracks, *match.copies)
    ]  # fmt: skip
    return {"request": match.rule.request, "tracks": tracks, "copies": len(match.copies), "similar": match.similar}


def _describe_matches(matches: "list[Match]") -> None:
    """What each request matches, by artist and album, so that a name that means several is seen."""
    from pipeline.removal import by_release

    for match in matches:
        minutes = _hours(sum(track.length or 0 for track in match.tracks) / 48_000)
        print(f"{match.rule.request}: {len(match.tracks)} tracks, {minutes}")
        releases = by_release(match.tracks)
        for release, tracks in releases[:_RELEASES]:
            print(f"  {len(tracks):6}  {_hours(sum(track.length or 0 for track in tracks) / 48_000):>9}  {release}")
        if len(releases) > _RELEASES:
            print(f"  and {len(releases) - _RELEASES} more (--json names every file)")
        if match.copies:
            print(f"  and {len(match.copies)} copies of them that are tagged otherwise or lie elsewhere")
        if match.similar:
            print(f"  not matched, though like it: {'; '.join(match.similar)}")


def _warn_of_unmatched(
    space: Workspace, matches: "list[Match]", from_list: Path | None, lines: "Mapping[int, Removed]"
) -> None:
    """Name the lines of a list that match nothing, and have not been removed before: they may be misspelled."""
    from pipeline.removal import read_removed, with_known_wording

    listed = read_removed(space.manifests)
    matched = {match.rule for match in matches if match.tracks}
    for line, rule in zip(lines, with_known_wording(lines.values(), listed), strict=True):
        if rule not in matched and rule not in listed:
            print(f"mousai: line {line} of {from_list} ({rule.request}) matches no track that is here", file=sys.stderr)


def _describe_undone(undone: dict[str, int], dry_run: bool, workspace: Path, as_json: bool) -> None:
    if as_json:
        return _print_json({"undone": undone})
    for request, num_files in undone.items():
        would = "would be" if dry_run else "is"
        print(f"{request} {would} kept out no longer: {num_files} files can come back.")
    if not dry_run:
        _next("mousai ingest", workspace)


def _describe_removal(space: Workspace, done: dict[str, Any]) -> None:
    from pipeline.proof import by_folder

    taken, proof = done["taken"], done["proof"]
    if not (done["kept_out"] or done["matches"]) and (proof is None or proof.holds):
        return print("Nothing to do: no request is on the list. To name one: mousai remove --artist NAME --dry-run")
    if taken:
        parts = [
            f"{taken['num_tracks']} files and {taken['num_chunks']} chunks taken out",
            f"{len(taken['rewritten'])} shards rewritten",
            f"{len(taken['deleted'])} deleted",
            f"{taken['num_previews']} previews deleted",
        ]
        nothing = "Nothing to do: all of it had gone." if proof.holds else "Nothing more to take out, but:"
        print(f"{'; '.join(parts)}." if any(taken.values()) else nothing)
        where = "gone." if proof.holds else f"left in {len(proof.left)}."
        print(f"{proof.num_ids} recordings searched for in {proof.num_files} files: {where}")
        for left in by_folder(proof, space.folder):
            what = f"{len(left.files)} files there name some of it or cannot be read"
            print(f"mousai: {left.folder}: {what}. To mend it, {left.cure}; then: mousai remove", file=sys.stderr)
    print(f"Kept out of later scans: {'; '.join(done['kept_out']) or 'nothing'}.")
    for each in done["trained_with"]:
        rests = f"; its DMAE {each['dmae']}: {each['dmae_num_tracks']}" if each["dmae"] else ""
        print(f"Was trained with it, and stays as it is: {each['path']} ({each['num_tracks']} recordings{rests})")
    for path in done["cannot_say"]:
        print(f"May have been trained with it, and keeps no list of its tracks: {path}")


def _require_finished_removal(space: Workspace, *, but_for_exports: bool = False) -> None:
    from pipeline.removal import require_finished

    require_finished(space.manifests, but_for_exports=but_for_exports)


def _plan_chunks(space: Workspace) -> "ChunkSummary":
    """Bring chunks.parquet up to date; warns where validation is not what it should be."""
    from pipeline.chunks import update_chunks

    summary = update_chunks(space.manifests, _chunk_plan(space.preset), space.select)
    if summary.fallback:
        print(f"mousai: {summary.fallback}", file=sys.stderr)
    if summary.num_unmeasured:
        print(
            f"mousai: {summary.num_unmeasured} tracks are passed over, since only their tags have been read. "
            f"Measure them with: {_in_workspace('mousai ingest')}", file=sys.stderr,
        )  # fmt: skip
    return summary


def _chunk_plan(preset: "Preset") -> "ChunkPlan":
    from pipeline.chunks import ChunkPlan

    return ChunkPlan(
        chunk_length=preset.chunk_length,
        divisor=preset.dmae.divisor,
        chunks_per_shard=preset.chunks_per_shard,
        validation_share=preset.validation_share,
    )


def _after_ingest(
    space: Workspace, done: "IngestSummary", libraries: list[Path], tags_only: bool, dry_run: bool
) -> str:
    """The command that is due after `ingest`, or after a dry run of it."""
    if tags_only or (dry_run and (done.changed or done.num_unread)):
        return " ".join(["mousai ingest", *(shlex.quote(str(library)) for library in libraries if dry_run)])
    if not done.selection.num_tracks or not _shards_are_current(space):
        return "mousai shard"
    return _next_command(space)


def _shards_are_current(space: Workspace) -> bool:
    """Whether the shards are those that `mousai shard` would make of the tables; nothing is written."""
    from pipeline.chunks import preview_chunks
    from pipeline.shard import require_current

    if not (space.shards / "train").exists():
        return False
    try:
        if preview_chunks(space.manifests, _chunk_plan(space.preset), space.select).changed:
            return False
        require_current(space.manifests, space.shards, space.shard.audio_format, space.select)
    except UserError:
        return False
    return True


def _describe_plan(plan: "ChunkSummary") -> None:
    print(
        f"{plan.num_chunks} chunks of {plan.num_tracks} tracks: {_hours(plan.train_duration)} to train, "
        f"{_hours(plan.val_duration)} to validate ({plan.num_groups} groups, {plan.num_shards} shards; "
        f"{_hours(plan.skipped_duration)} skipped, {_hours(plan.overlapped_duration)} twice, "
        f"{plan.num_crossing_artists} featured artists on both sides)."
    )
    _describe_selection(plan.selection)


def _describe_selection(selection: "SelectionSummary") -> None:
    if selection.num_left_out:
        codes = ", ".join(
            f"{each.num_tracks} {code} ({_hours(each.duration)})" for code, each in selection.left_out.items()
        )
        print(
            f"{selection.num_left_out} tracks, {_hours(selection.duration_left_out)}, are left out of training by "
            f"[select] in mousai.toml: {codes}."
        )


def _token_shares(space: Workspace, prompts: list[str]) -> dict[str, float] | None:
    """Shares of unknown tokens and of cut prompts; None, with a warning, without encoder."""
    from mousai.text import token_shares

    config = space.preset.generator
    try:
        return dataclasses.asdict(token_shares(config.text_encoder, config.text_length, prompts))
    except UserError as error:
        print(f"mousai: no token shares: {error}", file=sys.stderr)
        return None


def _describe_training(space: Workspace, stage: str, result: "FitResult") -> None:
    from mousai.runlog import last_value

    run = space.runs / stage
    if not result.new_steps:
        print(f"Nothing to do: {run} is at step {result.step}, {clock(result.seconds)} of training.")
        return
    how = "interrupted and saved" if result.interrupted else "done"
    print(f"{run}: {how} at step {result.step}, {clock(result.seconds)} of training.")
    keys = {
        "dmae": {"val_loss": "validation loss", "val_loss_wrong_latent": "with another track's latent",
                 "wiener_loss": "Wiener loss of the training spectrum"},
        "generator": {"val_loss": "validation loss", "val_loss_wrong_prompt": "with another track's prompt",
                      "one_number_loss": "best one-number predictor"},
    }  # fmt: skip
    figures = {label: last_value(run, key) for key, label in keys[stage].items()}
    if None not in figures.values():
        print("; ".join(f"{label} {value:.4f}" for label, value in figures.items()) + ".")


def _next_stage(space: Workspace) -> str:
    """The generator once latents have been made, else the DMAE."""
    return "generator" if space.has_latents() else "dmae"


def _next_command(space: Workspace) -> str:
    """The next link of the chain whose output is not there yet, or is of other music."""
    from pipeline.encode_latents import is_stale

    steps = [
        (space.manifests / "tracks.parquet", "mousai ingest ~/Music"),
        (space.shards / "train", "mousai shard"),
        *([] if pretrained_dmae(space.preset.dmae) else [(space.runs / "dmae" / "checkpoints", "mousai train dmae")]),
        (space.latents / "encoder.json", "mousai encode-latents"),
    ]
    missing = [command for path, command in steps if not path.exists()]
    if missing:
        return missing[0]
    try:
        if is_stale(space.shards, space.latents, space.encoder()):
            return "mousai encode-latents"
    except UserError:  # a damaged file, which it names
        return "mousai encode-latents"
    trained = (space.runs / "generator" / "checkpoints").exists()
    return 'mousai generate "PROMPT"' if trained else "mousai train generator"


def _starting_weights(space: Workspace, from_scratch: bool) -> Path | None:
    """The pretrained DMAE that a run starts from; None where it starts, or has started, from random weights."""
    from mousai.checkpoint import latest_checkpoint, read_about

    started = latest_checkpoint(space.runs / "dmae")
    if started is None:
        return None if from_scratch else pretrained_dmae(space.preset.dmae)
    name = read_about(started, "dmae")["provenance"].get("pretrained")
    if from_scratch and name:
        raise UserError(
            f"{space.runs / 'dmae'} was started from the weights {name!r}. "
            "Start anew with: mousai train dmae --restart --from-scratch (the old run is kept under another name)"
        )
    return WEIGHTS / name if name else None


def _latest(space: Workspace, stage: str) -> Path:
    """The newest checkpoint of a stage; for the DMAE, where none was trained, the one that comes with mousai."""
    from mousai.checkpoint import latest_checkpoint

    folder = latest_checkpoint(space.runs / stage)
    if folder is None and stage == "dmae":
        folder = pretrained_dmae(space.preset.dmae)
    if folder is None:
        raise UserError(f"{space.runs / stage} has no checkpoint. Make one with: mousai train {stage}")
    return folder


@contextmanager
def _model_of(space: Workspace) -> Iterator[None]:
    """What mousai.toml says of a model may be well-formed, and yet no model."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{space.folder / 'mousai.toml'} describes a model that cannot be: {error}") from error


def _set_aside(run: Path) -> None:
    """Rename a run's folder to the first free NAME-1, NAME-2, …"""
    if run.exists():
        number = next(i for i in range(1, 10_000) if not run.with_name(f"{run.name}-{i}").exists())
        run.rename(run.with_name(f"{run.name}-{number}"))
        print(f"mousai: the old run is now {run.name}-{number}", file=sys.stderr)


def _require_validation(folder: Path, made_by: str) -> None:
    if not any((folder / "train").glob("*_stats.json")):
        raise UserError(f"{folder / 'train'} holds nothing to train on. Make it with: {made_by}")
    if not any((folder / "val").glob("*_stats.json")):
        raise UserError(
            f"{folder / 'val'} is empty: training is judged on held-out tracks, so add at least one more track; "
            "or plan anew, and train anew: rm manifests/chunks.parquet && mousai shard, then mousai train --restart"
        )


def _require_same_encoder(space: Workspace, encoder: str) -> None:
    """UserError where the generator's run was trained on the latents of another DMAE."""
    from mousai.checkpoint import latest_checkpoint, read_about

    run = space.runs / "generator"
    folder = latest_checkpoint(run)
    if folder is not None:
        before = read_about(folder, "generator")["provenance"]["encoder"]
        if before != encoder:
            raise UserError(
                f"{run} was trained on latents of DMAE {before}, and those of {encoder} are current. "
                "Start anew with: mousai train generator --restart (the old run is kept under another name)"
            )


def _shards_hash(folder: Path) -> str:
    """What identifies the data of a run: the hash of its shards' hashes."""
    from mousai.storage import hash_of
    from pipeline.tars import finished_shards, read_stats

    folders = [folder / split for split in ("train", "val")]
    return hash_of([read_stats(each, name).sha256 for each in folders for name in finished_shards(each)])


def _provenance() -> dict[str, Any]:
    from importlib.metadata import version

    return {"mousai": version("mousai"), "torch": version("torch"), "command": ["mousai", *sys.argv[1:]]}


def _device(name: str | None) -> "torch.device":
    """The device called `name`, or the best one; UserError where it is not there."""
    import torch

    torch.set_float32_matmul_precision("high")  # TF32 where the GPU has it
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def _why_no_gpu() -> str:
    from mousai.doctor import gpu_finding

    return gpu_finding().text + "."


def _workers(given: int | None) -> int:
    from pipeline.executors import default_workers

    return given or default_workers()


def _limits(space: Workspace) -> "Limits | None":
    """What reading one file may cost; None where mousai.toml sets no limit."""
    from pipeline.limits import Limits

    seconds, megabytes = space.ingest.time_limit, space.ingest.memory_limit
    return Limits(seconds=seconds, megabytes=megabytes) if seconds or megabytes else None


def _parse_duration(text: str) -> float:
    """Seconds of "90s", "30m", "24h" or "7d"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None or float(match[1]) == 0:
        raise UserError(f"--for {text} is not a time: write 90s, 30m, 24h or 7d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _read_prompts(path: Path | None) -> list[str]:
    if path is None:
        return []
    if not path.is_file():
        raise UserError(f"{path} is not a file: --prompts-file takes a text file with a prompt a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text in UTF-8: --prompts-file takes one, with a prompt a line") from error
    return [line.strip() for line in lines if line.strip()]


def _output_folder(folder: Path) -> Path:
    """The folder, before anything is computed for it; UserError where a file is in its place."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: --out takes a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}. Name another folder with --out") from error
    return folder


def _is_text(prompt: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in prompt)


def _next(command: str, folder: Path) -> None:
    """Say what to run next, with the workspace where it is not the current folder."""
    print(f"Next: {command}" + ("" if folder.resolve() == Path.cwd() else f" -w {folder}"))


def _print_json(value: Any) -> None:
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    print(json.dumps(plain, indent=1, ensure_ascii=False, default=str))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    main()
