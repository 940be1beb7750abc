import jax
import jax.numpy as jnp
import numpy as np

from imgclf.models.layers import CBAM, EfficientChannelAttention, SqueezeExcite

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(2, 5, 4, 16)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_squeeze_and_excitation_weighs_channels_by_their_means():
    layer = SqueezeExcite(4)
    params = layer.init(KEY, X)["params"]
    one, two = params["fc1"], params["fc2"]
    hidden = np.maximum(X.mean((1, 2)) @ one["kernel"][0, 0] + one["bias"], 0)
    weights = sigmoid(hidden @ two["kernel"][0, 0] + two["bias"])
    y = layer.apply({"params": params}, X)
    np.testing.assert_allclose(y, X * weights[:, None, None], atol=1e-5)


def test_efficient_attention_convolves_along_the_channels():
    kernel = np.array([0.5, -1.0, 2.0], np.float32)
    params = {"conv": {"kernel": jnp.asarray(kernel).reshape(3, 1, 1)}}
    means = np.pad(X.mean((1, 2)), ((0, 0), (1, 1)))
    weights = sigmoid(sum(kernel[i] * means[:, i : i + 16] for i in range(3)))
    y = EfficientChannelAttention().apply({"params": params}, X)
    np.testing.assert_allclose(y, X * weights[:, None, None], atol=1e-5)


def test_block_attention_weighs_channels_then_places():
    layer = CBAM(4, kernel=1)
    variables = layer.init(KEY, X, False)
    channel, spatial = variables["params"]["channel"], variables["params"]["spatial"]
    seen = [
        np.maximum(pool @ channel["fc1"]["kernel"][0, 0], 0) @ channel["fc2"]["kernel"][0, 0]
        for pool in (X.mean((1, 2)), X.max((1, 2)))
    ]
    x = X * sigmoid(seen[0] + seen[1])[:, None, None]
    kernel = spatial["conv"]["conv"]["kernel"][0, 0, :, 0]
    gate = (kernel[0] * x.mean(-1) + kernel[1] * x.max(-1)) / np.sqrt(1 + 1e-5)
    y = layer.apply(variables, X, False)
    np.testing.assert_allclose(y, x * sigmoid(gate)[..., None], atol=1e-5)
