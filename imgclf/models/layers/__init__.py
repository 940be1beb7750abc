"""Layers that families share. Each computes in the type of its input; parameters are float32.

Conventions are PyTorch's, so that its weights give its answers: explicit symmetric padding, an
unbiased running variance, uniform initial values of linear layers. Images are NHWC. A layer that
does another thing in training takes `(x, train)`, and every norm does.
"""

from imgclf.models.layers.activations import Activation, ActivationName, activation, gelu, relu
from imgclf.models.layers.adaptive import (
    adaptive_average,
    adaptive_max,
    flattened,
    spatial_pyramid,
)
from imgclf.models.layers.attention import CBAM, EfficientChannelAttention, SqueezeExcite
from imgclf.models.layers.attention_pool import AttentionPool
from imgclf.models.layers.blur import blur_pool
from imgclf.models.layers.channelwise import plus, times
from imgclf.models.layers.convnormact import ConvNormAct
from imgclf.models.layers.convolution import Conv, Padding
from imgclf.models.layers.generalised import GeneralisedMean, StochasticPool
from imgclf.models.layers.head import PooledHead
from imgclf.models.layers.initial import (
    Initializer,
    he_fan_out,
    he_fan_out_of,
    last_scale,
    linear_uniform,
    truncated_normal,
)
from imgclf.models.layers.linear import Dense
from imgclf.models.layers.norms import (
    GRN,
    BatchNorm,
    GroupNorm,
    LayerNorm,
    Norm,
    norm_of,
)
from imgclf.models.layers.plain import plain_operations
from imgclf.models.layers.pooling import (
    average_pool,
    global_average,
    max_pool,
    not_empty,
    pooled,
)
from imgclf.models.layers.recurrent import Recurrent
from imgclf.models.layers.repeated import in_turn, stacked_name
from imgclf.models.layers.residual import LayerScale, StochasticDepth, linear_rates, stage_rates
from imgclf.models.layers.scaled_standardised import (
    ScaledStdConv,
    activation_gain,
    lecun_normal,
    scaled_activation,
)
from imgclf.models.layers.sequence import Numbered
from imgclf.models.layers.space_to_depth import space_to_depth
from imgclf.models.layers.standardised import StdConv
from imgclf.models.layers.stored import stored_shape
from imgclf.models.layers.tokens import (
    Attention,
    GatedMlp,
    LatentPool,
    Mlp,
    PatchEmbed,
    resized_positions,
)
from imgclf.models.layers.widths import rounded

__all__ = [
    "CBAM",
    "GRN",
    "Activation",
    "ActivationName",
    "Attention",
    "AttentionPool",
    "BatchNorm",
    "Conv",
    "ConvNormAct",
    "Dense",
    "EfficientChannelAttention",
    "GatedMlp",
    "GeneralisedMean",
    "GroupNorm",
    "Initializer",
    "LatentPool",
    "LayerNorm",
    "LayerScale",
    "Mlp",
    "Norm",
    "Numbered",
    "Padding",
    "PatchEmbed",
    "PooledHead",
    "Recurrent",
    "ScaledStdConv",
    "SqueezeExcite",
    "StdConv",
    "StochasticDepth",
    "StochasticPool",
    "activation",
    "activation_gain",
    "adaptive_average",
    "adaptive_max",
    "average_pool",
    "blur_pool",
    "flattened",
    "gelu",
    "global_average",
    "he_fan_out",
    "he_fan_out_of",
    "in_turn",
    "last_scale",
    "lecun_normal",
    "linear_rates",
    "linear_uniform",
    "max_pool",
    "norm_of",
    "not_empty",
    "plain_operations",
    "plus",
    "pooled",
    "relu",
    "resized_positions",
    "rounded",
    "scaled_activation",
    "space_to_depth",
    "spatial_pyramid",
    "stacked_name",
    "stage_rates",
    "stored_shape",
    "times",
    "truncated_normal",
]
