"""The dataset card beside the report: Markdown with the YAML that the Hugging Face Hub reads, to publish with shards.

It names what is in the music, never where it lay: no path, no folder, no file name.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mousai.audio import SAMPLE_RATE
from mousai.progress import say_size
from mousai.storage import publish
from pipeline.figures import Breakdown, Share, say_hours
from pipeline.report import Report
from pipeline.split_figures import Split
from pipeline.track_figures import Composition

_SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
_LOSSLESS = frozenset({"alac", "ape", "flac", "tak", "tta", "wavpack", "wmalossless"})
_HIGH = 0.1  # the part of the hours from which a limit is worth naming


def write_card(path: Path, report: Report, version: str) -> None:
    """Publish the card of a dataset that mousai `version` made."""
    with publish(path) as temporary:
        temporary.write_text(card(report, version), encoding="utf-8")


def card(report: Report, version: str, splits: Sequence[str] = ("train", "val")) -> str:
    """The card's text; `splits` says which of them are published with it."""
    return "\n".join([*_front_matter(report, splits), *_body(report, version)]) + "\n"


def _front_matter(report: Report, splits: Sequence[str]) -> Iterator[str]:
    yield "---"
    yield f"pretty_name: {json.dumps(_title(_music(report)), ensure_ascii=False)}"
    yield _license(_music(report))
    yield "task_categories:\n- text-to-audio"
    yield "tags:\n- music\n- text-to-music\n- webdataset\n- mousai"
    if report.split:
        chunks = report.split.train.chunks + report.split.val.chunks
        yield f"size_categories:\n- {next((name for limit, name in _SIZES if chunks < limit), 'n>10M')}"
        yield "configs:\n- config_name: default\n  data_files:"
        if "train" in splits:
            yield "  - split: train\n    path: train/*.tar"
        if "val" in splits and report.split.val.chunks:
            yield "  - split: validation\n    path: val/*.tar"
    yield "---"


def _music(report: Report) -> Composition:
    """What the shards hold, or will; all that is known where nothing is decoded yet."""
    return report.chosen if report.chosen.tracks else report.library


def _title(music: Composition) -> str:
    genres = ", ".join(share.name for share in music.genres.rows[:3])
    hours = say_hours(music.duration) if music.duration else f"{music.tracks:,} tracks"
    return f"{hours} of music" + (f": {genres}" if genres else "")


def _body(report: Report, version: str) -> Iterator[str]:
    music, split = _music(report), report.split
    hours = f", {say_hours(music.duration)}," if music.duration is not None else ""
    yield f"\n# {_cell(_title(music))}\n"
    yield (
        f"{music.tracks:,} tracks{hours} by {music.artists.num_names:,} artists in {music.genres.num_names:,} "
        "genres, as 48 kHz stereo with text prompts made of their tags, for training text-to-music models."
    )
    yield "\n## What is in it\n"
    yield from _composition(music, report.prompts)
    yield "\n## Licence and consent\n"
    yield from _licence(music)
    yield "\n## How it was made\n"
    yield from _making(split, version)
    yield "\n## Splits\n"
    yield from _splits(split) if split else ["Not planned yet."]
    yield "\n## What was left out\n"
    yield from _left_out(report)
    yield "\n## Known limits\n"
    yield from (f"- {limit}" for limit in _limits(report, music))


def _composition(music: Composition, prompts: Sequence[str]) -> Iterator[str]:
    yield from _table(["genre", "tracks", "music"], music.genres)
    yield "\nA track with several genres counts under each.\n"
    years = sorted(int(share.name) for share in music.years.rows)
    if years:
        yield f"Years of release: {years[0]} to {years[-1]}.\n"
    yield from _table(["artist", "tracks", "music"], music.artists)
    sources = ", ".join(dict.fromkeys(each.codec for each in music.formats))
    if sources:
        yield f"\nSource files: {say_size(music.bytes)} of {sources}."
    tagged = ", ".join(f"{name} {n / max(1, music.tracks):.0%}" for name, n in music.tagged.items())
    yield f"\nTracks with tags: {tagged}."
    if prompts:
        yield "\nPrompts as training draws them:\n"
        yield from (f"- {_cell(prompt) or '(empty)'}" for prompt in prompts)


def _table(headers: Sequence[str], figures: Breakdown) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield "|---|---:|---:|"
    yield from (_line(_cell(share.name), share) for share in figures.rows)
    if figures.rest:
        yield _line(f"{figures.num_names - len(figures.rows):,} more", figures.rest)
    if figures.untagged:
        yield _line("(no tag)", figures.untagged)


def _line(name: str, share: Share) -> str:
    return f"| {name} | {share.tracks:,} | {say_hours(share.duration)} |"


def _license(music: Composition) -> str:
    """The line of YAML: the licence's name on the Hub where all tracks are under one that it knows."""
    licences = music.licences
    if licences.num_names == 1 and licences.untagged is None and licences.rows[0].name.startswith("CC"):
        return f"license: {licences.rows[0].name.lower()}"
    return "license: other  # name the licence of the music before you publish"


def _licence(music: Composition) -> Iterator[str]:
    if not music.licences.rows and not music.consents.rows:
        yield "Not recorded. State here under which licence the music may be used, and who agreed, before you publish."
        return
    for header, figures in (("licence", music.licences), ("consent", music.consents)):
        if figures.rows:
            yield from _table([header, "tracks", "music"], figures)
            yield ""
    yield "As tags and sidecar files state them. The JSON beside each chunk names artist and title, for attribution."


def _making(split: Split | None, version: str) -> Iterator[str]:
    length = f" of {split.chunk_length / SAMPLE_RATE:.1f} s" if split else ""
    yield (
        f"With mousai {version}, after the method of the paper *Moûsai: Text-to-Music Generation with Long-Context "
        "Latent Diffusion*:\n"
    )
    yield "- Every file was decoded from start to end and resampled to 48 kHz stereo (soxr HQ); mono was doubled."
    yield "- A track that was louder than full scale was turned down as a whole. Nothing was turned up or clipped."
    yield f"- Tracks were cut into chunks{length}, from the start to the end: 16-bit FLAC in WebDataset tars."
    yield "- The JSON beside each chunk holds title, artists, album, genres, year, its place and a text of these."
    yield "- Training shuffles and thins the text afresh at each step (section 5.1 of the paper)."


def _splits(split: Split) -> Iterator[str]:
    yield "| | training | validation |\n|---|---:|---:|"
    sides = (split.train, split.val)
    for name, values in (
        ("music", [say_hours(side.duration) for side in sides]),
        ("tracks", [f"{side.tracks:,}" for side in sides]),
        ("chunks", [f"{side.chunks:,}" for side in sides]),
        ("groups", [f"{side.groups:,}" for side in sides]),
    ):
        yield f"| {name} | {' | '.join(values)} |"
    yield (
        "\nTracks that share a first artist, an album or (untagged) a folder are a group, and no group is divided. "
        f"{split.crossing_artists:,} featured artists are on both sides. {say_hours(split.skipped)} of the tracks are "
        f"in no chunk, {say_hours(split.overlapped)} in two."
    )


def _left_out(report: Report) -> Iterator[str]:
    rows: Iterable[tuple[str, int]] = [(each.meaning, each.files) for each in report.rejected]
    if not rows and not report.selection.left_out:
        yield "Nothing."
    yield from (f"- {files:,} files: {meaning}." for meaning, files in rows)
    for group in report.selection.groups:
        yield f"- {group.tracks:,} tracks ({say_hours(group.duration)}): {group.meaning}."


def _limits(report: Report, music: Composition) -> Iterator[str]:
    for name, figures in (("genre", music.genres), ("artist", music.artists)):
        whole = music.duration or 0.0
        if figures.rows and whole and (part := (figures.rows[0].duration or 0.0) / whole) >= _HIGH:
            yield f"{part:.0%} of the hours are of one {name}: {_cell(figures.rows[0].name)}."
        if figures.untagged and (part := figures.untagged.tracks / max(1, music.tracks)) >= _HIGH:
            yield f"{part:.0%} of the tracks name no {name}."
    lossy = sum(each.duration for each in music.formats if not _is_lossless(each.codec))
    if music.duration and lossy:
        yield f"{lossy / music.duration:.0%} of the hours come from lossy files, whose losses the FLAC keeps."
    yield from (
        f"{each.name[0].upper()}{each.name[1:]}: {each.tracks:,} tracks, {say_hours(each.duration)}."
        for each in music.findings
    )
    if report.families.groups:
        shared = (
            f"{report.families.tracks:,} tracks are copies or parts of others ({report.families.groups:,} families)"
        )
        yield f"{shared}, found by packets, samples and sound."
    yield "Tags are as the files had them; nobody has checked them against the music."


def _is_lossless(codec: str) -> bool:
    return codec in _LOSSLESS or codec.startswith("pcm_")


def _cell(text: str) -> str:
    """A name as text in a Markdown table."""
    for mark in "\\`*_[]|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())
