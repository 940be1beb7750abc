"""RepVGG (Ding et al. 2021, arXiv:2101.03697), as timm builds it.

It is trained with several branches in a block (3x3, 1x1 and identity, each with its norm); for
inference `fuse` makes them one 3x3 convolution with the same answers.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from imgclf.errors import UserError
from imgclf.models.layers import (
    BatchNorm,
    Conv,
    ConvNormAct,
    Norm,
    Numbered,
    PooledHead,
    StochasticDepth,
    he_fan_out_of,
    linear_rates,
    relu,
)
from imgclf.models.network import Network, Outputs, Tree

_EPSILON = BatchNorm.epsilon


class Block(nn.Module):
    """Branches `conv_kxk`, `conv_1x1` and, where the shape stays, `identity`, added up.

    Or, if it is `fused`, the one convolution `reparam_conv`.
    """

    features: int
    stride: int
    groups: int
    drop_path: float
    fused: bool
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        init = he_fan_out_of(self.groups)
        if self.fused:
            return relu(
                Conv(
                    self.features,
                    3,
                    self.stride,
                    groups=self.groups,
                    use_bias=True,
                    kernel_init=init,
                    bias_init=nn.initializers.zeros,
                    name="reparam_conv",
                )(x)
            )
        convolution = partial(
            ConvNormAct,
            self.features,
            stride=self.stride,
            groups=self.groups,
            act="identity",
            norm=self.norm,
            kernel_init=init,
        )
        y = convolution(kernel=3, name="conv_kxk")(x, train)
        y = y + convolution(kernel=1, name="conv_1x1")(x, train)
        if self.stride == 1 and x.shape[-1] == self.features:
            y = StochasticDepth(self.drop_path)(y, train)
            y = y + self.norm(name="identity")(x, train)
        return relu(y)


class RepVGG(nn.Module):
    """A block as stem, four stages (`stages.0` to `stages.3`), global average, `head.fc`."""

    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem_width: int = 64
    groups: int = 1
    """Groups of the convolutions of every second block of a stage."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """Rate of the last block; it grows linearly from 0 at the first. The identity always stays."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Whether every place is classified, in place of their mean."""
    fused: bool = False
    """Whether it is the form for inference, whose parameters `fuse` makes."""

    classifier: ClassVar[str] = "head.fc"

    @property
    def stem(self) -> str:
        """Path of the 3x3 convolution that reads the images."""
        return "stem.reparam_conv" if self.fused else "stem.conv_kxk.conv"

    @property
    def other_stems(self) -> tuple[str, ...]:
        """Paths of further convolutions that read the images."""
        return () if self.fused else ("stem.conv_1x1.conv",)

    @property
    def stages(self) -> tuple[str, ...]:
        """Paths of the submodules that are the stages."""
        return tuple(f"stages.{i}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(
            BatchNorm, groups=self.batch_groups, scale_init=_around(0.1), bias_init=_around(0.0)
        )
        block = partial(Block, fused=self.fused, norm=norm)
        rates = linear_rates(self.stochastic_depth, sum(self.depths))
        stages = []
        for depth, width in zip(self.depths, self.widths, strict=True):
            blocks = tuple(
                partial(
                    block,
                    features=width,
                    stride=1 if i else 2,
                    groups=self.groups if i % 2 else 1,
                    drop_path=rates.pop(0),
                )
                for i in range(depth)
            )
            stages.append(partial(Numbered, blocks))
        x = block(self.stem_width, stride=2, groups=1, drop_path=0.0, name="stem")(images, train)
        x = Numbered(tuple(stages), name="stages")(x, train)
        head = PooledHead(
            self.num_classes,
            self.drop_rate,
            self.dense,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=nn.initializers.zeros,
            name="head",
        )
        return Outputs(*head(x, train))


def fuse(network: Network, params: Tree, model_state: Tree) -> tuple[Network, dict, dict]:
    """(network, params, model_state) of the form for inference, with the same logits.

    Raises a `UserError` for a network that is no RepVGG, or is fused already.

        network, params, model_state = fuse(*load("repvgg_a0", "repvgg_a0.safetensors"))
    """
    module = network.module
    if not isinstance(module, RepVGG) or module.fused:
        raise UserError(
            f"The `network` of `fuse` must be a RepVGG in its training form; got `{network.name}`"
            f"{' that is fused' if isinstance(module, RepVGG) else ''}"
        )
    flat, statistics = flatten_dict(params), flatten_dict(model_state["batch_stats"])
    fused = {keys: value for keys, value in flat.items() if keys[0] == "head"}
    for keys in flat:
        if keys[-3:] == ("conv_kxk", "conv", "kernel"):
            block = keys[:-3]
            depth = len(block)
            kernel, bias = _fused_block(
                {k[depth:]: v for k, v in flat.items() if k[:depth] == block},
                {k[depth:]: v for k, v in statistics.items() if k[:depth] == block},
            )
            fused[*block, "reparam_conv", "kernel"] = kernel
            fused[*block, "reparam_conv", "bias"] = bias
    network = dataclasses.replace(network, module=module.clone(fused=True))
    return network, unflatten_dict(fused), {}


def _fused_block(
    params: Mapping[tuple[str, ...], Any], statistics: Mapping[tuple[str, ...], Any]
) -> tuple[jax.Array, jax.Array]:
    def factor_and_bias(*norm: str) -> tuple[jax.Array, jax.Array]:
        deviation = jnp.sqrt(statistics[*norm, "var"] + _EPSILON)
        factor = params[*norm, "scale"] / deviation
        return factor, params[*norm, "bias"] - statistics[*norm, "mean"] * factor

    kernel = jnp.asarray(params["conv_kxk", "conv", "kernel"])
    factor, bias = factor_and_bias("conv_kxk", "bn")
    kernel = kernel * factor
    factor, more = factor_and_bias("conv_1x1", "bn")
    kernel = kernel.at[1, 1].add(params["conv_1x1", "conv", "kernel"][0, 0] * factor)
    bias = bias + more
    if ("identity", "scale") in params:
        factor, more = factor_and_bias("identity")
        outputs = jnp.arange(kernel.shape[-1])
        # In its group, an output's own channel.
        kernel = kernel.at[1, 1, outputs % kernel.shape[2], outputs].add(factor)
        bias = bias + more
    return kernel, bias


def _around(mean: float) -> nn.initializers.Initializer:
    def normal(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return mean + 0.1 * jax.random.normal(key, shape, dtype)

    return normal


_A = partial(RepVGG, depths=(2, 4, 14, 1))
_B = partial(RepVGG, depths=(4, 6, 16, 1))

repvgg_a0 = partial(_A, widths=(48, 96, 192, 1280), stem_width=48)
repvgg_a1 = partial(_A, widths=(64, 128, 256, 1280))
repvgg_a2 = partial(_A, widths=(96, 192, 384, 1408))
repvgg_b0 = partial(_B, widths=(64, 128, 256, 1280))
repvgg_b1 = partial(_B, widths=(128, 256, 512, 2048))
repvgg_b1g4 = partial(repvgg_b1, groups=4)
repvgg_b2 = partial(_B, widths=(160, 320, 640, 2560))
repvgg_b2g4 = partial(repvgg_b2, groups=4)
repvgg_b3 = partial(_B, widths=(192, 384, 768, 2560))
repvgg_b3g4 = partial(repvgg_b3, groups=4)
