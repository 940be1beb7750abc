"""Flips and shifts, px by px."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.augmentation import Crop, Flip, Translate

IMAGES = np.random.default_rng(0).integers(1, 256, (512, 5, 6, 2)).astype(np.uint8)


@jax.jit
def flipped(key):
    return Flip(0.25)(key, {"image": IMAGES}, 0.0)["image"]


def shifted(augmentation, seed=0):
    return np.asarray(augmentation(jax.random.key(seed), {"image": IMAGES}, 0.0)["image"])


def windows(image, padding, mode):
    border = ((padding, padding), (padding, padding), (0, 0))
    padded = np.pad(image, border, mode=mode)
    offsets = np.ndindex(2 * padding + 1, 2 * padding + 1)
    return {offset: padded[offset[0] :, offset[1] :][:5, :6] for offset in offsets}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_image_is_mirrored_or_left_alone_as_often_as_asked(seed):
    result = np.asarray(flipped(jax.random.key(seed)))
    mirrored = (result == IMAGES[:, :, ::-1]).all((1, 2, 3))
    same = (result == IMAGES).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert abs(mirrored.mean() - 0.25) < 6 * (0.25 * 0.75 / len(IMAGES)) ** 0.5


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_crop_is_one_window_of_the_padded_image_and_every_window_occurs(mode):
    result = shifted(Crop(padding=2, mode=mode))
    found = []
    for before, after in zip(IMAGES, result, strict=True):
        candidates = windows(before, 2, mode).items()
        found += [offset for offset, window in candidates if (window == after).all()]
    assert len(found) == len(IMAGES)
    counts = np.bincount([5 * row + column for row, column in found], minlength=25)
    expected = len(IMAGES) / 25
    assert ((counts - expected) ** 2 / expected).sum() < 60  # chi square, 24 degrees: p < 1e-4


def test_translate_moves_no_farther_than_asked_and_lets_zeros_in():
    result = shifted(Translate(1))
    for before, after in zip(IMAGES, result, strict=True):
        assert any((window == after).all() for window in windows(before, 1, "constant").values())
    assert ((result == 0).any((1, 2, 3))).mean() > 0.5


def test_padding_wider_than_the_image_still_works():
    assert shifted(Crop(padding=9)).shape == IMAGES.shape
    assert shifted(Crop(padding=9, mode="reflect")).min() > 0
