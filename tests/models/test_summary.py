import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from imgclf import models
from imgclf.models.sizes import kept, listing
from imgclf.models.summary import Layer, sizes_of, table


def test_the_kept_sizes_are_those_of_every_network_of_the_table():
    assert list(kept()) == list(models.names())  # else: python -m imgclf.models.sizes


@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "resnet18",
        *(pytest.param(name, marks=pytest.mark.slow) for name in list(models.names())[::7]),
    ],
)
def test_the_kept_sizes_are_what_networks_have(name):
    assert kept()[name] == sizes_of(models.create(name, 1000))


def test_kept_sizes_are_the_references(formula):
    for name, reference in formula.models().items():
        if name in kept() and reference["native_size"] == models.entry(name).preprocess.size:
            assert kept()[name] == (reference["params"], reference["macs_native"]), name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50", {"depths": (1, 1), "width": 4}),
        ("resnet18", {"depths": (3, 1), "width": 4, "scan": True}),
        ("vit_tiny_patch16_224", {"depth": 3, "width": 8, "heads": 2}),
        ("vit_tiny_patch16_224", {"depth": 3, "width": 8, "heads": 2, "scan": True}),
        ("googlenet", {"auxiliary": True, "share": 0.125}),
    ],
)
def test_layers_add_up_to_the_network(name, options):
    network, shape = models.create(name, 10, **options), (2, 64, 64, 3)
    layers = models.layers_of(network, shape)
    params, _ = jax.eval_shape(
        network.initialise, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    assert sum(layer.parameters for layer in layers) == models.count_parameters(params)
    assert sum(layer.multiply_adds for layer in layers) == models.multiply_adds(network, shape)


def test_layers_are_in_the_order_in_which_they_are_called():
    network = models.create("resnet50", 10, depths=(1, 1), width=4)
    layers = models.layers_of(network, (2, 64, 64, 3))
    assert layers[0] == Layer("conv1", (2, 32, 32, 4), 7 * 7 * 3 * 4, 2 * 32 * 32 * 7 * 7 * 3 * 4)
    assert layers[-1] == Layer("fc", (2, 10), 32 * 10 + 10, 2 * 32 * 10)


class Mine(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        x = images.mean((1, 2))
        w = self.param("w", nn.initializers.ones, (3, 3))
        x, _ = jax.lax.scan(lambda x, _: (jax.nn.relu(x @ w), None), x, length=5)
        return nn.Dense(2, name="head")(jax.checkpoint(lambda x: x @ w)(x))


def test_products_in_loops_and_within_a_module_itself_are_counted():
    network = models.create(lambda num_classes: Mine(), 2)
    assert models.layers_of(network, (4, 8, 8, 3)) == [
        Layer("", (4, 2), 9, 4 * 9 * 6),
        Layer("head", (4, 2), 8, 4 * 6),
    ]


def test_the_table_and_the_listing_say_the_same_sums():
    network = models.create("cnn", 10, width=4)
    lines = table(network, (1, 16, 16, 1)).splitlines()
    assert lines[0].split() == ["layer", "output", "parameters", "multiply-adds"]
    assert lines[1].split() == ["stage1.conv1", "16", "x", "16", "x", "4", "36", "9,216"]
    assert len({len(line) for line in lines}) == 1, "columns are aligned"
    heading, line = listing(["cifar_resnet20"], 10)
    assert heading.split() == ["network", "parameters", "GMACs", "size"]
    assert line.split() == ["cifar_resnet20", "269,722", "0.041", "32"]
    last = table(models.create("cifar_resnet20", 10)).splitlines()[-1]
    assert last.split()[:2] == ["cifar_resnet20", "269,722"]
