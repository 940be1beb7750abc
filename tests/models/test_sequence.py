from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.layers import Recurrent

KEY = jax.random.key(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_layer_is_its_equations_in_both_directions(cell):
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    layer = Recurrent(4, 1, cell, bidirectional=True)
    params = layer.init(KEY, x)["params"]
    y = layer.apply({"params": params}, x)
    for suffix, tokens, found in (("l0", x, y[..., :4]), ("l0_reverse", x[:, ::-1], y[..., 4:])):
        own = {k: np.asarray(params[f"{k}_{suffix}"]) for k in ("weight_ih", "weight_hh")}
        of_x, of_h = (np.asarray(params[f"bias_{k}_{suffix}"]) for k in ("ih", "hh"))
        h = c = np.zeros((2, 4))
        states = []
        for t in range(5):
            inputs, again = tokens[:, t] @ own["weight_ih"].T + of_x, h @ own["weight_hh"].T + of_h
            if cell == "lstm":
                i, f, g, o = np.split(inputs + again, 4, 1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (r, z, n), (r2, z2, n2) = np.split(inputs, 3, 1), np.split(again, 3, 1)
                n = np.tanh(n + sigmoid(r + r2) * n2)
                h = (1 - sigmoid(z + z2)) * n + sigmoid(z + z2) * h
            states.append(h)
        states = states if suffix == "l0" else states[::-1]
        np.testing.assert_allclose(found, np.stack(states, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "gates", "wanted"),
    [
        # Enter and leave are open, nothing is forgotten, and each token adds 0.001.
        ("lstm", (20, 20, 0.001, 20), np.tanh(1)),
        # Each token brings the state nearer to 1, by 1 - sigmoid(7) of what lacks.
        ("gru", (20, 7, 20), 1 - sigmoid(7) ** 1000),
    ],
)
def test_in_bfloat16_small_steps_add_up_over_many_tokens(cell, gates, wanted):
    x = jnp.zeros((1, 1000, 1), jnp.bfloat16)
    layer = Recurrent(1, 1, cell)
    params = jax.tree.map(jnp.zeros_like, layer.init(KEY, x)["params"])
    params["bias_ih_l0"] = jnp.array(gates, jnp.float32)
    states = layer.apply({"params": params}, x)
    assert states.dtype == jnp.bfloat16
    assert float(states[0, -1, 0]) == pytest.approx(wanted, rel=0.005)


def test_the_width_of_images_read_by_rows_is_fixed_and_of_others_is_not(answer, weights):
    images = jnp.ones((2, 8, 8, 1))
    network = models.create("lstm", 3, width=4)
    params, state = weights(network, images)
    taller = jax.eval_shape(partial(answer, network), params, state, jnp.ones((2, 11, 8, 1)))
    assert taller.logits.shape == (2, 3)
    with pytest.raises(UserError, match=r"the width that its weights are for \(=8\); got 9"):
        network.apply(params, state, jnp.ones((2, 8, 9, 1)), train=False)
    for name, options in (("gru", {"tokens": "patches"}), ("cnn_lstm", {})):
        network = models.create(name, 3, "bfloat16", width=4, bidirectional=True, **options)
        logits = answer(network, *weights(network, images), jnp.ones((2, 9, 14, 1))).logits
        assert np.isfinite(logits).all()


def test_unknown_tokens_are_refused():
    with pytest.raises(
        UserError, match="Unknown tokens of gru 'columns'; there are: patches, rows"
    ):
        models.create("gru", 3, tokens="columns").initialise(KEY, jnp.ones((1, 8, 8, 1)))
