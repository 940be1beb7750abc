"""How each family's parameters begin: every one of them, as the family's reference has it.

The reference is the function that timm (torchvision, where timm has no such network) begins its
networks by; each family's is named in the table. No network is compiled or run: its parameters'
initialisers are gathered while its shapes are worked out, and each is drawn from many times.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgclf import models

DRAWN = 4_000
"""Values of each random parameter, at least."""
ERRORS = 5
"""How many standard errors a statistic may be off."""


@dataclass(frozen=True)
class Spread:
    """What the values of a parameter are like."""

    mean: float
    deviation: float = 0.0
    kurtosis: float = 0.0
    """The fourth power's mean in squares of the variance: 3 if normal, 1.8 if uniform."""
    farthest: float = 0.0
    """From the mean."""

    def check(self, path: str, values: np.ndarray) -> None:
        if not self.deviation:
            np.testing.assert_array_equal(values, np.float32(self.mean), err_msg=path)
            return
        root, off = values.size**0.5, values - self.mean
        found = np.mean(off**2) ** 0.5 / self.deviation
        error = ((self.kurtosis - 1) / 4) ** 0.5 / root
        assert abs(found - 1) < ERRORS * error, f"{path}: {found:.3f} of the reference's deviation"
        assert abs(off.mean()) < ERRORS * self.deviation / root, f"{path}: another mean"
        kurtosis = np.mean(off**4) / np.mean(off**2) ** 2
        assert abs(kurtosis - self.kurtosis) < ERRORS * 24**0.5 / root, f"{path}: another form"
        assert np.abs(off).max() <= self.farthest * (1 + 1e-6), f"{path}: beyond the bound"


@dataclass(frozen=True)
class Parameter:
    """Where a parameter is used, which is what its spread follows from."""

    shape: tuple[int, ...]
    inputs: int
    """Of an output of its layer (fan in)."""
    outputs: int
    """That an input of its layer reaches, were it not grouped (fan out)."""
    groups: int
    values: np.ndarray
    """Those of many such parameters, along the first axis."""


Rule = Spread | Callable[[Parameter], Spread]
Rules = Mapping[str, Rule | tuple[Rule, Rule]]
"""By patterns of paths, of which the first that fits counts. Of two rules, one is for the first
half of the outputs and one for the second."""


def normal(deviation: float, mean: float = 0.0) -> Spread:
    return Spread(mean, deviation, 3.0, 6 * deviation)


def within_two(deviation: float) -> Spread:
    """A normal distribution of that deviation before it is cut off at two of them."""
    return Spread(0.0, 0.87963 * deviation, 2.3655, 2 * deviation)


def within(bound: float) -> Spread:
    """A uniform distribution."""
    return Spread(0.0, bound / 3**0.5, 1.8, bound)


def pytorch(p: Parameter) -> Spread:
    """`reset_parameters` of `nn.Linear` and `nn.Conv2d`, for weights and for biases."""
    return within(p.inputs**-0.5)


def he_out(p: Parameter) -> Spread:
    """`kaiming_normal_(mode="fan_out")`, which counts the outputs of all groups."""
    return normal((2 / p.outputs) ** 0.5)


def he_out_by_group(p: Parameter) -> Spread:
    """The same over one group's outputs (`fan_out //= groups`)."""
    return normal((2 * p.groups / p.outputs) ** 0.5)


def he_in(p: Parameter) -> Spread:
    """`kaiming_normal_`."""
    return normal((2 / p.inputs) ** 0.5)


def he_uniform(p: Parameter) -> Spread:
    """`kaiming_uniform_`."""
    return within((6 / p.inputs) ** 0.5)


def lecun(p: Parameter) -> Spread:
    """`kaiming_normal_(nonlinearity="linear")`."""
    return normal(p.inputs**-0.5)


def lecun_cut(p: Parameter) -> Spread:
    """`lecun_normal_`: cut off at two deviations, and made up for."""
    return within_two(p.inputs**-0.5 / 0.87963)


def xavier(p: Parameter) -> Spread:
    """`xavier_uniform_`."""
    return within((6 / (p.inputs + p.outputs)) ** 0.5)


def per_class(p: Parameter) -> Spread:
    """TensorFlow's for the classifiers of MobileNets and EfficientNets."""
    return within(p.outputs**-0.5)


def latent(p: Parameter) -> Spread:
    """The query of timm's `AttentionPoolLatent`."""
    return within_two(p.shape[-1] ** -0.5)


def lstm(p: Parameter) -> Spread:
    """`reset_parameters` of `nn.LSTM`, which has four gates."""
    return within((p.shape[0] / 4) ** -0.5)


def gru(p: Parameter) -> Spread:
    """`reset_parameters` of `nn.GRU`, which has three gates."""
    return within((p.shape[0] / 3) ** -0.5)


ZERO, ONE = Spread(0.0), Spread(1.0)
SMALL, NEARLY_ZERO = normal(0.02), normal(1e-6)
NORMS = {"*.scale": ONE, "*.bias": ZERO}
"""What comes last for most families. A bias of another layer than a norm begins as zero, too."""

RESNET = {"fc.*": pytorch, "*.kernel": he_out, **NORMS}
RESNETV2 = {"head.fc.kernel": normal(0.01), "*.kernel": he_out, **NORMS}
VOVNET = {"head.fc.kernel": pytorch, "*.kernel": he_out, **NORMS}
BYOBNET = {"head.fc.kernel": normal(0.01), "*.kernel": he_out_by_group}
EFFICIENTNET = {"classifier.kernel": per_class, "*.kernel": he_out_by_group, **NORMS}
NFNET = {"*.gain": ONE, "head.fc.kernel": normal(0.01), "*.kernel": lecun, "*.bias": ZERO}
MIXER = {"head.*": ZERO, "stem.proj.kernel": lecun_cut, "stem.proj.bias": ZERO}
PERCEPTRON = {"*.mlp_*.kernel": xavier, "*.mlp_*.bias": NEARLY_ZERO, **NORMS}
VIT = {"pos_embed": SMALL, "patch_embed.proj.*": pytorch, "blocks.*.kernel": SMALL}
VIT_WITH_TOKEN = {"cls_token": NEARLY_ZERO, **VIT}
ZERO_HEAD, SMALL_HEAD = {"head.kernel": ZERO, **NORMS}, {"head*.kernel": SMALL, **NORMS}
RECURRENT = {"rnn.*": lstm, "fc.*": pytorch}
TWO_STAGES = {"depths": (1, 1), "widths": (8, 16)}
TWO_STAGES_OF_RESNET = {"depths": (1, 1), "width": 4}
TWO_STAGES_OF_VOVNET = {**TWO_STAGES, "inner_widths": (8, 8), "stem_widths": (4, 4, 8)}
ONE_BLOCK = {"width": 8, "depth": 1}
ONE_BLOCK_OF_VIT = {**ONE_BLOCK, "heads": 2}
NARROW = {"width": 0.1, "depth": 0.1, "stem_width": 8, "head_width": 16}

BEGINNINGS: tuple[tuple[str, Mapping[str, Any], Rules], ...] = (
    # timm's ResNet.init_weights: the last norm of a block is zero, all layers but the
    # convolutions are PyTorch's.
    ("resnet18", TWO_STAGES_OF_RESNET, {"*.bn2.scale": ZERO, **RESNET}),
    ("resnext50_32x4d", {"depths": (1,), "width": 16}, {"*.bn3.scale": ZERO, **RESNET}),
    (
        "seresnet50",
        TWO_STAGES_OF_RESNET,
        {"*.bn3.scale": ZERO, "*.se.fc?.bias": pytorch, **RESNET},
    ),
    (
        "ecaresnet50d",
        TWO_STAGES_OF_RESNET,
        {"*.bn3.scale": ZERO, "*.se.conv.kernel": pytorch, **RESNET},
    ),
    # torchvision's ResNet.__init__, where no norm begins as zero; so does our own small network.
    ("cifar_resnet20", {"width": 4, "depth": 1}, RESNET),
    ("cnn", {"width": 4}, RESNET),
    # timm's resnetv2._init_weights, without zeros at a branch's end.
    ("resnetv2_18", {**TWO_STAGES, "stem_width": 8}, RESNETV2),
    ("resnetv2_50x1_bit", {"depths": (1,), "widths": (128,), "stem_width": 32}, RESNETV2),
    # timm's VovNet.__init__.
    ("vovnet39a", TWO_STAGES_OF_VOVNET, VOVNET),
    ("ese_vovnet19b_dw", TWO_STAGES_OF_VOVNET, {"*.attn.fc.bias": pytorch, **VOVNET}),
    # timm's TResNet.__init__.
    (
        "tresnet_m",
        {"depths": (1, 1, 1), "width": 4, "basic_stages": 1},
        {
            "*.layer1.*.conv2.bn.scale": ZERO,
            "*.conv3.bn.scale": ZERO,
            "head.fc.bias": pytorch,
            "*.se.fc?.bias": pytorch,
            **RESNETV2,
        },
    ),
    # timm's byobnet._init_weights, with init_weights of its blocks and of RepVggBlock.
    (
        "gernet_s",
        {
            "design": (("basic", 1, 8, 2), ("bottleneck", 1, 16, 2), ("depthwise", 1, 8, 1)),
            "last_width": 16,
        },
        {
            "stages.0.*.conv2_kxk.bn.scale": ZERO,
            "stages.*.conv3_1x1.bn.scale": ZERO,
            **BYOBNET,
            **NORMS,
        },
    ),
    (
        "repvgg_b1g4",
        {"depths": (1, 2), "widths": (8, 16), "stem_width": 8},
        {**BYOBNET, "head.fc.bias": ZERO, "*.scale": normal(0.1, 0.1), "*.bias": normal(0.1)},
    ),
    # timm's regnet._init_weights.
    (
        "regnety_002",
        {**TWO_STAGES, "group_size": 4, "stem_width": 8},
        {"*.conv3.bn.scale": ZERO, **BYOBNET, **NORMS},
    ),
    # timm's NormFreeNet.__init__; DeepMind's have the zero in a factor of its own.
    (
        "nf_regnet_b0",
        {**TWO_STAGES, "stem_width": 8, "last_width": 16},
        {"*.conv3.gain": ZERO, **NFNET},
    ),
    (
        "dm_nfnet_f0",
        {"depths": (1,), "widths": (16,), "stem_width": 16, "last_width": 32, "group_size": 4},
        {"*.skipinit_gain": ZERO, **NFNET},
    ),
    (
        "eca_nfnet_l0",
        {"depths": (1,), "widths": (32,), "stem_width": 16, "last_width": 32, "group_size": 4},
        {"stages.*.conv3.gain": ZERO, "*.attn_last.conv.kernel": pytorch, **NFNET},
    ),
    # timm's _efficientnet_builder._init_weight_goog.
    ("tf_efficientnetv2_b0", NARROW, EFFICIENTNET),
    ("mobilenetv3_small_100", NARROW, EFFICIENTNET),
    ("mobilenetv4_conv_small", NARROW, EFFICIENTNET),
    ("semnasnet_100", NARROW, EFFICIENTNET),
    # torchvision's AlexNet has PyTorch's layers, as has its ShuffleNetV2.
    ("alexnet", {"width": 4, "hidden": 16}, {"*": pytorch}),
    (
        "shufflenet_v2_x0_5",
        {"widths": (8, 16, 16), "depths": (2, 2), "stem_width": 8},
        {"fc.*": pytorch, "*.kernel": pytorch, **NORMS},
    ),
    # timm's VGG._initialize_weights.
    (
        "vgg11",
        {"depths": (1, 1), "width": 4, "hidden": 16},
        {"head.fc.kernel": normal(0.01), "*.kernel": he_out, **NORMS},
    ),
    (
        "vgg11_bn",
        {"depths": (1, 1), "width": 4, "hidden": 16},
        {"head.fc.kernel": normal(0.01), "*.kernel": he_out, **NORMS},
    ),
    # torchvision's GoogLeNet.__init__, and timm's InceptionV3.__init__.
    (
        "googlenet",
        {"share": 0.01, "auxiliary": True},
        {"fc.bias": pytorch, "aux?.fc?.bias": pytorch, "*.kernel": normal(0.01), **NORMS},
    ),
    (
        "inception_v3",
        {"share": 0.01, "auxiliary": True},
        {
            "fc.bias": pytorch,
            "AuxLogits.fc.bias": pytorch,
            "AuxLogits.fc.kernel": normal(0.001),
            "*.kernel": normal(0.1),
            **NORMS,
        },
    ),
    # torchvision's SqueezeNet.__init__, and timm's DenseNet.__init__.
    (
        "squeezenet1_1",
        {"squeezed": (2, 2, 4, 4, 4, 4, 4, 4)},
        {"classifier.1.kernel": normal(0.01), "*.kernel": he_uniform, "*.bias": ZERO},
    ),
    (
        "densenet121",
        {"depths": (2, 2), "growth": 4, "stem_widths": (8,)},
        {"classifier.kernel": pytorch, "*.kernel": he_in, **NORMS},
    ),
    # timm's convnext._init_weights and MetaFormer._init_weights.
    ("convnext_atto", TWO_STAGES, {"*.gamma": Spread(1e-6), "*.kernel": SMALL, **NORMS}),
    ("convnextv2_atto", TWO_STAGES, {"*.grn.scale": ZERO, "*.kernel": SMALL, **NORMS}),
    (
        "poolformer_s12",
        TWO_STAGES,
        {"*.layer_scale?.factor": Spread(1e-5), "*.kernel": SMALL, **NORMS},
    ),
    (
        "caformer_s18",
        {"depths": (1, 1, 1), "widths": (8, 16, 32)},
        {"*.res_scale?.factor": ONE, "*.act*.factor": ONE, "*.kernel": SMALL, **NORMS},
    ),
    # timm's mlp_mixer._init_weights, with init_weights of GluMlp and of SpatialGatingUnit.
    ("mixer_s16_224", ONE_BLOCK, {**MIXER, **PERCEPTRON}),
    (
        "gmixer_12_224",
        ONE_BLOCK,
        {
            **MIXER,
            "*.fc1.kernel": (xavier, NEARLY_ZERO),
            "*.fc1.bias": (NEARLY_ZERO, ONE),
            **PERCEPTRON,
        },
    ),
    (
        "gmlp_ti16_224",
        ONE_BLOCK,
        {
            **MIXER,
            "*.gate.norm.bias": ZERO,
            "*.gate.proj.kernel": NEARLY_ZERO,
            "*.gate.proj.bias": ONE,
            **PERCEPTRON,
        },
    ),
    (
        "resmlp_12_224",
        ONE_BLOCK,
        {
            **MIXER,
            "*.ls?": Spread(1e-4),
            "*.alpha": ONE,
            "*.beta": ZERO,
            "*.linear_tokens.kernel": xavier,
            **PERCEPTRON,
        },
    ),
    # timm's vision_transformer.init_weights_vit_timm, with init_weights of its pooling and gated
    # perceptrons; big_vision's classifiers begin as zero, timm's and DeiT's do not.
    ("vit_tiny_patch16_224", ONE_BLOCK_OF_VIT, {**VIT_WITH_TOKEN, **ZERO_HEAD}),
    (
        "vit_base_patch16_siglip_224",
        ONE_BLOCK_OF_VIT,
        {**VIT, "attn_pool.latent": latent, "attn_pool.*.kernel": SMALL, **ZERO_HEAD},
    ),
    (
        "vit_giant_patch14_reg4_dinov2",
        ONE_BLOCK_OF_VIT,
        {
            "reg_token": NEARLY_ZERO,
            "*.gamma": Spread(1e-5),
            "*.mlp.fc1.kernel": (SMALL, NEARLY_ZERO),
            "*.mlp.fc1.bias": (ZERO, ONE),
            **VIT_WITH_TOKEN,
            **ZERO_HEAD,
        },
    ),
    ("deit_tiny_patch16_224", ONE_BLOCK_OF_VIT, {**VIT_WITH_TOKEN, **SMALL_HEAD}),
    (
        "deit_tiny_distilled_patch16_224",
        ONE_BLOCK_OF_VIT,
        {"dist_token": SMALL, **VIT_WITH_TOKEN, **SMALL_HEAD},
    ),
    (
        "deit3_small_patch16_224",
        ONE_BLOCK_OF_VIT,
        {"*.gamma": Spread(1e-6), **VIT_WITH_TOKEN, **SMALL_HEAD},
    ),
    # timm's swin_transformer: init_weights_vit_timm, and the tables of WindowAttention.
    (
        "swin_tiny_patch4_window7_224",
        {"width": 8, "depths": (2, 2), "heads": (2, 2)},
        {
            "*.relative_position_bias_table": SMALL,
            "patch_embed.proj.*": pytorch,
            "*.kernel": SMALL,
            **NORMS,
        },
    ),
    # timm's swin_transformer_v2: its _init_weights, _init_respostnorm and WindowAttention.
    (
        "swinv2_tiny_window8_256",
        {"width": 8, "depths": (2, 2), "heads": (2, 2)},
        {
            "*.norm1.scale": ZERO,
            "*.norm2.scale": ZERO,
            "*.logit_scale": Spread(math.log(10)),
            "*_bias": ZERO,
            "patch_embed.proj.*": pytorch,
            "*.kernel": SMALL,
            **NORMS,
        },
    ),
    # PyTorch's nn.LSTM, nn.GRU and nn.Linear; the convolutions are as in ResNets.
    ("lstm", {"width": 8}, {"embed.proj.*": pytorch, **RECURRENT}),
    ("gru", {"width": 8}, {"embed.proj.*": pytorch, "rnn.*": gru, "fc.*": pytorch}),
    ("cnn_lstm", {"width": 4}, {**RECURRENT, "*.kernel": he_out, **NORMS}),
)


Initialiser = Callable[[jax.Array], jax.Array]
KEY = jax.random.key(0, impl="unsafe_rbg")  # Compiled in half the time.
KEYS = jax.random.split(KEY, DRAWN)


def beginnings(network: models.Network, monkeypatch: pytest.MonkeyPatch) -> dict[str, Parameter]:
    """Every parameter of a network, by its path."""
    made: dict[str, tuple[Initialiser, tuple[int, ...], int]] = {}
    make = nn.Module.param

    def note(module: nn.Module, name: str, initialiser: Any, *args: Any) -> Any:
        value = make(module, name, initialiser, *args)
        groups = getattr(module, "groups", 1)
        path = ".".join((*module.path, name))
        made[path] = (lambda key: initialiser(key, *args)), value.shape, groups
        return value

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "param", note)
        images = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
        jax.eval_shape(network.initialise, KEY, images)

    values = drawn({path: initialiser for path, (initialiser, _, _) in made.items()})
    parameters = {}
    for path, (_, shape, groups) in made.items():
        kernel = path.removesuffix("bias") + "kernel"
        *window, inputs, outputs = (1, 1, *(made[kernel][1] if kernel in made else shape))
        area = math.prod(window)
        parameters[path] = Parameter(shape, area * inputs, area * outputs, groups, values[path])
    return parameters


def drawn(initialisers: Mapping[str, Initialiser]) -> dict[str, np.ndarray]:
    """What each gives, so often that there are enough values."""
    programs = {path: str(jax.make_jaxpr(each)(KEY)) for path, each in initialisers.items()}
    # Compiling takes the time, so all at once, without optimising, and equal ones only once.
    different = {programs[path]: each for path, each in initialisers.items()}

    def draw(keys: jax.Array) -> dict[str, jax.Array]:
        found = {}
        for program, initialiser in different.items():
            size = math.prod(jax.eval_shape(initialiser, KEY).shape)
            found[program] = jax.vmap(initialiser)(keys[: -(-DRAWN // size)])
        return found

    values = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 0})(KEYS)
    return {path: np.asarray(values[program], np.float64) for path, program in programs.items()}


@pytest.mark.parametrize(
    ("name", "options", "rules"), BEGINNINGS, ids=[name for name, *_ in BEGINNINGS]
)
def test_parameters_begin_as_the_reference_says(monkeypatch, name, options, rules):
    unused = set(rules) - {*NORMS}
    network = models.create(name, 7, **options)
    for path, parameter in beginnings(network, monkeypatch).items():
        pattern = next((each for each in rules if fnmatchcase(path, each)), "")
        assert pattern, f"{path}: nothing says how it begins"
        unused.discard(pattern)
        rule, values = rules[pattern], parameter.values
        halves = np.split(values, 2, -1) if isinstance(rule, tuple) else [values]
        for each, half in zip(rule if isinstance(rule, tuple) else [rule], halves, strict=True):
            spread = each if isinstance(each, Spread) else each(parameter)
            spread.check(path, half)
    assert not unused, "patterns that fit nothing"


def test_every_family_occurs():
    families = {models.entry(name).family for name in models.names()}
    assert {models.entry(name).family for name, *_ in BEGINNINGS} == families
