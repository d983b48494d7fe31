"""What the demo shows: does text reach the latents, and one page with counts, losses, pictures and players.

The page states its bars and whether they hold; nothing is chosen after the fact: prompts and seeds are fixed here.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mousai import page, stage_one
from mousai.batches import AudioBatch, LatentBatch
from mousai.centroids import chance_of, confusion, count_right, latent_features, make_centroids, mel_features
from mousai.generate import Cascade, Piece, Settings
from mousai.pictures import draw_confusion, draw_curves, draw_mels
from mousai.progress import progress
from mousai.runlog import read_rows
from mousai.stage_one import StageOne

GENRES = ("electronic", "hip hop", "metal", "pop")  # the paper's four (section 6.1)
CHUNKS = 6  # prompts ask for "i of 6"
PIECES_PER_GENRE = 10
BAR = 28  # right of 40 in the decoded audio: guessing gets there once in 10^9 times
SETTINGS = Settings(seconds=2**19 / 48_000, steps=15, decoder_steps=5, cfg=2.0)

Matrix = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class RealChunks:
    """Real chunks with their genres, split as the training was."""

    train: tuple[LatentBatch, list[str]]
    val: tuple[LatentBatch, list[str]]
    train_audio: tuple[AudioBatch, list[str]]
    val_audio: tuple[AudioBatch, list[str]]


@dataclass(frozen=True, kw_only=True)
class GenreTest:
    """How often the genre that a prompt asks for is recognised in what was generated."""

    prompts: list[str]
    latents: Matrix  # asked for, recognised; by the statistics of the generated latents
    mels: Matrix  # by log-mel statistics of the decoded audio
    held_out_latents: tuple[int, int]  # right, of: the same classifier on real held-out chunks
    held_out_mels: tuple[int, int]

    @property
    def right(self) -> int:
        """Generated latents whose genre was recognised."""
        return sum(self.latents[i][i] for i in range(len(GENRES)))

    @property
    def right_mels(self) -> int:
        """Decoded pieces whose genre was recognised."""
        return sum(self.mels[i][i] for i in range(len(GENRES)))


def genre_prompt(genre: str, index: int) -> str:
    """Names a genre and a place in a song, no title, artist, album or year of any track."""
    return f"{genre.title()}, {index % CHUNKS + 1} of {CHUNKS}"


def run_genre_test(cascade: Cascade, real: RealChunks) -> GenreTest:
    """Generate ten pieces a genre at fixed seeds and classify them by nearest centroids of the real training tracks."""
    asked = [genre for genre in GENRES for _ in range(PIECES_PER_GENRE)]
    prompts = [genre_prompt(genre, i) for genre in GENRES for i in range(PIECES_PER_GENRE)]
    by_latent = make_centroids(_features(real.train[0]), real.train[1])
    by_mel = make_centroids(mel_features(real.train_audio[0].audio), real.train_audio[1])
    heard, heard_mel = [], []
    with progress("genre test", len(prompts), "pieces") as advance:
        for first in range(0, len(prompts), 4):
            some, seeds = prompts[first : first + 4], list(range(first, first + 4))
            latents = cascade.latents(some, seeds, SETTINGS)
            heard += by_latent.classify(latent_features(latents.cpu()))
            heard_mel += by_mel.classify(mel_features(cascade.audio(latents, seeds, SETTINGS).cpu()))
            advance(len(some), some[0])
    return GenreTest(
        prompts=prompts,
        latents=confusion(GENRES, asked, heard),
        mels=confusion(GENRES, asked, heard_mel),
        held_out_latents=_score(by_latent.classify(_features(real.val[0])), real.val[1]),
        held_out_mels=_score(by_mel.classify(mel_features(real.val_audio[0].audio)), real.val_audio[1]),
    )


def _features(batch: LatentBatch) -> Tensor:
    return latent_features(batch.latents, batch.valid_frames)


def _score(heard: Sequence[str], true: Sequence[str]) -> tuple[int, int]:
    return count_right(heard, true), len(true)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """All that the page shows."""

    folder: Path
    counts: list[tuple[str, object]]
    rejected: list[tuple[str, str]]  # (file, reason)
    prompts: list[str]  # as training drew them
    pieces: list[Piece]
    genres: GenreTest
    stage_one: StageOne
    weights: Path | None  # of stage 1, where they came with mousai
    minutes: float


def bars(first: StageOne, generator: dict[str, Any], genres: GenreTest) -> list[tuple[bool, str]]:
    """What the demo is judged by, and whether it holds."""
    total = len(genres.prompts)
    return [
        *stage_one.bars(first),
        (
            generator["val_loss"] < generator["one_number_loss"],
            f"The generator's validation loss, {generator['val_loss']:.3f}, is below that of the best predictor that "
            f"knows one number a channel, {generator['one_number_loss']:.3f}.",
        ),
        (
            generator["val_loss"] < generator["val_loss_wrong_prompt"],
            f"It is lower with a track's own prompt than with another track's, "
            f"{generator['val_loss_wrong_prompt']:.3f}.",
        ),
        (
            genres.right_mels >= BAR,
            f"In the audio of {genres.right_mels} of {total} generated pieces the genre asked for is recognised; {BAR} "
            f"were asked, and guessing gets to {genres.right_mels} with probability "
            f"{chance_of(genres.right_mels, total, len(GENRES)):.1g}. Real held-out chunks: "
            f"{genres.held_out_mels[0]} of {genres.held_out_mels[1]}.",
        ),
    ]


def last_validation(run: Path) -> dict[str, Any]:
    """The newest validation row of a run's log."""
    return next(row for row in reversed(read_rows(run)) if "val_loss" in row)


def write_demo(demo: Demo, runs: Path) -> list[tuple[bool, str]]:
    """Draw the pictures and publish `index.html` in the demo's folder; the bars and whether they hold."""
    pictures = demo.folder / "pictures"
    generator = last_validation(runs / "generator")
    judged = bars(demo.stage_one, generator, demo.genres)
    _draw_generator(pictures, runs, generator)
    matrices = {"latents": demo.genres.latents, "decoded audio (log-mel)": demo.genres.mels}
    draw_confusion(pictures / "genres.png", GENRES, matrices)
    page.write_page(
        demo.folder / "index.html",
        "mousai demo",
        "A synthetic library of four genres, encoded by the small autoencoder that comes with mousai, a generator "
        f"trained on it, and what came out, in {demo.minutes:.0f} minutes on this machine's CPU. It shows that every "
        "link of the chain works; it does not show what the method sounds like after a week on a GPU.",
        [
            *(page.verdict(ok, text) for ok, text in judged),
            page.heading("What was generated"),
            page.paragraph("One piece a genre, from a prompt that names no title and no artist."),
            page.grid(*(_piece(piece, pictures) for piece in demo.pieces)),
            page.heading("The library"),
            page.facts(demo.counts),
            page.table(["rejected file", "reason"], demo.rejected, numeric_from=2),
            page.heading("Prompts, as training draws them"),
            page.table(["prompt"], [[prompt] for prompt in demo.prompts]),
            *stage_one.section(demo.stage_one, pictures),
            *([] if demo.weights is None else stage_one.card_section(demo.weights)),
            *_generator_section(pictures, generator, demo.genres),
        ],
    )
    return judged


def _piece(piece: Piece, pictures: Path) -> str:
    picture = piece.path.with_suffix(".png")
    caption = f"seed {piece.seed}, {piece.seconds:.0f} s of music made in {piece.took:.0f} s" if piece.took else ""
    return page.player(piece.path, piece.prompt, caption) + page.picture(picture, f"mel spectrogram of {piece.prompt}")


def _draw_generator(pictures: Path, runs: Path, row: dict[str, Any]) -> None:
    """The generator's training curve, and its losses by noise level."""
    rows = read_rows(runs / "generator")
    training = [each for each in rows if "loss" in each]
    validation = [each for each in rows if "val_loss" in each]
    curves = {
        "training": ([each["step"] for each in training], _smooth([each["loss"] for each in training])),
        "validation": ([each["step"] for each in validation], [each["val_loss"] for each in validation]),
    }
    draw_curves(pictures / "generator-loss.png", curves, "step", "v-loss")
    shown = {
        "own": "val_by_level",
        "another track's prompt": "val_wrong_prompt_by_level",
        "best one-number predictor": "one_number_by_level",
    }
    levels = {name: (row["levels"], row[key]) for name, key in shown.items()}
    draw_curves(pictures / "generator-levels.png", levels, "noise level sigma", "validation v-loss")


def _smooth(values: Sequence[float], width: int = 10) -> list[float]:
    """The running mean over the last `width` values."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]


def _generator_section(pictures: Path, row: dict[str, Any], genres: GenreTest) -> list[str]:
    mels, held = genres.held_out_mels, genres.held_out_latents
    return [
        page.heading("Stage 2: the generator"),
        page.grid(
            page.picture(pictures / "generator-loss.png", "loss of the generator over steps", f"step {row['step']}"),
            page.picture(pictures / "generator-levels.png", "validation loss of the generator by noise level"),
        ),
        page.heading("Does the text reach the music?"),
        page.paragraph(
            f"{len(genres.prompts)} pieces, ten a genre at fixed seeds, none discarded, classified by the nearest "
            f"centroid of the real training tracks. By the generated latents {genres.right} are recognised (the "
            f"classifier gets {held[0]} of {held[1]} real held-out chunks), by the decoded audio {genres.right_mels} "
            f"({mels[0]} of {mels[1]} real ones)."
        ),
        page.picture(pictures / "genres.png", "confusion matrices by genre"),
        page.details("The prompts", page.table(["prompt"], [[prompt] for prompt in dict.fromkeys(genres.prompts)])),
    ]


def draw_piece(piece: Piece) -> None:
    """The mel picture beside a generated file."""
    from mousai.audio import read_span

    with piece.path.open("rb") as file:
        draw_mels(piece.path.with_suffix(".png"), [(piece.prompt, torch.from_numpy(read_span(file)))])


def as_json(demo: Demo, judged: Sequence[tuple[bool, str]]) -> dict[str, Any]:
    """The demo's figures for a script."""
    return {
        "stage_one": stage_one.as_json(demo.stage_one),
        "bars": [{"holds": ok, "text": text} for ok, text in judged],
        "genres": dataclasses.asdict(demo.genres),
        "minutes": round(demo.minutes, 1),
    }
