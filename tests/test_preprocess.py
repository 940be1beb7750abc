import dataclasses

import pytest

from imgclf.errors import UserError
from imgclf.preprocess import IMAGENET, PLAIN, Preprocess


def test_empty_fields_are_the_networks_own() -> None:
    assert Preprocess().over(IMAGENET) == IMAGENET
    assert Preprocess(size=96).over(IMAGENET).size == 96
    assert Preprocess(size=96).over(IMAGENET).mean == IMAGENET.mean


@pytest.mark.parametrize(
    "wrong",
    [
        Preprocess(size=-1),
        Preprocess(crop=1.5),
        Preprocess(mean=(0.1, 0.2)),
        Preprocess(std=(0.1, 0.2)),
        Preprocess(std=(0.0,)),
        Preprocess(std=(float("nan"),)),
        Preprocess(std=(0.2, float("inf"), 0.2)),
        Preprocess(std=(58.395, 57.12, 57.375)),
        Preprocess(mean=(float("nan"),)),
        Preprocess(mean=(-0.1,)),
    ],
)
def test_values_that_make_no_sense_are_refused(wrong: Preprocess) -> None:
    with pytest.raises(UserError, match="`Preprocess` must"):
        wrong.over(PLAIN).check(channels=3)


def test_a_mean_of_bytes_is_refused_with_the_scale_that_is_meant() -> None:
    levels = Preprocess(mean=(123.675, 116.28, 103.53))
    said = (
        r"`mean` of `Preprocess` must lie in \[0, 1\], the scale of `image / 255`; got \(123.675,"
    )
    with pytest.raises(UserError, match=said):
        levels.over(IMAGENET).check(channels=3)


def test_of_grey_images_mean_and_deviation_are_the_averages_over_colours() -> None:
    grey = IMAGENET.for_channels(1)
    assert grey == dataclasses.replace(IMAGENET, mean=grey.mean, std=grey.std)
    assert grey.mean == pytest.approx([0.449]) and grey.std == pytest.approx([0.226])
    assert PLAIN.for_channels(1) == PLAIN and Preprocess().for_channels(1) == Preprocess()
    assert IMAGENET.for_channels(3) == IMAGENET.for_channels(4) == IMAGENET
    with pytest.raises(UserError, match="must have 1 or 4 values, for images of 4 channels; got 3"):
        IMAGENET.for_channels(4).check(channels=4)
