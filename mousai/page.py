"""Pages to look at and listen to: one HTML file that holds its pictures and its sound and asks nothing of the network.

Every block is a string of HTML made by a function here; `write_page` puts blocks together. Text is escaped.
"""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import soundfile

from mousai import charts
from mousai.progress import clock
from mousai.storage import publish

_PLAYED = {("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")}
_MARKS = {True: ("pass", "M3 8.6l3.4 3.4L13 4.4"), False: ("fail", "M4 4l8 8M12 4l-8 8")}

# The browser enforces what this file promises: nothing is loaded, and no script runs.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f7; --card: #fff; --ink: #24292e; --soft: #6a7178; --line: #e4e1dc; --accent: #2f6f73;
  --second: #c08a3e;
  --pass: #2c7a4b; --fail: #b3402f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --card: #1e2125; --ink: #dfe2e5; --soft: #979ea6; --line: #30353b; --accent: #7fbfbf;
    --second: #d9a860;
    --pass: #74c292; --fail: #e58d7c;
  }
  img { filter: brightness(.88); }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  -webkit-text-size-adjust: 100%; overflow-wrap: anywhere;
}
main { max-width: 56rem; margin: 0 auto; padding: clamp(1.5rem, 5vw, 4rem) clamp(1rem, 4vw, 2rem) 5rem; }
h1, h2 { line-height: 1.25; font-weight: 600; letter-spacing: -.01em; text-wrap: balance; }
h1 { margin: 0; font-size: clamp(1.6rem, 5vw, 2.2rem); }
h2 { margin: 3rem 0 .75rem; font-size: 1.25rem; }
p { margin: 1rem 0; max-width: 42rem; }
.lead { margin: .75rem 0 2.25rem; font-size: 1.1rem; color: var(--soft); }
.card, .facts > div, details, .player { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.facts { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); margin: 1.25rem 0; }
.facts > div { display: flex; flex-direction: column; justify-content: space-between; padding: .7rem .9rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: .1rem 0 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; overflow-wrap: normal; }
th, td { padding: .5rem .9rem .5rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-size: .8rem; font-weight: 500; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.25rem 0; }
img { display: block; width: 100%; height: auto; border-radius: .5rem; }
figcaption { margin-top: .45rem; color: var(--soft); font-size: .87rem; }
.player { padding: .8rem .9rem .9rem; }
.player audio { display: block; width: 100%; height: 2.5rem; margin-top: .6rem; }
.title { display: flex; justify-content: space-between; gap: 1rem; font-weight: 500; line-height: 1.4; }
.title time { flex: none; color: var(--soft); font-weight: 400; font-variant-numeric: tabular-nums; }
.grid {
  display: grid; gap: 1rem; margin: 1.25rem 0; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
}
.card { padding: 1rem; min-width: 0; height: 100%; }
.card > :first-child { margin-top: 0; }
.card > :last-child { margin-bottom: 0; }
.card .player { border: 0; padding: 0; background: none; }
details { margin: 1.25rem 0; padding: .7rem 1rem; }
summary { cursor: pointer; font-weight: 500; color: var(--accent); }
.verdict { display: flex; gap: .65rem; margin: .6rem 0; }
.verdict svg { flex: none; width: 1.05rem; height: 1.6rem; fill: none; stroke-width: 2; stroke-linecap: round;
  stroke-linejoin: round; }
.pass svg { stroke: var(--pass); }
.fail svg { stroke: var(--fail); }
.note { padding: .6rem .9rem; border-left: 3px solid var(--second); background: var(--card); border-radius: .2rem; }
.contents { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .93rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
@media print { body { background: none; } audio { display: none !important; } }
"""


def paragraph(text: str) -> str:
    """Running text."""
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """What the reader should not overlook."""
    return f'<p class="note">{escape(text)}</p>'


def heading(text: str) -> str:
    """The title of a section, which `contents` links to."""
    return f'<h2 id="{_anchor(text)}">{escape(text)}</h2>'


def contents(headings: Iterable[str]) -> str:
    """Links to the sections with these headings."""
    links = (f'<a href="#{_anchor(text)}">{escape(text)}</a>' for text in headings)
    return f'<nav class="contents">{"".join(links)}</nav>'


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, numeric_from: int = 1) -> str:
    """A table; columns from `numeric_from` on hold numbers and are aligned to the right. None is an empty cell."""

    def line(tag: str, cells: Sequence[object]) -> str:
        kinds = ["" if i < numeric_from else ' class="number"' for i in range(len(cells))]
        texts = ["" if cell is None else escape(str(cell)) for cell in cells]
        joined = "".join(f"<{tag}{kind}>{text}</{tag}>" for kind, text in zip(kinds, texts, strict=True))
        return f"<tr>{joined}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table><thead>{line("th", headers)}</thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """(label, value) tiles."""
    tiles = (f"<div><dt>{escape(label)}</dt><dd>{escape(str(value))}</dd></div>" for label, value in pairs)
    return f'<dl class="facts">{"".join(tiles)}</dl>'


def picture(png: Path | bytes, alt: str, caption: str = "") -> str:
    """A PNG: its path, or its bytes."""
    content = png if isinstance(png, bytes) else png.read_bytes()
    image = f'<img src="{_data_url("image/png", content)}" alt="{escape(alt)}">'
    return _figure("picture", image, caption)


def player(path: Path, title: str, caption: str = "") -> str:
    """The sound at `path` with the browser's own controls: FLAC and Ogg as they are, 16-bit WAV as FLAC.

    ValueError for other audio.
    """
    with soundfile.SoundFile(path) as sound:
        if (sound.format, sound.subtype) not in _PLAYED:
            raise ValueError(f"{path} is {sound.format} with {sound.subtype}, not 16-bit WAV or FLAC, nor Ogg Vorbis")
        duration = clock(sound.frames / sound.samplerate)
        kind = "audio/ogg" if sound.format == "OGG" else "audio/flac"
        content = _flac(sound) if sound.format == "WAV" else path.read_bytes()
    name = f'<div class="title"><span>{escape(title)}</span><time>{duration}</time></div>'
    source = _data_url(kind, content)
    return _figure("player", f'{name}<audio controls preload="none" src="{source}"></audio>', caption)


def details(summary: str, *blocks: str) -> str:
    """Blocks that are hidden until `summary` is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(blocks)}</details>"


def grid(*blocks: str) -> str:
    """Blocks as cards side by side, as many as the width allows."""
    cards = (f'<div class="card">{block}</div>' for block in blocks)
    return f'<div class="grid">{"".join(cards)}</div>'


def verdict(ok: bool, text: str) -> str:
    """A line with a mark: passed or failed."""
    name, path = _MARKS[ok]
    mark = f'<svg viewBox="0 0 16 16" role="img" aria-label="{name}"><path d="{path}"/></svg>'
    return f'<p class="verdict {name}">{mark}<span>{escape(text)}</span></p>'


def write_page(path: Path, title: str, lead: str, blocks: Iterable[str]) -> None:
    """Publish the page at `path`: its title, a sentence or two in larger type, then the blocks."""
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{charts.STYLE}</style>\n</head>\n<body>\n<main>",
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>',
        *blocks,
        "</main>\n</body>\n</html>\n",
    ]
    with publish(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _figure(kind: str, content: str, caption: str) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{content}{below}</figure>'


def _flac(sound: soundfile.SoundFile) -> bytes:
    """An open 16-bit file as the bytes of a FLAC file, sample by sample the same."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.read(dtype="int16"), sound.samplerate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
