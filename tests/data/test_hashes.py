"""What tells that two images are the same, or nearly."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imgclf.data.hashes import digest, near_groups, near_pairs, perceptual_hash


def scene(seed: int, side: int = 160) -> Image.Image:
    """An image with structure of every size, as photographs have; the same for the same seed."""
    rng, total = np.random.default_rng(seed), np.zeros((side, side, 3))
    for cells in (3, 6, 12, 24, 48):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC)) / cells
    total -= total.min()
    return Image.fromarray((total * (230 / total.max())).astype(np.uint8))


def hashed(image: Image.Image) -> np.uint64:
    return np.uint64(perceptual_hash(np.asarray(image.convert("L"))))


def encoded_anew(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file)


@pytest.mark.parametrize(
    "change",
    [
        encoded_anew,
        lambda image: image.resize((80, 80)),
        lambda image: image.resize((500, 260)),
        lambda image: image.point(lambda v: min(255, int(1.1 * v + 8))),
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    ],
    ids=["JPEG of quality 30", "half", "stretched", "brighter", "blurred"],
)
def test_a_changed_copy_is_near_its_image_and_others_are_far(change):
    originals = np.array([hashed(scene(seed)) for seed in range(40)])
    changed = np.array([hashed(change(scene(seed))) for seed in range(40)])
    apart = np.bitwise_count(originals[:, None] ^ changed[None])
    assert (np.diag(apart) <= 6).mean() >= 0.95, np.diag(apart)
    np.fill_diagonal(apart, 64)
    assert apart.min() > 6


@pytest.mark.parametrize("most", [0, 1, 6, 7])
def test_near_pairs_are_those_that_comparing_all_with_all_finds(most):
    rng = np.random.default_rng(most)
    hashes = rng.integers(0, 2**64, 1500, np.uint64)
    for place in range(600):  # copies of others with up to nine bits flipped
        bits = rng.choice(64, rng.integers(0, 10), replace=False).astype(np.uint64)
        hashes[700 + place] = hashes[place] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=0)
    hashes[-50:] = hashes[0]
    apart = np.triu(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= most, 1)
    i, j, distance = near_pairs(hashes, most)
    np.testing.assert_array_equal(np.stack([i, j]), np.nonzero(apart))
    np.testing.assert_array_equal(distance, np.bitwise_count(hashes[i] ^ hashes[j]))
    assert len(i) > 1000


def test_no_hashes_have_no_pairs_and_a_distance_that_cannot_be_searched_is_refused():
    assert [len(each) for each in near_pairs(np.zeros(0, np.uint64), 6)] == [0, 0, 0]
    with pytest.raises(ValueError, match="must be 0 to 7; got 8"):
        near_pairs(np.zeros(3, np.uint64), 8)


def test_hashes_hang_together_in_groups_also_by_way_of_others_and_where_many_are_equal():
    far, near, nearer = 2**64 - 1, 0b1111_1111, 0b1111
    hashes = np.array([far, nearer, 0, near, *[far >> 32] * 3000], np.uint64)
    found = [(members.tolist(), *span) for members, *span in near_groups(hashes, 5)]
    assert sorted(found) == [([1, 2, 3], 4, 4), (list(range(4, 3004)), 0, 0)]
    assert list(near_groups(hashes[:1], 6)) == list(near_groups(hashes[:0], 6)) == []


def test_a_digest_tells_pixels_and_shapes_apart():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    other = image.copy()
    other[1, 1, 1] += 1
    digests = {digest(image), digest(other), digest(image.reshape(4, 2, 3)), digest(image[::-1])}
    assert len(digests) == 4 and digest(image[:, ::-1][:, ::-1]) == digest(image)
