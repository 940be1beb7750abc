"""What tells that two images are the same, or nearly so."""

import hashlib
from collections.abc import Iterator

import numpy as np

_SIDE = 32
_KEPT = 8
_BANDS, _BITS = 4, 16
NEAREST = 2 * _BANDS - 1
"""The greatest distance that `near_pairs` finds."""
_AT_ONCE = 1 << 22

_PLACES = np.arange(_SIDE)
_COSINES = np.cos(np.pi * (2 * _PLACES + 1) * np.arange(_KEPT)[:, None] / (2 * _SIDE))


def digest(image_hwc: np.ndarray) -> tuple[int, int]:
    """128 bits of the SHA-256 of an image's shape and pixels: equal for equal images alone."""
    pixels = np.ascontiguousarray(image_hwc)
    found = hashlib.sha256(repr(pixels.shape).encode())
    found.update(pixels.data)
    return int.from_bytes(found.digest()[:8]), int.from_bytes(found.digest()[8:16])


def perceptual_hash(grey_hw: np.ndarray) -> int:
    """64 bits that stay nearly the same when an image is encoded anew, scaled or brightened.

    The DCT hash of Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", section 3.2: the image at 32 x 32, its 8 x 8 lowest cosine coefficients, and of each
    whether it is above their median, which is taken without the mean.
    """
    from PIL import Image

    small = Image.fromarray(grey_hw).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    coefficients = (_COSINES @ np.asarray(small, np.float64) @ _COSINES.T).reshape(-1)
    bits = coefficients > np.median(coefficients[1:])
    return int.from_bytes(np.packbits(bits).tobytes())


def near_pairs(hashes: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of uint64 `hashes` (n,) that differ in at most `most` bits (up to 7).

    Returns i, j and the distance (pairs,), i < j in the order of `hashes`, each pair once. Two that
    differ in 7 bits have one of four bands of 16 in which they differ by one bit or none, so only
    those that share a band, or nearly, are compared (multi-index hashing: Norouzi, Punjani and
    Fleet 2012, https://arxiv.org/abs/1307.2982).
    """
    if not 0 <= most <= NEAREST:
        raise ValueError(f"The `most` of `near_pairs` must be 0 to {NEAREST}; got {most}")
    found = [np.zeros((0, 3), np.int64)]
    for band in range(_BANDS):
        keys = ((hashes >> np.uint64(_BITS * band)) & np.uint64(2**_BITS - 1)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ordered = hashes[order]
        for first, second in _candidates(keys[order]):
            distance = np.bitwise_count(ordered[first] ^ ordered[second])
            near = distance <= most
            i, j = order[first[near]], order[second[near]]
            found.append(np.stack([np.minimum(i, j), np.maximum(i, j), distance[near]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1], pairs[:, 2]


def _candidates(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of ascending `keys` that differ in one bit or none, each two once, in portions."""
    places = np.arange(len(keys))
    for flipped in (0, *(1 << bit for bit in range(_BITS))):
        if flipped:
            firsts = np.flatnonzero(keys & flipped == 0)
            starts = np.searchsorted(keys, keys[firsts] | flipped, "left")
            stops = np.searchsorted(keys, keys[firsts] | flipped, "right")
        else:
            firsts, starts = places, places + 1
            stops = np.searchsorted(keys, keys, "right")
        counts = stops - starts
        firsts, starts, counts = firsts[counts > 0], starts[counts > 0], counts[counts > 0]
        ends = np.cumsum(counts)
        begin = 0
        while begin < len(counts):
            done = ends[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, done + _AT_ONCE, "right")))
            part = slice(begin, end)
            within = np.arange(counts[part].sum())
            within -= np.repeat(ends[part] - counts[part] - done, counts[part])
            yield (
                np.repeat(firsts[part], counts[part]),
                within + np.repeat(starts[part], counts[part]),
            )
            begin = end


def near_groups(hashes: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """The places of hashes that hang together by pairs that differ in `most` bits or fewer.

    With each group come the least and the greatest distance of those pairs. Equal hashes are
    searched for once: a thousand of them are a group, and not half a million pairs.
    """
    values, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    i, j, distances = near_pairs(values, most)
    again = np.flatnonzero(first[which] != np.arange(len(hashes)))
    i, j = np.append(first[i], first[which][again]), np.append(first[j], again)
    distances = np.append(distances, np.zeros(len(again), np.int64))
    for pairs in _together(len(hashes), i, j):
        inside = distances[pairs]
        yield np.unique([i[pairs], j[pairs]]), int(inside.min()), int(inside.max())


def _together(n: int, i: np.ndarray, j: np.ndarray) -> Iterator[np.ndarray]:
    """Which pairs belong to one group, for every group."""
    parent = list(range(n))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    roots = np.array([root(a) for a in i.tolist()], np.int64)
    order = np.argsort(roots, kind="stable")
    bounds = np.flatnonzero(np.diff(roots[order])) + 1
    yield from np.split(order, bounds) if len(order) else ()
