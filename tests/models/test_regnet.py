import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.models.regnet import stages_of

NARROW = {"depths": (1, 2), "widths": (8, 16), "group_size": 4, "stem_width": 8}


@pytest.mark.parametrize(
    "name", [pytest.param("regnetx_008", marks=pytest.mark.slow), "regnety_008"]
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name):
    same_as_reference(name)


@pytest.mark.parametrize(
    ("design", "depths", "widths"),
    [
        # Widths are rounded to whole groups.
        ((96, 31.41, 2.24, 22, 64), (2, 6, 12, 2), (128, 192, 512, 1088)),
        ((232, 115.89, 2.53, 20, 232), (2, 5, 12, 1), (232, 696, 1392, 3712)),
        # The first stage is narrower than a group.
        ((80, 49.56, 2.88, 23, 120), (2, 5, 15, 1), (80, 240, 720, 1920)),
    ],
)
def test_widths_and_depths_are_the_papers(design, depths, widths):
    assert stages_of(*design) == (depths, widths)


def test_it_begins_as_timms():
    options = {"widths": (64, 128), "group_size": 8}
    network = models.create("regnety_002", 100, **(NARROW | options))
    params, _ = network.initialise(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    block = params["s2"]["b1"]
    grouped = block["conv2"]["conv"]["kernel"]
    assert np.std(grouped) == pytest.approx((2 / (9 * 8)) ** 0.5, rel=0.05)
    assert np.std(block["conv1"]["conv"]["kernel"]) == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert np.std(params["head"]["fc"]["kernel"]) == pytest.approx(0.01, rel=0.05)
    for zero in (block["se"]["fc1"]["bias"], params["head"]["fc"]["bias"]):
        np.testing.assert_array_equal(zero, 0)
    np.testing.assert_array_equal(block["conv3"]["bn"]["scale"], 0)
    np.testing.assert_array_equal(block["conv2"]["bn"]["scale"], 1)
    np.testing.assert_array_equal(block["downsample"]["bn"]["scale"], 1)
