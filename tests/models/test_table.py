import inspect
import subprocess
import sys
from importlib import import_module

import jax
import numpy as np
import pytest
from flax import linen as nn

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.layers import Dense
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
        (
            {"drop_path_rate": 0.1},
            "Unknown option of resnet18 'drop_path_rate'; did you mean 'sto",
        ),
        ({"global_pool": "avg"}, "Unknown option of resnet18 'global_pool'; there are: antialias"),
        ({"name": "x"}, "Unknown option of resnet18 'name'"),
        ({"dtype": "half"}, "The `dtype` of a network must be float32 or bfloat16; got 'half'"),
        ({"num_classes": 0}, "The `num_classes` of a network must be a whole number, at least 1"),
        ({"num_classes": "10"}, "The `num_classes` of a network must be a whole number, at least"),
        ({"in_channels": 0}, "The `in_channels` of a network must be a whole number, at least 1;"),
        ({"network": "ResNet50"}, "Unknown network 'ResNet50'; did you mean 'resnet50'?"),
        (
            {"network": "vit_b_16"},
            "Unknown network 'vit_b_16'; did you mean 'vit_base_patch16_224",
        ),
        (
            {"network": "regnet_y_1_6gf"},
            "Unknown network 'regnet_y_1_6gf'; did you mean 'regnety_",
        ),
        ({"network": "resnet50.a1_in1k"}, "Unknown network 'resnet50.a1_in1k'; did you mean 'resn"),
        ({"attention": "cbam"}, "Unknown attention of resnet18 'cbam'"),
        ({"antialias": "blurr"}, "Unknown antialias of resnet18 'blurr'; did you mean 'blur'?"),
        ({"drop_rate": 1.5}, "The `drop_rate` of resnet18 must be a share, at least 0 and less"),
        ({"drop_rate": "abc"}, "The `drop_rate` of resnet18 must be a number; got 'abc'"),
        ({"width": "abc"}, "The `width` of resnet18 must be a whole number; got 'abc'"),
        ({"depths": 2}, "The `depths` of resnet18 must be a tuple of values, each a whole number"),
        (
            {"depths": (2, 2, 0, 2)},
            "The `depths` of resnet18 must be more than 0; got (2, 2, 0, 2)",
        ),
        ({"width": True}, "The `width` of resnet18 must be a whole number; got True"),
        ({"network": None}, "A network must be a name from `imgclf models`, or a function"),
        ({"network": models.create("cnn", 10).module}, "A network must be a name from `imgclf mod"),
        (
            {"network": "vit_tiny_patch16_224", "mlp_ratio": float("nan")},
            "The `mlp_ratio` of vit_ti",
        ),
        ({"network": "lstm", "patch": 0}, "The `patch` of lstm must be more than 0; got 0"),
        ({"network": "cifar_resnet20", "depth": 0}, "The `depth` of cifar_resnet20 must be more"),
        (
            {"network": "regnetx_002", "widths": (8, 16)},
            "The options of regnetx_002 must have a value for each stage; got {'",
        ),
        (
            {"network": "swin_tiny_patch4_window7_224", "windows": (7, 7)},
            "The options of swin_tiny_patch4_window7_224 must have a value for each stage; got {'",
        ),
        ({"block": 3}, "The `block` of resnet18 must be the class BasicBlock or the class Bottle"),
        ({"network": "regnetx_002", "stem_width": 0}, "The `stem_width` of regnetx_002 must be mo"),
        ({"network": "nf_resnet50", "se_ratio": -1}, "The `se_ratio` of nf_resnet50 must be at le"),
        ({"network": "cnn", "pool": "min"}, "Unknown pool of cnn 'min'; there are: average, gene"),
        ({"network": "cnn", "pool": 3}, "The `pool` of cnn must be one of 'max', 'average', 'stoc"),
        ({"network": "cnn", "pool": np.ones(2)}, "The `pool` of cnn must be one of 'max', 'averag"),
        ({"network": "cnn", "act": "swish"}, "Unknown act of cnn 'swish'; did you mean 'hard_swi"),
        ({"network": "vit_tiny_patch16_224", "pool": "gem"}, "Unknown pool of vit_tiny_patch16_22"),
        ({"stochastic_depth": -0.5}, "The `stochastic_depth` of resnet18 must be a share, at lea"),
    ],
)
def test_a_mistake_is_answered_with_what_is_right(arguments, message):
    with pytest.raises(UserError) as error:
        models.create(**{"network": "resnet18", "num_classes": 10} | arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("repvgg_b1g4", {"groups": 5}, "ValueError: conv_general_dilated feature_group_count must"),
        ("googlenet", {"blocks": ("3a", "3a")}, "NameInUseError: Could not create submodule"),
        ("efficientnet_b0", {"depth": (1.0, 1.0)}, "ValueError: zip() argument 2 is shorter"),
        ("squeezenet1_1", {"squeezed": (16, 16)}, "StopIteration"),
        ("caformer_s18", {"widths": (8, 16, 24, 32)}, "ZeroDivisionError: integer division"),
        ("regnetx_002", {"widths": (24,), "depths": (1,), "group_size": 16}, "16"),
        ("resnet18", {"cardinality": 32, "base_width": 4}, "32 and 4"),
    ],
)
def test_options_that_do_not_fit_each_other_are_a_line(name, options, message):
    network = models.create(name, 10, **options)
    with pytest.raises(UserError) as error:
        network.initialise(jax.random.key(0), np.empty((1, *network.image_shape), np.float32))
    assert f"; got {message}" in str(error.value)


def test_an_error_of_a_persons_own_network_stays_what_it_is():
    def of_mine(num_classes, widths):
        return nn.Sequential([Dense(100 // width) for width in widths])

    with pytest.raises(ZeroDivisionError):
        models.create(of_mine, 10, widths=(0,))


def test_a_list_is_as_good_as_a_tuple():
    name = "swin_tiny_patch4_window7_224"
    given = models.create(name, 10, depths=[2, 2], heads=[2, 4], windows=[7, 7])
    wanted = models.create(name, 10, depths=(2, 2), heads=(2, 4), windows=(7, 7))
    assert given.module == wanted.module


def test_images_are_cropped_as_the_weights_of_a_name_want():
    names = ("resnet18", "resnet50", "resnet50d", "vgg16", "convnext_tiny")
    crops = [models.entry(name).preprocess.crop for name in names]
    assert crops == [0.95, 0.95, 0.875, 0.875, 0.95]


@pytest.mark.parametrize(
    ("names", "mean", "interpolation"),
    [
        ("alexnet vgg16 vgg16_bn squeezenet1_0 shufflenet_v2_x1_0 gernet_s", 0.485, "bilinear"),
        ("googlenet tf_efficientnet_lite3 tf_mobilenetv3_large_100", 0.5, "bilinear"),
        ("mobilenetv3_large_150d", 0.5, "bilinear"),
        ("resnet50 mobilenetv2_100 tf_efficientnet_b0 convnext_tiny", 0.485, "bicubic"),
        ("inception_v3 tf_efficientnet_lite0 vit_base_patch16_224", 0.5, "bicubic"),
    ],
)
def test_images_are_made_ready_as_each_networks_weights_expect(names, mean, interpolation):
    for name in names.split():
        preprocess = models.entry(name).preprocess
        assert (preprocess.mean[0], preprocess.interpolation) == (mean, interpolation), name


def test_a_recipes_preprocessing_goes_before_the_tables():
    network = models.create("resnet18", 10, preprocess=Preprocess(size=96))
    assert network.preprocess.size == 96
    assert network.preprocess.mean == (0.485, 0.456, 0.406)
    larger = models.create("vit_tiny_patch16_224", 10, image_size=384)
    assert (larger.preprocess.size, larger.image_shape) == (384, (384, 384, 3))


def test_every_network_takes_the_options_it_has_when_they_are_given():
    for name in models.names():
        function = getattr(import_module(f"imgclf.models.{models.entry(name).family}"), name)
        parameters = inspect.signature(function).parameters.values()
        options = {p.name: p.default for p in parameters if p.default is not p.empty}
        options = {k: v for k, v in options.items() if k not in ("parent", "name")}
        assert models.create(name, 10, **options).module == models.create(name, 10).module, name


def test_of_a_persons_function_only_plain_kinds_and_rates_are_checked():
    def mine(num_classes, kind: np.dtype = np.dtype("uint8"), drop_rate=0.1, least: "float" = -1.0):
        return Dense(num_classes)

    models.create(mine, 10, kind="float32", least=-2.0)
    for wrong in ("abc", None, (0.1, 0.2)):
        with pytest.raises(UserError, match="The `drop_rate` of mine must be a share"):
            models.create(mine, 10, drop_rate=wrong)


def test_a_persons_function_makes_a_network_with_its_options():
    from flax import linen as nn

    def mine(num_classes, width=3):
        return nn.Dense(num_classes * width)

    network = models.create(mine, 10, width=2)
    assert (network.name, network.preprocess, network.module.features) == ("mine", PLAIN, 20)
    with pytest.raises(UserError, match="did you mean 'width'"):
        models.create(mine, 10, widht=2)
