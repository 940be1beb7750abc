"""What is decoded for a plan alone gives the same pixels as all of the image would; with TurboJPEG
3, that leaves out what lies beside and above, and without it."""

import csv
import importlib.util
import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from imgclf.data import turbojpeg
from imgclf.data.decode import BadImage, decode, decode_for
from imgclf.data.geometry import Central, Pad, RandomResizedCrop, Squash
from imgclf.data.jpeg import _rows_can_be_left_out
from imgclf.data.plan import Plan, carried_out
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess

SMALL = Preprocess(size=48, crop=0.875, interpolation="bilinear")
CROP = RandomResizedCrop()


@pytest.fixture(autouse=True, params=["TurboJPEG", "without"])
def decoder(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(turbojpeg, "available", lambda: False)
    elif not turbojpeg.available():
        pytest.skip("TurboJPEG 3 is not installed (the extra `turbojpeg` has it)")
    return request.param


def drawn(mode="RGB", height=203, width=158, **options):
    noise = np.random.default_rng(1).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def photographs(shared):
    folder = shared / "data" / "imagenet_samples"
    rows = csv.DictReader((folder / "labels.csv").read_text().splitlines())
    return [(folder / row["path"]).read_bytes() for row in rows]


def deciding(geometry, preprocess, seed):
    return lambda h, w: geometry.plan(h, w, preprocess, np.random.default_rng(seed))


def square(geometry, encoded, preprocess=SMALL, seed=0):
    image, plan = decode_for(deciding(geometry, preprocess, seed), encoded)
    return carried_out(plan, image, preprocess)


def of_the_whole(geometry, encoded, preprocess=SMALL, seed=0):
    return geometry(decode(encoded), preprocess, np.random.default_rng(seed))


def rows(bottom, **fields):
    return lambda h, w: Plan(0, 0, w, bottom, 8, 8, **fields)


def test_photographs_cut_as_they_are_decoded_are_those_cut_afterwards_to_the_bit(shared):
    for seed, encoded in enumerate(photographs(shared)[::3]):
        got = square(CROP, encoded, seed=seed)
        np.testing.assert_array_equal(got, of_the_whole(CROP, encoded, seed=seed))


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"mode": "L"},
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"quality": 100, "optimize": True},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
        {"mode": "CMYK"},
    ],
    ids=str,
)
@pytest.mark.parametrize("geometry", [Central(), Squash(), Pad("reflect"), CROP], ids=str)
def test_every_kind_of_jpeg_is_cut_as_afterwards_to_the_bit(geometry, options):
    encoded = drawn(**options)
    for seed in range(6):
        expected = of_the_whole(geometry, encoded, seed=seed)
        np.testing.assert_array_equal(square(geometry, encoded, seed=seed), expected)


@pytest.mark.parametrize("options", [{"subsampling": n} for n in range(3)] + [{"mode": "L"}])
def test_every_number_of_rows_is_that_of_the_whole_and_few_more_are_decoded(options, decoder):
    encoded = drawn(**options)
    whole = decode(encoded)
    for bottom in range(1, 204):
        image, plan = decode_for(rows(bottom), encoded)
        assert plan.bottom == bottom <= len(image) < bottom + 18
        np.testing.assert_array_equal(image[:bottom], whole[:bottom])


@pytest.mark.parametrize("options", [{"subsampling": n} for n in range(3)] + [{"mode": "L"}])
def test_every_part_is_that_of_the_whole_and_little_more_is_decoded(options, decoder):
    encoded = drawn(**options)
    whole, rng = decode(encoded), np.random.default_rng(0)
    for _ in range(300):
        left, top = map(int, rng.integers(0, (158, 203)))
        width, height = int(rng.integers(1, 159 - left)), int(rng.integers(1, 204 - top))
        if width * height > 0.9 * 158 * 203:
            continue
        image, plan = decode_for(lambda h, w: Plan(left, top, width, height, 8, 8), encoded)  # noqa: B023
        x, y = int(plan.left), int(plan.top)
        got = image[y : y + height, x : x + width]
        np.testing.assert_array_equal(got, whole[top : top + height, left : left + width])
        if decoder == "TurboJPEG":
            assert len(image) == height and image.shape[1] <= width + 2 + 2 + 15


def test_a_part_in_fractions_of_a_pixel_is_made_of_what_lies_beside_it_too():
    encoded = drawn()
    plan = Plan(20.5, 30.25, 80, 91, 48, 48)
    image, found = decode_for(lambda h, w: plan, encoded)
    expected = carried_out(plan, decode(encoded), SMALL)
    np.testing.assert_array_equal(carried_out(found, image, SMALL), expected)


@pytest.mark.parametrize(
    "part",
    [
        (16, 50, 100, 0),
        (16, 50, 0, 100),
        (100, 50, 59, 20),
        (16, 150, 20, 54),
        (-3, 0, 50, 50),
        (0, -3, 50, 50),
        (2**32 + 16, 0, 50, 50),
        (0, 0, 60_000, 60_000),
        (math.nan, 0, 50, 50),
    ],
    ids=str,
)
def test_a_part_that_is_not_in_the_image_is_refused(part):
    encoded, plan = drawn(), Plan(*part, 48, 48)
    with pytest.raises((UserError, ValueError)):
        image, found = decode_for(lambda h, w: plan, encoded)
        carried_out(found, image, SMALL)


def test_parts_are_decoded_in_many_threads_at_once():
    files = [drawn(height=203 + n, width=158 + n) for n in range(24)]
    expected = [of_the_whole(CROP, encoded, seed=n) for n, encoded in enumerate(files)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            got = pool.map(lambda n: square(CROP, files[n], seed=n), range(24))
            np.testing.assert_array_equal(list(got), expected)


def test_a_photograph_lying_on_its_side_is_planned_upright():
    encoded = drawn(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    asked = []
    decode_for(lambda h, w: asked.append((h, w)) or rows(9)(h, w), encoded)
    assert asked == [(158, 203)]


def test_a_file_that_ends_early_is_bad_however_few_rows_are_needed():
    encoded = drawn()
    for kept in (0.2, 0.6, 0.95):
        with pytest.raises(BadImage):
            decode_for(rows(20), encoded[: int(len(encoded) * kept)])


def test_damage_among_the_needed_rows_is_left_to_the_tolerant_decoder():
    encoded = bytearray(drawn())
    at = encoded.index(b"\xff\xda") + 200
    encoded[at : at + 2] = b"\xff\xd9"
    image, _ = decode_for(rows(20), bytes(encoded))
    np.testing.assert_array_equal(image, decode(bytes(encoded)))


def test_where_the_decoder_keeps_no_rows_after_an_error_all_are_decoded(monkeypatch):
    monkeypatch.setattr(turbojpeg, "available", lambda: False)
    encoded, decode_jpeg = drawn(), simplejpeg.decode_jpeg

    def forgetful(data, colorspace="RGB", buffer=None, **options):
        return decode_jpeg(data, colorspace, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", forgetful)
    _rows_can_be_left_out.cache_clear()
    image, _ = decode_for(rows(20), encoded)
    _rows_can_be_left_out.cache_clear()
    np.testing.assert_array_equal(image, decode(encoded))


@pytest.mark.parametrize("place", [1, 4, 9])
def test_a_header_that_lies_about_its_parts_is_bad_or_decoded_but_never_more(place):
    encoded = drawn()
    at = encoded.index(b"\xff\xc0")
    for value in (0, 1, 0x44, 0xFF):
        broken = encoded[: at + place] + bytes([value]) + encoded[at + place + 1 :]
        try:
            expected = decode(broken)
        except BadImage:
            with pytest.raises(BadImage):
                decode_for(rows(20), broken)
        else:
            np.testing.assert_array_equal(decode_for(rows(20), broken)[0][:20], expected[:20])


def disguise():
    """What stands before a header and looks like one of 13,000 x 13,000 px, to a reader that looks
    for a length after FF 01: that leads it 65,538 bytes on, into the second of two comments."""
    frame = bytes.fromhex("ffc0 0011 08 32c8 32c8 03 012200 021101 031101")
    scan = bytes.fromhex("ffda 000c 03") + bytes(40)
    first = b"\xff\xfe" + (65000).to_bytes(2, "big") + bytes(64998)
    second = bytes(65538 - 8 - len(first)) + frame + scan
    return b"\xff\x01" + first + b"\xff\xfe" + (len(second) + 2).to_bytes(2, "big") + second


@pytest.mark.parametrize(
    "before",
    [b"\xff", b"\xff\x01", b"\xff\xd0", disguise()],
    ids=["fill", "no length", "restart", "disguise"],
)
def test_what_may_stand_between_markers_does_not_mislead(before):
    encoded = drawn()[:2] + before + drawn()[2:-2] + b"junk" + drawn()[-2:]
    assert before != disguise() or encoded[65538:65540] == b"\xff\xc0"
    for seed in range(4):
        try:
            expected = of_the_whole(CROP, encoded, seed=seed)
        except BadImage:
            with pytest.raises(BadImage):
                square(CROP, encoded, seed=seed)
        else:
            np.testing.assert_array_equal(square(CROP, encoded, seed=seed), expected)


@pytest.mark.parametrize("length", range(40))
def test_a_header_that_ends_early_is_bad(length):
    for encoded in (b"\xff\xd8\xff\xc0\0\2\xff\xda\0\0" + bytes(length), drawn()[:length]):
        with pytest.raises(BadImage):
            decode_for(rows(20), encoded)


def test_the_wheels_turbojpeg_is_found():
    if importlib.util.find_spec("turbojpeg") is None:
        pytest.skip("the wheel `turbojpeg` is not installed")
    turbojpeg._library.cache_clear()
    assert turbojpeg._library() is not None


def test_scaled_decoding_is_within_a_grey_level_on_average(shared):
    scaled = RandomResizedCrop(scaled_decoding=True)
    off, smaller = [], 0
    for seed, encoded in enumerate(photographs(shared)):
        image, plan = decode_for(deciding(scaled, SMALL, seed), encoded)
        smaller += image.shape[1] < simplejpeg.decode_jpeg_header(encoded)[1]
        got = carried_out(plan, image, SMALL).astype(int)
        off.append(np.abs(got - of_the_whole(CROP, encoded, seed=seed)))
    assert smaller > 100 and np.mean(off) < 0.8 and max(map(np.mean, off)) < 3


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_scaled_decoding_keeps_the_part_in_its_place(factor):
    ramp = np.add.outer(np.arange(403) // 4, np.arange(501) // 4).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.repeat(ramp[..., None], 3, axis=2)).save(file, "JPEG", quality=98)
    part, side = (37, 22, 301, 250), int(250 / 1.5 / factor)
    exact = Plan(*part, side, side)
    plan = Plan(*part, side, side, scaled_decoding=True)
    assert plan.factor == factor and exact.factor == 1
    image, smaller = decode_for(lambda h, w: plan, file.getvalue())
    assert image.shape[1] == -(-501 // factor)
    preprocess = Preprocess(size=side, interpolation="bilinear")
    got = carried_out(smaller, image, preprocess).astype(int)
    expected = carried_out(exact, decode(file.getvalue()), preprocess)
    assert np.abs(got - expected).mean() < 0.6 and abs((got - expected).mean()) < 0.2


def test_too_few_pixels_are_never_made_fewer():
    assert Plan(0, 0, 149, 300, 50, 50, scaled_decoding=True).factor == 1
    assert Plan(0, 0, 150, 300, 50, 50, scaled_decoding=True).factor == 2
