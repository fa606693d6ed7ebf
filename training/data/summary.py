"""What a cache holds, as one HTML file to look at."""

from __future__ import annotations

import base64
import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.data.cache import Entry, Manifest, write_text
from training.data.shards import thumbnails

_SHOWN_CLIPS, _SHOWN_REJECTS = 60, 2000
_BARS = 12
_STYLE = """
:root { --ink: #1c1c1e; --quiet: #65656b; --line: #e3e3e0; --paper: #fafaf8; --bar: #4a7ba6; --other: #c98a3c; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 4px 0; } .quiet { color: var(--quiet); font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 16px; }
.tile, .chart, .clip { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 24px; font-weight: 600; line-height: 1.2; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 12px;
  align-items: start; }
.chart h3 { font-size: 14px; margin: 0 0 6px; font-weight: 600; } svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; background: #fff; border: 1px solid var(--line); font-size: 13px; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
table.counts { width: auto; min-width: 320px; margin-bottom: 12px; }
td { overflow-wrap: anywhere; } td.number { text-align: right; font-variant-numeric: tabular-nums; width: 70px; }
td.name { width: 28%; } td.reason { width: 130px; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); gap: 12px; }
.clip .pictures { display: flex; gap: 6px; height: 96px; overflow: hidden; }
.clip img { height: 96px; width: auto; min-width: 0; border-radius: 4px; border: 1px solid var(--line);
  object-fit: cover; }
.clip .id { font-weight: 600; overflow-wrap: anywhere; margin-top: 6px; }
.held { background: var(--other); color: #fff; font-size: 11px; border-radius: 4px; padding: 1px 6px;
  margin-left: 6px; }
"""


def write_summary(path: Path, manifest: Manifest, folder: Path) -> None:
    """Write the page; it loads nothing from anywhere.

    Args:
        folder: the cache's, whose shards hold the thumbnails.

    Raises:
        SlotIDError: the folder can't be written, or a shard can't be read.
    """
    entries = manifest.entries
    body = [_head(manifest), _charts(entries), _coverage(entries), _rejects(manifest), _clips(entries, folder)]
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Training cache</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n",
    )


def _head(manifest: Manifest) -> str:
    facts = manifest.facts
    minutes = facts["target_seconds"] / 60
    tiles = [
        (f"{facts['usable']} of {facts['videos']}", "videos are usable"),
        (str(facts["people"]), "people"),
        (str(len(facts["held_out_people"])), f"people held out, with {facts['held_out_clips']} clips"),
        (f"{minutes:.1f} min" if minutes >= 2 else f"{facts['target_seconds']:.1f} s", "of targets"),
        (str(sum(facts["rejected"].values())), "videos are left out"),
        (str(facts["captions_cut"]), "captions were cut"),
    ]
    shown = "".join(f'<div class="tile"><b>{_text(big)}</b>{_text(small)}</div>' for big, small in tiles)
    models = ", ".join(
        f"{name.removeprefix('model.')} {digest:.12}" for name, digest in sorted(facts["models"].items())
    )
    windows = ", ".join(f"{count} {kind}" for kind, count in facts["windows"].items()) or "none"
    return (
        f'<h1>Training cache</h1><p class="quiet">Faces found by {_text(facts["faces"])}; models: {_text(models)}. '
        f"Reference and target windows: {_text(windows)}.</p>"
        f'<div class="tiles">{shown}</div>'
    )


def _charts(entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    fps_frames = Counter(f"{4 * e.target_shape[0] - 3} frames" for e in entries)
    sizes = Counter(f"{8 * e.target_shape[2]} x {8 * e.target_shape[1]}" for e in entries)
    people = Counter(e.person for e in entries)
    per_person = Counter(f"{n} clip{'s' if n > 1 else ''}" for n in sorted(people.values()))
    charts = [
        _chart("Target lengths", _counted(fps_frames)),
        _chart("Target sizes (pixels)", _counted(sizes)),
        _chart("Reference and target windows", _counted(Counter(e.windows for e in entries))),
        _chart("Clips of a person", list(per_person.items())[:_BARS]),
        _chart("Text tokens", _histogram([e.text_tokens for e in entries])),
    ]
    return f'<h2>Clips</h2><div class="charts">{"".join(charts)}</div>'


def _coverage(entries: Sequence[Entry]) -> str:
    """What the references show: from one side to the other of each range, as people turn, open their mouths ..."""
    asked = [
        ("Turned to the left at most (degrees)", lambda c: c["yaw"] and max(0.0, -c["yaw"][0])),
        ("Turned to the right at most (degrees)", lambda c: c["yaw"] and max(0.0, c["yaw"][1])),
        ("Mouth open at most (0 to 1)", lambda c: c["mouth_open"] and c["mouth_open"][1]),
        ("Smile at most (0 to 1)", lambda c: c["smile"] and c["smile"][1]),
        ("Face size, middle (pixels)", lambda c: sum(c["size_px"]) / 2),
        ("Face brightness, middle (0 to 1)", lambda c: sum(c["brightness"]) / 2),
    ]
    charts = []
    for title, read in asked:
        values = [value for e in entries if e.coverage and (value := read(e.coverage)) is not None]
        if values:
            charts.append(_chart(title, _histogram(values)))
    return f'<h2>What the references show</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def _counted(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_BARS]


def _histogram(values: Sequence[float]) -> list[tuple[str, int]]:
    low, high = min(values), max(values)
    if low == high:
        return [(f"{low:.3g}", len(values))]
    step = (high - low) / _BARS
    bins = Counter(min(int((value - low) / step), _BARS - 1) for value in values)
    digits = max(0, 1 - math.floor(math.log10(high - low)))
    return [(f"{low + step * n:.{digits}f}", bins[n]) for n in range(_BARS)]


def _chart(title: str, bars: Sequence[tuple[str, int]]) -> str:
    """Upright bars for histograms and lying ones for a few names, as inline SVG."""
    most = max(count for _, count in bars)
    lying = len(bars) < _BARS
    parts = []
    if lying:
        height = 24 * len(bars) + 4
        for row, (label, count) in enumerate(bars):
            y, width = 24 * row + 4, 130 * count / most
            parts.append(f'<text x="98" y="{y + 13}" text-anchor="end">{_text(label)}</text>')
            parts.append(f'<rect x="104" y="{y}" width="{max(width, 1):.1f}" height="17" rx="2"/>')
            parts.append(f'<text x="{110 + width:.1f}" y="{y + 13}">{count}</text>')
    else:
        height = 116
        for column, (label, count) in enumerate(bars):
            x, tall = 6 + 22 * column, 78 * count / most
            parts.append(f'<rect x="{x}" y="{96 - tall:.1f}" width="18" height="{tall:.1f}" rx="2"/>')
            if count:
                parts.append(f'<text x="{x + 9}" y="{92 - tall:.1f}" text-anchor="middle">{count}</text>')
            if column % 3 == 0:
                parts.append(f'<text x="{x}" y="111">{_text(label)}</text>')
    return (
        f'<div class="chart"><h3>{_text(title)}</h3><svg viewBox="0 0 275 {height}" font-size="11" fill="#4a7ba6">'
        f"<style>text {{ fill: #65656b }}</style>{''.join(parts)}</svg></div>"
    )


def _rejects(manifest: Manifest) -> str:
    rejects = manifest.rejects
    if not rejects:
        return '<h2>Left out</h2><p class="quiet">Nothing.</p>'
    reasons = _table(
        "counts",
        ("Reason", "Videos"),
        (
            f'<td>{_text(reason)}</td><td class="number">{count}</td>'
            for reason, count in sorted(manifest.facts["rejected"].items(), key=lambda item: (-item[1], item[0]))
        ),
    )
    rows = _table(
        "all",
        ("Video", "Reason", "Why"),
        (
            f'<td class="name">{_text(r.id)}</td><td class="reason">{_text(r.reason)}</td><td>{_text(r.detail)}</td>'
            for r in rejects[:_SHOWN_REJECTS]
        ),
    )
    more = len(rejects) - _SHOWN_REJECTS
    rest = f'<p class="quiet">{more} more are in rejects.json.</p>' if more > 0 else ""
    return f"<h2>Left out</h2>{reasons}{rows}{rest}"


def _table(kind: str, names: Iterable[str], rows: Iterable[str]) -> str:
    heads = "".join(f"<th>{_text(name)}</th>" for name in names)
    return f'<table class="{kind}"><tr>{heads}</tr>' + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _clips(entries: Sequence[Entry], folder: Path) -> str:
    if not entries:
        return ""
    # Evenly over the whole cache: the first ones would be of a few people.
    count = min(_SHOWN_CLIPS, len(entries))
    shown = [entries[n * len(entries) // count] for n in range(count)]
    cards = "".join(_card(entry, thumbnails(folder, entry.shard, entry.index)) for entry in shown)
    title = "Clips to look at" if count < len(entries) else "All clips"
    return (
        f'<h2>{title}</h2><p class="quiet">Reference as it is, portrait, target; the middle frame of each.</p>'
        f'<div class="clips">{cards}</div>'
    )


def _card(entry: Entry, pictures: dict[str, bytes]) -> str:
    images = "".join(
        f'<img alt="{name}" title="{name}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        for name, jpeg in pictures.items()
    )
    held = '<span class="held">held out</span>' if entry.held_out else ""
    (a, b), (c, d) = entry.reference_seconds, entry.target_seconds
    lacks = "; ".join(sentence.split(":")[0] for sentence in (entry.coverage or {"missing": []})["missing"])
    return (
        f'<div class="clip"><div class="pictures">{images}</div><div class="id">{_text(entry.id)}{held}</div>'
        f'<p class="quiet">{_text(entry.person)} &middot; reference {a:.2f}&ndash;{b:.2f} s, '
        f"target {c:.2f}&ndash;{d:.2f} s ({_text(entry.windows)})</p><p>{_text(_short(entry.caption))}</p>"
        + (f'<p class="quiet">Lacks: {_text(lacks)}</p>' if lacks else "")
        + "</div>"
    )


def _short(text: str) -> str:
    return text if len(text) <= 220 else text[:217] + "..."


def _text(text: str) -> str:
    return html.escape(str(text))
