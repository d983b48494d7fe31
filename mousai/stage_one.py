"""Can stage 1 be heard? Held-out crops through the DMAE and back: figures, bars, and a section of the demo's page."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mousai import page
from mousai.batches import AudioBatch
from mousai.centroids import count_right, make_centroids, mel_features
from mousai.dmae import DMAE
from mousai.judge import Judgement, judge
from mousai.pictures import draw_curves
from mousai.progress import progress
from mousai.storage import read_json
from mousai.train_dmae import DMAEWatch

CROPS = 40
CROP_LENGTH = 2**17  # samples
TRAINING_CROPS = 160  # whose statistics the genre classifier knows
STEPS = (5, 10, 25, 50)  # of the decoder; the bars are at the last
RECOGNISED = 36  # of 40: tracks, and genres
HEARD_BELOW = 0.85  # noise levels up to here must tell own from wrong: nearer 1 a latent without phase cannot help


@dataclass(frozen=True, kw_only=True)
class StageOne:
    """What the DMAE made of held-out crops."""

    name: str  # of the weights
    validation: dict[str, Any]  # see `DMAEWatch.validate`
    curve: list[Judgement]  # at STEPS
    genres: int  # decoded crops, at the last of STEPS, whose genre is recognised
    genres_true: int  # of the crops themselves, by the same classifier
    previews: Path

    @property
    def final(self) -> Judgement:
        """The figures at the last of STEPS."""
        return self.curve[-1]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Crops and what they are."""

    examples: AudioBatch
    genres: list[str]


def examine(dmae: DMAE, watch: DMAEWatch, train: Labelled, held_out: Labelled, folder: Path, name: str) -> StageOne:
    """Decode the held-out crops at all of STEPS; players and pictures of some go to `folder`."""
    classifier = make_centroids(mel_features(train.examples.audio), train.genres)
    curve = []
    with progress("stage 1", len(STEPS), "step counts") as advance:
        for steps in STEPS:
            judged, decoded = judge(dmae, held_out.examples, steps=steps)
            curve.append(judged)
            advance(1, f"{judged.distance:.1f} dB at {steps} steps")
    folder.mkdir(parents=True, exist_ok=True)
    watch.preview(dmae, folder)
    return StageOne(
        name=name,
        validation=watch.validate(dmae),
        curve=curve,
        genres=count_right(classifier.classify(mel_features(decoded)), held_out.genres),
        genres_true=count_right(classifier.classify(mel_features(held_out.examples.audio)), held_out.genres),
        previews=folder,
    )


def bars(found: StageOne) -> list[tuple[bool, str]]:
    """What stage 1 must show, and whether it does."""
    final, row = found.final, found.validation
    gaps = [
        (level, wrong - own)
        for level, own, wrong in zip(row["levels"], row["val_by_level"], row["val_wrong_latent_by_level"], strict=True)
        if level < HEARD_BELOW
    ]
    level, least = min(gaps, key=lambda gap: gap[1])
    return [
        (
            final.distance < final.wrong_crop / 2,
            f"Decoded from their own latents at {final.decoder_steps} steps, {final.crops} held-out crops are "
            f"{final.distance:.1f} dB from themselves; half the distance of a wrong real crop is "
            f"{final.wrong_crop / 2:.1f} dB.",
        ),
        (
            final.identified >= RECOGNISED,
            f"The track is identified in {final.identified} of {final.crops} decoded crops; {RECOGNISED} were asked.",
        ),
        (
            found.genres >= RECOGNISED,
            f"The genre is recognised in {found.genres} of {final.crops} decoded crops; {RECOGNISED} were asked, and "
            f"the crops themselves get {found.genres_true}.",
        ),
        (
            least > 0,
            f"At every noise level up to {gaps[-1][0]} the loss with another track's latent is higher than with the "
            f"own; the least gap is {least:.3f}, at {level}.",
        ),
    ]


def section(found: StageOne, pictures: Path) -> list[str]:
    """The page's part on stage 1."""
    row = found.validation
    shown = {"own latent": "val_by_level", "another's": "val_wrong_latent_by_level", "Wiener": "wiener_by_level"}
    curves = {label: (row["levels"], row[key]) for label, key in shown.items()}
    draw_curves(pictures / "dmae-levels.png", curves, "noise level sigma", "validation v-loss")
    steps = [float(each.decoder_steps) for each in found.curve]
    distances = {
        "its own latent": (steps, [each.distance for each in found.curve]),
        "another track's latent": (steps, [each.wrong_latent for each in found.curve]),
        "a wrong real crop": (steps, [each.wrong_crop for each in found.curve]),
    }
    draw_curves(pictures / "dmae-steps.png", distances, "decoder steps", "log-mel distance, dB")
    levels = zip(row["levels"], *(row[key] for key in shown.values()), strict=True)
    by_level = [[f"{value:.2f}" if i == 0 else f"{value:.3f}" for i, value in enumerate(line)] for line in levels]
    return [
        page.heading("Stage 1: the autoencoder (DMAE)"),
        page.paragraph(
            f"The weights {found.name!r}. {found.final.crops} crops of tracks that were held out, encoded and decoded. "
            "A wrong real crop is the scale: a decoder that ignores its latent gets no nearer."
        ),
        page.table(["decoder steps", *_FIGURES], [_figures(each) for each in found.curve], numeric_from=0),
        page.grid(
            page.picture(pictures / "dmae-steps.png", "log-mel distance over decoder steps"),
            page.picture(
                pictures / "dmae-levels.png", "validation loss of the DMAE by noise level",
                "Where own and another's agree, the decoder does not listen to the latent.",
            ),
        ),
        page.details("The losses", page.table(["sigma", *shown], by_level, numeric_from=0)),
        page.grid(*_pairs(found.previews)),
    ]  # fmt: skip


def card_section(weights: Path) -> list[str]:
    """The page's part on what the weights in this folder were measured by when they were made, with players."""
    blocks = [page.heading("Stage 1 on real music")]
    for name, figures in read_json(weights / "figures.json").items():
        curve = [Judgement(**each) for each in figures["curve"]]
        blocks += [
            page.paragraph(
                f"Measured when the weights {weights.name!r} were made: {curve[-1].crops} crops of "
                f"{figures['held_out_tracks']} tracks of {name} that they were not trained on."
            ),
            page.table(["decoder steps", *_FIGURES], [_figures(each) for each in curve], numeric_from=0),
        ]
    pairs = sorted(weights.glob("heard/*-true.ogg"))
    titles = read_json(weights / "heard" / "titles.json") if pairs else {}
    for true in pairs:
        number = true.name.removesuffix("-true.ogg")
        decoded = true.with_name(f"{number}-decoded.ogg")
        blocks.append(page.grid(page.player(true, titles[number]), page.player(decoded, "the same, auto-encoded")))
    return blocks


_FIGURES = ("distance, dB", "wrong crop", "wrong latent", "tracks identified", "floor low", "mid", "high", "rank")


def _figures(judged: Judgement) -> list[str]:
    distances = (judged.distance, judged.wrong_crop, judged.wrong_latent)
    return [
        str(judged.decoder_steps),
        *(f"{value:.2f}" for value in distances),
        f"{judged.identified} of {judged.crops}",
        *(f"{value:+.1f}" for value in judged.floor.values()),
        f"{judged.latent_rank:.1f}",
    ]


def _pairs(previews: Path) -> list[str]:
    return [
        page.player(previews / f"{i}-true.wav", f"held-out crop {i + 1}")
        + page.player(previews / f"{i}-decoded.wav", f"auto-encoded {i + 1}")
        + page.picture(previews / f"{i}.png", f"mel spectrograms of crop {i + 1}, true and auto-encoded")
        for i in range(len(list(previews.glob("*.png"))))
    ]


def as_json(found: StageOne) -> dict[str, Any]:
    """The figures for a script."""
    return {**asdict(found), "previews": str(found.previews)}
