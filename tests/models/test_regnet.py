import pytest

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
