"""What normaliser-free networks have in place of norms: scaled weights and scaled activations."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.errors import unknown
from imgclf.models.layers.activations import Activation, activation
from imgclf.models.layers.channelwise import plus
from imgclf.models.layers.convolution import Padding, convolve, sides
from imgclf.models.layers.initial import Initializer

ACTIVATION_GAINS = {
    "identity": 1.0,
    "elu": 1.2716004848480225,
    "gelu": 1.7015043497085571,
    "leaky_relu": 1.70590341091156,
    "relu": 1.7139588594436646,
    "relu6": 1.7131484746932983,
    "sigmoid": 4.803835391998291,
    "silu": 1.7881293296813965,
    "tanh": 1.5939117670059204,
}
"""The factors (gamma) by which activations keep the variance of a standard normal input."""

lecun_normal: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
"""Keeps the variance of what a layer without an activation is given."""


def activation_gain(name: str) -> float:
    """The gain of the activation called `name`; an unknown one is a `UserError` with the nearest.

    >>> round(activation_gain("relu"), 3)
    1.714
    """
    if name not in ACTIVATION_GAINS:
        raise unknown("activation with a known gain", name, ACTIVATION_GAINS)
    return ACTIVATION_GAINS[name]


def scaled_activation(name: str) -> Activation:
    """The activation called `name`, scaled so that it keeps the variance of a standard normal.

    >>> scaled_activation("relu")(jax.numpy.array([-1.0, 2.0])).tolist()
    [0.0, 3.427917718887329]
    """
    function, gain = activation(name), activation_gain(name)
    return lambda x: function(x) * gain


class ScaledStdConv(nn.Module):
    """Convolution with scaled weight standardisation (arXiv:2101.08692).

    Over its inputs, the kernel of each output is brought to mean 0 and variance 1 / inputs, then
    multiplied by `gamma` and by the trained `gain`, which has PyTorch's shape (outputs, 1, 1, 1).
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: Padding | None = None
    groups: int = 1
    gamma: float = 1.0
    """The activation's gain, where that is not in the activation itself."""
    epsilon: float = 1e-5
    gain_init: Initializer = nn.initializers.ones
    kernel_init: Initializer = lecun_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        gain = self.param("gain", self.gain_init, (self.features, 1, 1, 1), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)

        inputs = self.kernel * self.kernel * shape[2]
        centred = kernel - kernel.mean((0, 1, 2))
        variance = jnp.square(centred).mean((0, 1, 2))
        scale = gain.reshape(-1) * (self.gamma * inputs**-0.5)
        kernel = centred * (jax.lax.rsqrt(variance + self.epsilon) * scale)

        padding = sides(self.kernel // 2 if self.padding is None else self.padding)
        y = convolve(x, kernel.astype(x.dtype), self.stride, padding, self.groups)
        return plus(y, bias)
