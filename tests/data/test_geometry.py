"""Images of any size become squares as the field's conventions say, to the pixel."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf.data.decode import decode
from imgclf.data.geometry import Central, Pad, RandomResizedCrop, Squash
from imgclf.data.plan import scaled
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
ALL = [Central(), RandomResizedCrop(), Squash()]
sides = st.integers(1, 90)


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(height, width, channels=3):
    return rng().integers(0, 256, (height, width, channels), np.uint8)


def test_evaluation_inputs_are_those_of_the_reference_to_the_bit(shared):
    folder = shared / "data" / "imagenet_samples"
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    expected = np.load(shared / "data" / "expected" / "imagenet_inputs_u8.npy")
    preprocess = Preprocess(size=224, crop=0.875, interpolation="bicubic")
    for row, image in zip(rows, expected, strict=False):
        photograph = decode((folder / row["path"]).read_bytes(), exif=False)
        np.testing.assert_array_equal(Central()(photograph, preprocess, rng()), image)


@given(height=sides, width=sides, size=st.integers(1, 40), crop=st.floats(0.2, 1.0))
@settings(max_examples=60, deadline=None)
def test_central_is_scaling_the_shorter_side_and_then_cutting_the_middle(height, width, size, crop):
    image = noise(height, width)
    short = math.floor(size / crop)
    new = (short, int(short * height / width)) if width <= height else None
    new = new or (int(short * width / height), short)
    whole = Image.fromarray(image).resize(new, Image.Resampling.BILINEAR)
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    expected = np.asarray(whole.crop((left, top, left + size, top + size)))
    preprocess = Preprocess(size=size, crop=crop, interpolation="bilinear")
    np.testing.assert_array_equal(Central()(image, preprocess, rng()), expected)


def test_where_the_crop_mode_is_squash_both_sides_are_scaled_before_the_middle_is_cut():
    image = noise(37, 53)
    whole = Image.fromarray(image).resize((17, 17), Image.Resampling.BICUBIC)
    expected = np.asarray(whole)[0:16, 0:16]  # half a pixel on either side, rounded to even
    preprocess = Preprocess(size=16, crop=0.9, crop_mode="squash", interpolation="bicubic")
    np.testing.assert_array_equal(Central()(image, preprocess, rng()), expected)


@pytest.mark.parametrize("fill", ["black", "mean", "reflect"])
def test_where_the_crop_mode_is_padding_evaluation_sees_what_pad_makes(fill):
    image = noise(37, 53)
    own = Preprocess(size=16, crop=0.9, crop_mode=f"pad_{fill}", mean=(0.5,))
    np.testing.assert_array_equal(
        Central()(image, own, rng()), Pad(fill)(image, Preprocess(size=16, mean=(0.5,)), rng())
    )


@pytest.mark.parametrize("interpolation", FILTERS)
def test_squash_is_pillows_resize(interpolation):
    image = noise(37, 53)
    small = Image.fromarray(image).resize((16, 16), FILTERS[interpolation])
    got = Squash()(image, Preprocess(size=16, interpolation=interpolation), rng())
    np.testing.assert_array_equal(got, np.asarray(small))


@pytest.mark.parametrize("geometry", ALL, ids=lambda g: type(g).__name__)
@given(height=sides, width=sides, channels=st.sampled_from([1, 2, 3, 4]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_an_image_of_any_size_and_channels_becomes_the_square(
    geometry, height, width, channels, seed
):
    image = noise(height, width, channels)
    before = image.copy()
    got = geometry(image, Preprocess(size=24, crop=0.875, interpolation="bicubic"), rng(seed))
    assert got.shape == (24, 24, channels) and got.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_channels_do_not_weigh_on_each_other():
    image = noise(30, 40, 4)
    image[..., 3] = 0  # as an alpha it would blacken the others
    got = scaled(image, 12, 10, "bilinear")
    for c in range(4):
        np.testing.assert_array_equal(
            got[..., c], scaled(image[..., [c]], 12, 10, "bilinear")[..., 0]
        )


def test_a_random_crop_is_cut_first_and_then_scaled():
    image = noise(60, 80)
    preprocess = Preprocess(size=32, interpolation="bilinear")
    left, top, width, height = RandomResizedCrop().part(80, 60, rng(5))
    part = Image.fromarray(image).crop((left, top, left + width, top + height))
    expected = np.asarray(part.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(RandomResizedCrop()(image, preprocess, rng(5)), expected)


@given(width=st.integers(1, 600), height=st.integers(1, 600), seed=st.integers(0, 2**32))
def test_a_random_part_lies_within_the_image(width, height, seed):
    left, top, w, h = RandomResizedCrop().part(width, height, rng(seed))
    assert 0 <= left <= left + w <= width and 0 <= top <= top + h <= height
    assert w >= 1 and h >= 1


def test_random_parts_have_the_area_and_proportions_that_were_asked_for():
    crop = RandomResizedCrop(scale=(0.25, 0.75), ratio=(0.5, 2.0))
    generator = rng()
    parts = np.array([crop.part(500, 500, generator) for _ in range(4000)])
    shares = parts[:, 2] * parts[:, 3] / 500**2
    logs = np.log2(parts[:, 2] / parts[:, 3])
    assert 0.249 < shares.min() < 0.26 and 0.70 < shares.max() < 0.751
    assert -1.01 < logs.min() < -0.95 and 0.95 < logs.max() < 1.01
    assert abs(logs.mean()) < 0.05
    assert (parts[:, 0] == 0).any() and (parts[:, 0] + parts[:, 2] == 500).any()


def test_where_no_part_fits_it_is_the_central_one_of_allowed_proportions():
    assert RandomResizedCrop(scale=(1.0, 1.0)).part(400, 30, rng()) == (180, 0, 40, 30)
    assert RandomResizedCrop(scale=(1.0, 1.0)).part(30, 400, rng()) == (0, 180, 30, 40)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.9, 0.1), (0.5, 1.5)])
def test_senseless_shares_are_refused_in_a_line(scale):
    with pytest.raises(UserError, match="The `scale` of `RandomResizedCrop` must be"):
        RandomResizedCrop(scale=scale)(noise(9, 9), Preprocess(size=4), rng())


def test_senseless_proportions_are_refused_in_a_line():
    with pytest.raises(UserError, match="The `ratio` of `RandomResizedCrop` must be"):
        RandomResizedCrop(ratio=(2.0, 1.0))(noise(9, 9), Preprocess(size=4), rng())


def test_an_unknown_interpolation_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'bicubic'"):
        scaled(noise(9, 9), 4, 4, "bicubik")


@pytest.mark.parametrize("fill", ["black", "mean", "reflect"])
@given(height=sides, width=sides, channels=st.sampled_from([1, 3, 4]))
@settings(max_examples=30, deadline=None)
def test_padding_keeps_the_whole_image_in_the_middle(fill, height, width, channels):
    image = noise(height, width, channels)
    preprocess = Preprocess(size=24, interpolation="bicubic", mean=(0.5,))
    got = Pad(fill)(image, preprocess, rng())
    w, h = (max(1, round(24 * side / max(height, width))) for side in (width, height))
    left, top = (24 - w) // 2, (24 - h) // 2
    whole = scaled(image, w, h, "bicubic")
    assert got.shape == (24, 24, channels)
    np.testing.assert_array_equal(got[top : top + h, left : left + w], whole)
    beside = np.ones(got.shape, bool)
    beside[top : top + h, left : left + w] = False
    if fill != "reflect":
        assert (got[beside] == {"black": 0, "mean": 128}[fill]).all()
    elif top:
        np.testing.assert_array_equal(got[top - 1], whole[0])


def test_an_unknown_fill_or_convention_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'reflect'"):
        Pad("reflected")(noise(9, 9), Preprocess(size=4), rng())
    with pytest.raises(UserError, match="did you mean 'tensorflow'"):
        RandomResizedCrop(convention="tensorflows")(noise(9, 9), Preprocess(size=4), rng())


@given(width=st.integers(1, 600), height=st.integers(1, 600), seed=st.integers(0, 2**32))
def test_tensorflows_part_lies_within_the_image_and_covers_a_tenth(width, height, seed):
    crop = RandomResizedCrop(convention="tensorflow")
    left, top, w, h = crop.part(width, height, rng(seed))
    assert 0 <= left <= left + w <= width and 0 <= top <= top + h <= height
    central = max(1, min(width, height) * 7 // 8)
    fallback = ((width - central) // 2, (height - central) // 2, central, central)
    assert (left, top, w, h) == fallback or w * h >= 0.1 * width * height


def test_tensorflows_parts_are_drawn_evenly_in_proportions_and_height():
    crop = RandomResizedCrop(scale=(0.24, 0.25), ratio=(0.5, 2.0), convention="tensorflow")
    parts = np.array([crop.part(1000, 1000, generator) for generator in map(rng, range(3000))])
    ratios = parts[:, 2] / parts[:, 3]
    central = (parts == (62, 62, 875, 875)).all(axis=1)
    assert central.mean() < 0.01
    assert abs(np.median(ratios) - 1.25) < 0.05  # evenly in its logarithm it would be 1
    free = RandomResizedCrop(scale=(0.1, 1.0), ratio=(1.0, 1.0), convention="tensorflow")
    heights = np.array([free.part(1000, 1000, generator)[3] for generator in map(rng, range(3000))])
    assert abs(np.median(heights) - (316 + 1000) / 2) < 20  # evenly in area it would be 741


def test_where_none_of_tensorflows_parts_fits_it_is_the_central_square():
    crop = RandomResizedCrop(scale=(1.0, 1.0), convention="tensorflow")
    assert crop.part(400, 32, rng()) == (186, 2, 28, 28)


def test_random_parts_are_the_same_as_ever():
    parts = [RandomResizedCrop().part(500, 375, rng(seed)) for seed in range(3)]
    assert parts == [(65, 166, 129, 171), (4, 13, 366, 282), (111, 94, 231, 260)]
