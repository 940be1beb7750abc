"""What is wrong with a set of images, found from what `measure` saw of them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from imgclf.data.formats import FORMATS, format_named
from imgclf.data.hashes import near_groups
from imgclf.data.measured import BRIGHT, DARK, Measured

NEAR = 6
"""Two images are nearly the same if at most so many of the 64 bits of their hashes differ.

Copies encoded anew or scaled differ in 4 at most, brighter ones mostly in 6, those that lost 2 % at
each side in up to 12. Of a million pairs of unrelated photographs none differs in 8 or fewer.
"""
SMALLEST_COMPARED = 32
"""Below so many px a hash says little: 365 pairs of scikit-learn's 1,797 digits would be near."""
SMALLEST = 32
"""A shorter side below so many px is odd, if others are twice as large."""
LONGEST = 3.0
"""A longer side above so many times the shorter one is odd."""
FARTHEST = 16.0
"""An area so many times above or below the median is odd."""
ONE_LEVEL = 0.95
"""An image is near-empty if this share of it has one grey level, to within 2."""
MOSTLY = 0.9
"""An image is dark or over-exposed if this share of its pixels is so."""
BLURRED = 0.02
"""An image is blurred if its Laplacian varies by less than this share of what its grey does."""
FEW = 10
"""A class with fewer examples is named."""

KINDS = {
    "leak": "the same image on both sides",
    "near leak": f"on both sides, hashes at most {NEAR} of 64 bits apart",
    "conflict": "the same image, or nearly, under different labels",
    "unreadable": "cannot be decoded",
    "truncated": "the file ends before its image does",
    "mistyped": "the content is of another format than the name says",
    "duplicate": "the same pixels",
    "near-duplicate": f"hashes at most {NEAR} of 64 bits apart",
    "odd size": f"under {SMALLEST} px, over {LONGEST:g}:1, or {FARTHEST:g} times off the median",
    "near-empty": f"{ONE_LEVEL:.0%} of one grey level",
    "dark": f"{MOSTLY:.0%} of the pixels below {DARK}",
    "over-exposed": f"{MOSTLY:.0%} of the pixels at {BRIGHT} or above",
    "blurred": f"the Laplacian varies by less than {BLURRED:g} of the grey's variance",
}
"""Every kind of finding and when it is made, the gravest first."""

_PIXELS = ("mean", "one_level", "dark", "bright", "sharpness")


Members = tuple[tuple[Measured, int], ...]


@final
@dataclass(frozen=True)
class Finding:
    """Something wrong with an image, or with several that belong together."""

    kind: str
    """One of `KINDS`."""
    images: Members
    """Which images: of what, and the index there."""
    said: str
    """What was seen, in a line."""


def findings(measured: Measured) -> list[Finding]:
    """All that is wrong within one source, the gravest kinds first."""
    found = [*_of_files(measured), *_of_sizes(measured), *_of_pixels(measured)]
    for kind, members, said in _alike([measured]):
        labels = sorted({each.label(i) for each, i in members})
        if len(labels) > 1:
            found.append(Finding("conflict", members, f"{said}; labelled {', '.join(labels)}"))
        else:
            found.append(Finding(kind, members, said))
    kinds = list(KINDS)
    return sorted(found, key=lambda finding: kinds.index(finding.kind))


def leaks(a: Measured, b: Measured) -> list[Finding]:
    """The images that are in both of two sources, the same or nearly."""
    found = []
    for kind, members, said in _alike([a, b]):
        if len({id(each) for each, _ in members}) == 2:
            labels = sorted({each.label(i) for each, i in members})
            more = f"; labelled {', '.join(labels)}" if len(labels) > 1 else ""
            leak = "leak" if kind == "duplicate" else "near leak"
            found.append(Finding(leak, members, said + more))
    return sorted(found, key=lambda finding: finding.kind)


def as_json(parts: Sequence[Measured], found: Sequence[Finding]) -> dict[str, Any]:
    """All of a check as plain values: what was looked at, what was found, by which rules."""
    return {
        "parts": {
            part.name: {
                "images": len(part.rows),
                "classes": (counts := part.counts()),
                "least": min(counts.values()),
                "greatest": max(counts.values()),
                "fewer_than_10": [name for name, count in counts.items() if count < FEW],
            }
            for part in parts
        },
        "kinds": KINDS,
        "findings": [
            {
                "kind": finding.kind,
                "said": finding.said,
                "images": [
                    {"part": each.name, "id": each.ids[i], "label": each.label(i)}
                    for each, i in finding.images
                ],
            }
            for finding in found
        ],
    }


def _of_files(measured: Measured) -> Iterator[Finding]:
    rows = measured.rows
    for i in np.flatnonzero(rows["cut"] | ~rows["readable"]).tolist():
        reason = measured.reasons.get(i, "it can be decoded all the same")
        if rows["cut"][i]:
            said = f"the {FORMATS[rows['format'][i]]} ends too early: {reason}"
            yield Finding("truncated", ((measured, i),), said)
        else:
            yield Finding("unreadable", ((measured, i),), reason)
    for i in np.flatnonzero(rows["format"]).tolist():
        kind, named = FORMATS[rows["format"][i]], format_named(measured.ids[i])
        if named and kind != named:
            yield Finding("mistyped", ((measured, i),), f"named as {named}, but it is a {kind}")


def _of_sizes(measured: Measured) -> Iterator[Finding]:
    height, width = measured.rows["height"], measured.rows["width"]
    seen = measured.rows["readable"]
    shorter, longer = np.minimum(height, width), np.maximum(height, width)
    area = height.astype(np.float64) * width / np.median((height.astype(np.float64) * width)[seen])
    tiny = (shorter < SMALLEST) & (2 * shorter <= np.median(shorter[seen]))
    long = longer > LONGEST * shorter
    far = (area < 1 / FARTHEST) | (area > FARTHEST)
    for i in np.flatnonzero(seen & (tiny | long | far)).tolist():
        reasons = ["tiny"] if tiny[i] else []
        if long[i]:
            reasons.append(f"{longer[i] / shorter[i]:.1f} times as long as short")
        if far[i]:
            reasons.append(f"{area[i]:.3g} times the median area")
        said = f"{width[i]:,} x {height[i]:,}: {', '.join(reasons)}"
        yield Finding("odd size", ((measured, i),), said)


def _of_pixels(measured: Measured) -> Iterator[Finding]:
    rows = measured.rows
    empty = rows["one_level"] >= ONE_LEVEL
    told = rows["readable"] & ~empty
    for kind, chosen, said in (
        ("near-empty", rows["readable"] & empty, "{one_level:.1%} of one grey level"),
        ("dark", told & (rows["dark"] >= MOSTLY), "{dark:.1%} dark, mean {mean:.0f}"),
        ("over-exposed", told & (rows["bright"] >= MOSTLY), "{bright:.1%} bright, mean {mean:.0f}"),
        ("blurred", told & (rows["sharpness"] < BLURRED), "sharpness {sharpness:.4f}"),
    ):
        for i in np.flatnonzero(chosen).tolist():
            values = {name: rows[name][i].item() for name in _PIXELS}
            yield Finding(kind, ((measured, i),), said.format(**values))


def _alike(parts: Sequence[Measured]) -> Iterator[tuple[str, Members, str]]:
    """Groups of images that are the same, then of those that are nearly so."""
    rows = np.concatenate([part.rows for part in parts])
    starts = np.cumsum([0, *(len(part.rows) for part in parts)])

    def members(places: np.ndarray) -> Members:
        which = np.searchsorted(starts, places, "right") - 1
        inside = (places - starts[which]).tolist()
        return tuple((parts[part], i) for part, i in zip(which.tolist(), inside, strict=True))

    seen = np.flatnonzero(rows["readable"])
    pairs = rows["digest"][seen]
    order = np.lexsort((seen, pairs[:, 1], pairs[:, 0]))
    new = np.ones(len(seen), bool)
    new[1:] = (np.diff(pairs[order].astype(np.int64), axis=0) != 0).any(1)
    firsts = np.flatnonzero(new)
    counts = np.diff([*firsts, len(seen)])
    for first, count in zip(firsts[counts > 1], counts[counts > 1], strict=True):
        said = f"{count} with the same pixels"
        yield "duplicate", members(seen[order[first : first + count]]), said

    once = np.sort(seen[order[firsts]])
    told = rows["one_level"][once] < ONE_LEVEL
    told &= np.minimum(rows["height"], rows["width"])[once] >= SMALLEST_COMPARED
    once = once[told]
    for group, least, most in near_groups(rows["hash"][once], NEAR):
        span = f"{least}" if least == most else f"{least} to {most}"
        yield "near-duplicate", members(once[group]), f"hashes {span} of 64 bits apart"


def total(found: Sequence[Finding], kind: str, part: Measured) -> int:
    """How many images of `part` the findings of a kind are about."""
    of_kind = itertools.chain.from_iterable(f.images for f in found if f.kind == kind)
    return len({i for each, i in of_kind if each is part})
