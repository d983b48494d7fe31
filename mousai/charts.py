"""Charts for `page.py`: bars and histograms as HTML and SVG that follow the page's colours, light and dark.

No script and no picture files: a chart is text, a few kB, sharp at any size. Text is escaped.
"""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
.bars { display: grid; grid-template-columns: minmax(5rem, 13rem) minmax(3rem, 1fr) max-content; gap: .3rem .9rem;
  margin: 1.25rem 0; font-size: .93rem; }
.bars > div { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center; }
.bars dt { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars dd { margin: 0; }
.bars .number { color: var(--soft); font-size: .87rem; }
@media (max-width: 36rem) {  /* the bar below its label, as wide as the page */
  .bars { grid-template-columns: minmax(0, 1fr) max-content; row-gap: .5rem; }
  .bars dd:not(.number) { grid-area: 2 / 1 / 3 / 3; }
}
.bar { display: block; height: .6rem; margin: .1rem 0; border-radius: 0 .2rem .2rem 0; background: var(--accent);
  min-width: 1px; }
.bar + .bar, .key.second i { background: var(--second); }
.key { margin-right: 1.2rem; font-size: .87rem; color: var(--soft); }
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: .15rem;
  background: var(--accent); }
.histogram svg { display: block; width: 100%; height: 7rem; fill: var(--accent); border-bottom: 1px solid var(--soft); }
.histogram rect:hover { fill: var(--ink); }
.ticks { display: flex; justify-content: space-between; color: var(--soft); font-size: .8rem;
  font-variant-numeric: tabular-nums; }
.histogram h3 { margin: 0 0 .6rem; font-size: .93rem; font-weight: 500; line-height: 1.3; }
.histogram small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400; }
"""


def bars(rows: Iterable[tuple[str, Sequence[float], str]]) -> str:
    """A row of (label, values, text) each: one bar a value, as long as its part of the largest, then the text."""
    rows = list(rows)
    top = max((value for _, values, _ in rows for value in values), default=0.0) or 1.0
    lines = []
    for label, values, text in rows:
        drawn = "".join(f'<span class="bar" style="width:{100 * value / top:.2f}%"></span>' for value in values)
        shown = escape(label)
        texts = f'<dt title="{shown}">{shown}</dt><dd>{drawn}</dd><dd class="number">{escape(text)}</dd>'
        lines.append(f"<div>{texts}</div>")
    return f'<dl class="bars">{"".join(lines)}</dl>'


def key(first: str, second: str) -> str:
    """What the first and the second bar of a row are."""
    return (
        f'<p><span class="key"><i></i>{escape(first)}</span><span class="key second"><i></i>{escape(second)}</span></p>'
    )


def histogram(title: str, note: str, counts: Sequence[int], labels: Sequence[str], ticks: Sequence[str]) -> str:
    """Upright bars for `counts`; hovering over one shows its label. `ticks` stand evenly below, first to last edge."""
    top = max(counts, default=0) or 1
    drawn = "".join(
        f'<rect x="{i + 0.06:.2f}" y="{100 - 100 * count / top:.2f}" width="0.88" height="{100 * count / top:.2f}">'
        f"<title>{escape(label)}</title></rect>"
        for i, (count, label) in enumerate(zip(counts, labels, strict=True))
        if count
    )
    below = "".join(f"<span>{escape(tick)}</span>" for tick in ticks)
    small = f"<small>{escape(note)}</small>" if note else ""
    return (
        f'<figure class="histogram"><h3>{escape(title)}{small}</h3>'
        f'<svg viewBox="0 0 {len(counts)} 100" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'{drawn}</svg><div class="ticks">{below}</div></figure>'
    )
