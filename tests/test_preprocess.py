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
    ],
)
def test_values_that_make_no_sense_are_refused(wrong: Preprocess) -> None:
    with pytest.raises(UserError, match="`Preprocess` must"):
        wrong.over(PLAIN).check(channels=3)
