"""A check as one self-contained page: a table, plots, and thumbnails of what was found."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np

from imgclf.data.check import FEW, KINDS, Finding, total
from imgclf.data.check_plots import plots
from imgclf.data.decode import BadImage, decode
from imgclf.data.measured import Measured
from imgclf.data.plan import scaled

SHOWN = 60
"""So many findings of a kind are shown with thumbnails, ..."""
NAMED = 1000
"""... so many more by name; all are in the JSON file."""
TOGETHER = 12
"""So many images of one finding are shown."""
_THUMBNAIL = 160

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; color: #1c1e21; background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0; }
.quiet { color: #5d636b; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .95rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e3e5e8; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.none td { color: #9aa0a6; }
a { color: #0b57d0; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
.plots img { width: 100%; max-width: 36rem; height: auto; }
.findings { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .8rem;
  align-items: flex-start; }
.finding { border: 1px solid #e3e5e8; border-radius: .5rem; padding: .6rem; max-width: 100%; }
.finding p { font-size: .85rem; max-width: 22rem; overflow-wrap: anywhere; }
.images { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; width: 160px; }
figure .frame { height: 120px; display: flex; align-items: center; justify-content: center;
  background: #f1f3f4; border-radius: .3rem; overflow: hidden; color: #5d636b; font-size: .8rem; }
figure img { max-width: 100%; max-height: 100%; }
figcaption { font-size: .8rem; line-height: 1.35; margin-top: .3rem; overflow-wrap: anywhere; }
figcaption b { display: block; font-weight: 600; }
li { overflow-wrap: anywhere; font-size: .85rem; }
"""


def page(title: str, parts: Sequence[Measured], found: Sequence[Finding]) -> str:
    """The HTML of a check: no scripts, no other files."""
    pictures = "".join(
        f'<img src="data:image/png;base64,{_base64(png)}" alt="{html.escape(alt)}">'
        for png, alt in plots(parts)
    )
    sections = "".join(_section(kind, found) for kind in KINDS)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}: a check of the images</title><style>{_STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1>{_overview(parts)}{_summary(parts, found)}"
        f'<div class="plots">{pictures}</div>{sections}</body></html>\n'
    )


def _overview(parts: Sequence[Measured]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in map(overview, parts))


def overview(part: Measured) -> str:
    """One line on a source: how many images, of what sizes, how even the classes are."""
    counts = part.counts()
    least, greatest = min(counts.values()), max(counts.values())
    ratio = f", {greatest / least:.3g} to 1" if least and least != greatest else ""
    seen = part.rows[part.rows["readable"]]
    sizes = [
        f"{seen[side].min():,}" + (f" to {most:,}" if (most := seen[side].max()) > low else "")
        for side in ("width", "height")
        for low in (seen[side].min(),)
    ]
    few = sum(count < FEW for count in counts.values())
    some = f"; fewer than {FEW} in {few:,} of them" if few else ""
    span = f"{least:,}" if least == greatest else f"{least:,} to {greatest:,}"
    return (
        f"{part.name}: {len(part.rows):,} images of {sizes[0]} x {sizes[1]} px, {len(counts):,} "
        f"classes of {span}{ratio}{some}"
    )


def _summary(parts: Sequence[Measured], found: Sequence[Finding]) -> str:
    heads = "".join(f'<th class="number">{html.escape(part.name)}</th>' for part in parts)
    lines = []
    for kind, meaning in KINDS.items():
        numbers = [total(found, kind, part) for part in parts]
        cells = "".join(f'<td class="number">{number or "&ndash;":}</td>' for number in numbers)
        name = f'<a href="#{_anchor(kind)}">{kind}</a>' if any(numbers) else kind
        row = "<tr>" if any(numbers) else '<tr class="none">'
        lines.append(f"{row}<td>{name}</td>{cells}<td>{html.escape(meaning)}</td></tr>")
    return (
        f'<div class="wide"><table><thead><tr><th>images</th>{heads}<th></th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _section(kind: str, found: Sequence[Finding]) -> str:
    chosen = [finding for finding in found if finding.kind == kind]
    if not chosen:
        return ""
    cards = "".join(map(_card, chosen[:SHOWN]))
    names = [
        f"<li>{html.escape(', '.join(f'{part.name}/{part.ids[i]}' for part, i in each.images))}: "
        f"{html.escape(each.said)}</li>"
        for each in chosen[SHOWN : SHOWN + NAMED]
    ]
    more = f"<details><summary>{len(names):,} more</summary><ul>{''.join(names)}</ul></details>"
    left = len(chosen) - SHOWN - NAMED
    return (
        f'<section id="{_anchor(kind)}"><h2>{kind} ({len(chosen):,})</h2>'
        f'<p class="quiet">{html.escape(KINDS[kind])}</p><div class="findings">{cards}</div>'
        f"{more if names else ''}"
        f"{f'<p>{left:,} more are in check.json.</p>' if left > 0 else ''}</section>"
    )


def _card(finding: Finding) -> str:
    figures = "".join(_figure(part, i) for part, i in finding.images[:TOGETHER])
    left = len(finding.images) - TOGETHER
    more = f" ({left:,} more images are in check.json)" if left > 0 else ""
    said = html.escape(finding.said + more)
    return f'<div class="finding"><div class="images">{figures}</div><p>{said}</p></div>'


def _figure(part: Measured, i: int) -> str:
    name, label = html.escape(f"{part.name}/{part.ids[i]}"), html.escape(part.label(i))
    jpeg = thumbnail(part, i)
    frame = "no image"
    if jpeg:
        frame = f'<img src="data:image/jpeg;base64,{_base64(jpeg)}" alt="{name}, {label}">'
    return (
        f'<figure><div class="frame">{frame}</div>'
        f"<figcaption><b>{label}</b>{name}</figcaption></figure>"
    )


def thumbnail(part: Measured, i: int) -> bytes:
    """A small JPEG of example i; empty if it cannot be read."""
    from PIL import Image

    try:
        record = part.source.read(i)
        image = decode(record) if isinstance(record, bytes) else record
    except (BadImage, OSError):
        return b""
    if image.shape[2] not in (1, 3):
        image = image.mean(2, keepdims=True).astype(np.uint8)
    height, width = image.shape[:2]
    scale = _THUMBNAIL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = scaled(image, *size, "area" if scale < 1 else "nearest")
    file = io.BytesIO()
    Image.fromarray(small[..., 0] if small.shape[2] == 1 else small).save(file, "JPEG", quality=80)
    return file.getvalue()


def _anchor(kind: str) -> str:
    return kind.replace(" ", "-")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
