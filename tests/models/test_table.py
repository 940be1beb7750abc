import subprocess
import sys

import pytest

from imgclf import models
from imgclf.errors import UserError
from imgclf.preprocess import PLAIN, Preprocess


def test_the_table_is_read_without_importing_jax():
    program = (
        "import sys, imgclf.models as m; m.names(); m.entry('cnn'); "
        "sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_everything_listed_can_be_had():
    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = models.nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "resnt18"}, "Unknown network 'resnt18'; did you mean 'resnet18'?"),
        (
            {"drop_rat": 0.1},
            "Unknown option of resnet18 'drop_rat'; did you mean 'drop_rate'?",
        ),
        ({"name": "x"}, "Unknown option of resnet18 'name'"),
        ({"dtype": "half"}, "The `dtype` of a network must be float32 or bfloat16; got 'half'"),
        ({"num_classes": 0}, "The `num_classes` of a network must be at least 1; got 0"),
    ],
)
def test_a_mistake_is_answered_with_what_is_right(arguments, message):
    with pytest.raises(UserError) as error:
        models.create(**{"network": "resnet18", "num_classes": 10} | arguments)
    assert str(error.value).startswith(message)


def test_a_recipes_preprocessing_goes_before_the_tables():
    network = models.create("resnet18", 10, preprocess=Preprocess(size=96))
    assert network.preprocess.size == 96
    assert network.preprocess.mean == (0.485, 0.456, 0.406)


def test_a_persons_function_makes_a_network_with_its_options():
    from flax import linen as nn

    def mine(num_classes, width=3):
        return nn.Dense(num_classes * width)

    network = models.create(mine, 10, width=2)
    assert (network.name, network.preprocess, network.module.features) == ("mine", PLAIN, 20)
    with pytest.raises(UserError, match="did you mean 'width'"):
        models.create(mine, 10, widht=2)
