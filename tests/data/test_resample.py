"""The compiled passes of scaling: Pillow's levels to the bit, whatever the sizes; and what is done
where they cannot be compiled or kept."""

import math
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf.data import plan, resample
from imgclf.data.plan import scaled
from imgclf.errors import UserError

KINDS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
NOISE = np.random.default_rng(0).integers(0, 256, (403, 530, 3), np.uint8)


def by_pillow(image, width, height, kind, box=None):
    return np.asarray(Image.fromarray(image).resize((width, height), KINDS[kind], box))


@pytest.mark.parametrize("kind", KINDS)
def test_every_size_and_part_gives_pillows_levels(kind):
    rng = np.random.default_rng(len(kind))
    for _ in range(150):
        top, left = rng.integers(0, 400), rng.integers(0, 527)
        bottom, right = rng.integers(top + 1, 404), rng.integers(left + 1, 531)
        width, height = map(int, rng.integers(1, 300, 2))
        part = NOISE[top:bottom, left:right]
        expected = by_pillow(part, width, height, kind)
        got = scaled(NOISE, width, height, kind, (left, top, right, bottom))
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(scaled(part, width, height, kind), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_in_fractions_of_a_pixel_gives_pillows_levels(kind):
    rng = np.random.default_rng(1)
    for _ in range(50):
        left, top = rng.uniform(0, 300), rng.uniform(0, 200)
        box = (left, top, left + rng.uniform(1, 229), top + rng.uniform(1, 202))
        width, height = map(int, rng.integers(1, 300, 2))
        got = scaled(NOISE, width, height, kind, box)
        np.testing.assert_array_equal(got, by_pillow(NOISE, width, height, kind, box))


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (2, 3), (3000, 5), (7, 2500)])
def test_extreme_proportions_give_pillows_levels(shape):
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    for kind in KINDS:
        for size in ((1, 1), (64, 64), (5, 300), (300, 5), shape[::-1]):
            expected = by_pillow(image, *size, kind)
            np.testing.assert_array_equal(scaled(image, *size, kind), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_each_channel_is_scaled_by_itself(channels):
    image = np.random.default_rng(3).integers(0, 256, (91, 77, channels), np.uint8)
    got = scaled(image, 50, 40, "bicubic")
    for c in range(channels):
        np.testing.assert_array_equal(got[..., c], by_pillow(image[..., c], 50, 40, "bicubic"))


def test_an_image_that_cannot_be_written_to_and_one_in_another_order_are_scaled():
    image = NOISE.copy()
    image.flags.writeable = False
    expected = by_pillow(NOISE, 64, 64, "bilinear")
    np.testing.assert_array_equal(scaled(image, 64, 64, "bilinear"), expected)
    turned = np.asfortranarray(NOISE)
    np.testing.assert_array_equal(scaled(turned, 64, 64, "bilinear"), expected)


class Broken(types.ModuleType):
    def __getattr__(self, name):
        raise OSError("libllvmlite.so: cannot open shared object file")


@pytest.mark.parametrize("numba", [None, Broken("numba")], ids=["missing", "broken"])
def test_without_numba_the_levels_are_the_same_and_it_is_said(monkeypatch, numba):
    box = (3.0, 5.0, 400.0, 380.0)
    expected = [scaled(NOISE, 64, 48, kind, box) for kind in KINDS]
    monkeypatch.setitem(sys.modules, "numba", numba)
    monkeypatch.delitem(sys.modules, "imgclf.data.resample")
    monkeypatch.delattr("imgclf.data.resample")
    plan._compiled.cache_clear()
    try:
        with pytest.warns(UserWarning, match="scaled by Pillow.*(numba|llvmlite)"):
            got = [scaled(NOISE, 64, 48, kind, box) for kind in KINDS]
    finally:
        plan._compiled.cache_clear()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "box", [(0, 0, 4, 40), (0, 0, 5, 4), (-1, 0, 3, 3), (2, 0, 2, 4), (0, 0, math.nan, 4)], ids=str
)
def test_a_part_that_is_not_in_the_image_is_refused_and_named(box):
    for kind in (*KINDS, "nearest"):
        with pytest.raises(UserError, match=r"must lie in it.*got left, top, right, bottom = "):
            scaled(NOISE[:4, :4], 4, 4, kind, box)
    with pytest.raises(UserError, match="scaled to 0 x 4"):
        scaled(NOISE[:4, :4], 0, 4, "bilinear")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_what_was_kept_and_is_broken_is_compiled_anew(tmp_path, ending):
    program = "import numpy as np; from imgclf.data.plan import scaled;"
    program += "print(scaled(np.full((9, 9, 3), 7, np.uint8), 4, 4, '').sum())"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout.strip()) == (0, str(4 * 4 * 3 * 7)), done.stderr
        kept = list(tmp_path.rglob(f"*{ending}"))
        assert len(kept) >= 6
        for file in kept:
            file.write_bytes(file.read_bytes()[:20])


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same():
    source = Path(resample.__file__).read_text()
    names = {"__name__": "nowhere"}
    exec(compile(source, "nowhere", "exec"), names)  # a file beside which nothing can be written
    image = NOISE.reshape(403, -1)
    given = (3, (0, 0, 530, 403), (0.0, 0.0, 530.0, 403.0), (64, 48), 0)
    expected = resample.resampled(image, *given)
    np.testing.assert_array_equal(names["resampled"](image, *given), expected)
