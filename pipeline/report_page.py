"""The page of `mousai report`: the figures of `report.py` as one HTML file that asks nothing of the network."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mousai import charts, page
from mousai.progress import say_size
from pipeline.figures import Breakdown, Histogram, Share, say_hours
from pipeline.report import Report, Stored
from pipeline.split_figures import Split
from pipeline.track_figures import Composition, Extreme

_MOST_BARS = 60  # years and bins that fit side by side
_CHANNELS = {1: "mono", 2: "stereo"}
_BOUNDARIES = (1, 2, 5, 10, 20, 50, 100)  # years a bar


def write_report(path: Path, report: Report, pictures: Mapping[str, bytes]) -> None:
    """Publish the page. `pictures` maps ids of the loudest and quietest tracks to PNGs; without any, text will do."""
    sections = {title: list(blocks) for title, blocks in _sections(report, pictures) if blocks}
    totals = report.library
    hours = f", {say_hours(totals.duration)}" if totals.duration is not None else ""
    blocks = [
        page.facts(_tiles(report)),
        *(page.note(text) for text in report.missing),
        page.contents(sections),
        *itertools.chain.from_iterable((page.heading(title), *blocks) for title, blocks in sections.items()),
    ]
    page.write_page(path, "Dataset report", f"{totals.tracks:,} tracks{hours}, {say_size(totals.bytes)}.", blocks)


def _tiles(report: Report) -> Iterator[tuple[str, object]]:
    totals = report.library
    yield "tracks", f"{totals.tracks:,}"
    if totals.duration is not None:
        yield "music", say_hours(totals.duration)
    yield "files", say_size(totals.bytes)
    yield "artists", f"{report.library.artists.num_names:,}"
    yield "genres", f"{report.library.genres.num_names:,}"
    if report.rejected:
        yield "rejected files", f"{sum(group.files for group in report.rejected):,}"
    if report.selection.left_out:
        yield "left out", say_hours(report.selection.left_out_duration)
    if report.split:
        yield "to train on", say_hours(report.split.train.duration)
        yield "to validate", say_hours(report.split.val.duration)
    for name, stored in (("shards", report.shards), ("latents", report.latents)):
        if stored:
            yield name, say_size(stored.bytes)


def _sections(report: Report, pictures: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    yield (
        "Genres",
        _breakdown(report.library.genres, "A track with several genres counts under each of them.", "Without a genre"),
    )
    yield "Years", _years(report.library.years)
    yield "Artists", _breakdown(report.library.artists, "By the first artist of each track.", "Without an artist")
    yield "Tags", _tags(report)
    yield "Licences and consent", _licences(report.library)
    yield "Formats", _formats(report)
    yield "Quality", _quality(report)
    yield "Loudest and quietest", _extremes(report, pictures)
    yield "Duplicates", _duplicates(report)
    yield "Rejected files", _rejected(report)
    yield "Left out of training", _selection(report)
    yield "Splits", _split(report.split) if report.split else []
    yield "Shards and latents", _stored(report)
    yield "Prompts and keywords", _prompts(report)


def _row(share: Share) -> tuple[str, list[float], str]:
    """A bar as long as the hours, or as the number of tracks where nothing was decoded."""
    known = share.duration is not None
    value = share.duration if share.duration is not None else float(share.tracks)
    hours = f"{say_hours(share.duration)} · " if known else ""
    return share.name, [value], f"{hours}{share.tracks:,} {'track' if share.tracks == 1 else 'tracks'}"


def _breakdown(figures: Breakdown, about: str, lacking: str) -> list[str]:
    if not figures.rows:
        return [page.paragraph("No track says.")]
    sentences = [about]
    if figures.rest:
        number = figures.num_names - len(figures.rows)
        sentences.append(f"{number:,} more: {_row(figures.rest)[2]}.")
    if figures.untagged:
        sentences.append(f"{lacking}: {_row(figures.untagged)[2]}.")
    return [charts.bars(map(_row, figures.rows)), page.paragraph(" ".join(sentences))]


def _licences(library: Composition) -> list[str]:
    if not library.licences.rows and not library.consents.rows:
        return [page.paragraph("No track states a licence or a consent.")]
    return [
        *_breakdown(library.licences, "Licences as tags or a sidecar file state them.", "Without a licence"),
        *(_breakdown(library.consents, "Consent, as written.", "Without") if library.consents.rows else []),
    ]


def _years(figures: Breakdown) -> list[str]:
    if not figures.rows:
        return [page.paragraph("No track says.")]
    by_year = {int(share.name): share for share in figures.rows}
    first, last = min(by_year), max(by_year)
    width = next((each for each in _BOUNDARIES if (last - first) / each < _MOST_BARS), _BOUNDARIES[-1])
    first -= first % width
    counts, labels = [], []
    for start in range(first, last + 1, width):
        inside = [by_year[year] for year in range(start, start + width) if year in by_year]
        tracks = sum(share.tracks for share in inside)
        known = [share.duration for share in inside if share.duration is not None]
        name = str(start) if width == 1 else f"{start} to {start + width - 1}"
        counts.append(round(sum(known)) if known else tracks)
        labels.append(f"{name}: {_row(Share(name='', tracks=tracks, duration=sum(known) if known else None))[2]}")
    untagged = f"; without a year: {_row(figures.untagged)[2]}" if figures.untagged else ""
    ticks = [str(first)] if len(counts) == 1 else [str(first), str(first + width * (len(counts) - 1))]
    note = f"{figures.num_names} different years{untagged}"
    return [page.grid(charts.histogram("Year of release", note, counts, labels, ticks))]


def _tags(report: Report) -> list[str]:
    tracks = report.library.tracks
    rows = [
        (name, [float(number)], f"{number:,} tracks, {number / max(1, tracks):.0%}")
        for name, number in report.library.tagged.items()
    ]
    return [page.paragraph("Tracks that have the tag. Prompts are made of nothing else."), charts.bars(rows)]


def _formats(report: Report) -> list[str]:
    rows = [
        (
            each.codec,
            f"{each.sample_rate / 1000:g}\N{NO-BREAK SPACE}kHz", _CHANNELS.get(each.channels, each.channels),
            f"{each.tracks:,}", say_hours(each.duration), say_size(each.bytes),
            f"{each.bytes * 8e-3 / each.duration:,.0f} kbit/s" if each.duration else None,
        )
        for each in report.library.formats
    ]  # fmt: skip
    headers = ["codec", "rate", "channels", "tracks", "music", "files", "bit rate"]
    return [page.table(headers, rows, numeric_from=3)] if rows else []


def _quality(report: Report) -> list[str]:
    shown = [_histogram(figures) for figures in report.quality]
    odd = [(each.name, f"{each.tracks:,}", say_hours(each.duration)) for each in report.library.findings]
    return [
        *([page.grid(*shown)] if shown else []),
        *([page.table(["what is odd", "tracks", "music"], odd)] if odd else []),
    ]


def _histogram(figures: Histogram) -> str:
    edges, unit = figures.edges, f" {figures.unit}" if figures.unit else ""
    labels = [f"{low:g} to {high:g}{unit}: {count:,}" for (low, high), count in zip(
        itertools.pairwise(edges), figures.counts, strict=True)]  # fmt: skip
    labels[0] = f"below {edges[1]:g}{unit}: {figures.counts[0]:,}"
    labels[-1] = f"{edges[-2]:g}{unit} or more: {figures.counts[-1]:,}"
    steps = len(edges) - 1
    ticks = [_signed(f"{edges[round(i * steps / 4)]:g}") for i in range(5)]
    title = f"{figures.name[0].upper()}{figures.name[1:]}{',' if unit else ''}{unit}"
    note = f"median {figures.median:.3g}, 90% between {figures.low:.3g} and {figures.high:.3g}"
    return charts.histogram(title, _signed(note), figures.counts, labels, ticks)


def _signed(text: str) -> str:
    """Numbers with a minus instead of a hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def _extremes(report: Report, pictures: Mapping[str, bytes]) -> list[str]:
    if not report.loudest:
        return []
    about = "Of what is trained on, by integrated loudness."
    if pictures:
        about += (
            " Ten seconds from the middle of each track: 40 Hz to 20 kHz upwards on a logarithmic scale, equal colours "
            "for equal levels."
        )
    blocks = [page.paragraph(about)]
    for name, tracks in (("The loudest", report.loudest), ("The quietest, lowest first", report.quietest)):
        if tracks:
            blocks += [page.paragraph(name), page.grid(*(_extreme(track, pictures) for track in tracks))]
    return blocks


def _extreme(track: Extreme, pictures: Mapping[str, bytes]) -> str:
    name = " – ".join(filter(None, [track.artist, track.title])) or Path(track.path).name
    caption = f"{name}: {_signed(f'{track.loudness:.1f} LUFS')}, {say_hours(track.duration)}"
    if track.id in pictures:
        return page.picture(pictures[track.id], f"spectrogram of {name}", caption)
    return page.paragraph(f"{caption}. It is in no shard, and its file cannot be read." if pictures else caption)


def _duplicates(report: Report) -> list[str]:
    copies, families = report.copies, report.families
    if not copies.groups and not families.groups:
        return [page.paragraph("No two tracks are of one recording.")]
    shown = [f"{len(paths)} files: {', '.join(Path(path).name for path in paths)}" for paths in copies.largest]
    return [
        page.facts([
            ("recordings with copies", f"{copies.groups:,}"),
            ("files of them", f"{copies.tracks:,}"),
            ("music that is there again", say_hours(copies.surplus)),
            ("families: copies and parts", f"{families.groups:,}"),
            ("files of them", f"{families.tracks:,}"),
        ]),
        page.paragraph("Copies are found by packets, samples and ear. A family is never divided between the splits."),
        *([page.details("The largest", page.table(["copies of one recording"], [[each] for each in shown]))]
          if shown else []),
    ]  # fmt: skip


def _rejected(report: Report) -> list[str]:
    if not report.rejected:
        return [page.paragraph("None.")]
    rows = [
        (each.reason, each.meaning.replace("`", ""), f"{each.files:,}", say_size(each.bytes))
        for each in report.rejected
    ]
    examples = [
        (Path(path).name, f"{each.reason}: {detail}") for each in report.rejected for path, detail in each.examples
    ]
    return [
        page.table(["reason", "meaning", "files", "size"], rows, numeric_from=2),
        page.details("Examples", page.table(["file", "what was found"], examples, numeric_from=2)),
    ]


def _selection(report: Report) -> list[str]:
    found = report.selection
    rows = [
        (each.code, each.meaning.replace("`", ""), f"{each.tracks:,}", say_hours(each.duration))
        for each in found.groups
    ]
    examples = [(Path(path).name, each.code) for each in found.groups for path in each.examples]
    thresholds = page.table(["[select] in mousai.toml", "value"], _thresholds(found.thresholds))
    if not rows:
        return [page.paragraph("Nothing."), page.details("The thresholds", thresholds)]
    return [
        page.paragraph(
            f"{found.left_out:,} tracks, {say_hours(found.left_out_duration)}; {found.tracks:,} tracks, "
            f"{say_hours(found.duration)}, remain. A track that is left out for two reasons counts under both."
        ),
        page.table(["code", "meaning", "tracks", "music"], rows, numeric_from=2),
        page.details("Examples", page.table(["file", "code"], examples, numeric_from=2)),
        page.details("The thresholds", thresholds),
    ]


def _thresholds(settings: Mapping[str, float | tuple[str, ...] | None]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, tuple):
            yield name, ", ".join(value) or "any"
        elif isinstance(value, bool):
            yield name, str(value).lower()
        else:
            yield name, "off" if value is None else f"{value:g}"


def _split(split: Split) -> list[str]:
    sides = (split.train, split.val)
    rows: Sequence[tuple[str, ...]] = [
        ("music in chunks", *(say_hours(side.duration) for side in sides)),
        ("share", *(f"{side.duration / max(1e-9, sum(each.duration for each in sides)):.1%}" for side in sides)),
        ("tracks", *(f"{side.tracks:,}" for side in sides)),
        ("chunks", *(f"{side.chunks:,}" for side in sides)),
        ("shards", *(f"{side.shards:,}" for side in sides)),
        ("groups of artists and albums", *(f"{side.groups:,}" for side in sides)),
    ]
    return [
        page.table(["", "training", "validation"], rows),
        page.facts([
            ("skipped: in no chunk", say_hours(split.skipped)),
            ("overlapping: in two chunks", say_hours(split.overlapped)),
            ("featured artists on both sides", f"{split.crossing_artists:,}"),
            ("tracks not planned yet", f"{split.unplanned:,}"),
        ]),
        *_balance(split),
    ]  # fmt: skip


def _balance(split: Split) -> list[str]:
    """Genres of the training tracks beside those of the held-out ones."""
    rows = [(each.name, [each.train, each.val], f"{each.train:.1%} / {each.val:.1%}") for each in split.genres]
    if not rows:
        return []
    return [
        page.paragraph("Genres as parts of the hours of each split. Validation takes whole artists and albums."),
        charts.key("training", "validation"),
        charts.bars(rows),
    ]


def _stored(report: Report) -> list[str]:
    def line(name: str, stored: Stored) -> tuple[str, ...]:
        counts = f"{stored.shards:,}", f"{stored.chunks:,}", f"{stored.failed:,}"
        return name, *counts, say_hours(stored.duration), say_size(stored.bytes)

    kinds = (("audio", report.shards), ("latents", report.latents))
    rows = [line(name, stored) for name, stored in kinds if stored]
    return [page.table(["", "tars", "chunks", "failed", "music", "size"], rows)] if rows else []


def _prompts(report: Report) -> list[str]:
    keywords = [(name, [float(count)], f"{count:,}") for name, count in report.keywords[:20]]
    return [
        *(
            [
                page.paragraph("Prompts as training draws them:"),
                page.table(["prompt"], [[each] for each in report.prompts]),
            ]
            if report.prompts
            else []
        ),
        *(
            [page.paragraph("The most frequent keywords, and the tracks that have them:"), charts.bars(keywords)]
            if keywords
            else []
        ),
    ]
