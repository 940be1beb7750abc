"""Random weights and quick answers of networks; and the reference answers: weights and images by
formula, and what the originals say to them."""

import importlib.util
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file

from imgclf import models


@pytest.fixture(scope="session")
def answer(quickly: Callable[..., Any]) -> Callable[..., models.Outputs]:
    """`answer(network, params, model_state, images, train=True)`: its outputs."""

    def run(
        network: models.Network,
        params: Any,
        model_state: Any,
        images: jax.Array,
        train: bool = False,
        key: jax.Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> models.Outputs:
        given = {"train": train, "key": key, "capture": capture}
        return network.apply(params, model_state, images, **given)[0]

    compiled = quickly(run, static_argnames=("network", "train", "capture"))

    def answer(*args: Any, **options: Any) -> models.Outputs:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args[1:]))
        return (run if traced else compiled)(*args, **options)

    return answer


@pytest.fixture(scope="session")
def weights() -> Callable[..., tuple[dict, dict]]:
    """`weights(network, images)`: random (params, model_state), of which none cuts off another.

    Where initial values do not matter: to draw those, a program must be compiled.
    """

    def value(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name, shape = path[-1].key, leaf.shape
        seed = zlib.crc32(jax.tree_util.keystr(path).encode())
        draws = np.random.default_rng(seed).normal(size=shape)
        if name == "bias" or name == "mean":
            draws *= 0.1
        elif len(shape) > 1:
            draws *= (shape[-1] / draws.size) ** 0.5
        else:
            draws = np.exp(0.1 * draws)
        return jnp.asarray(draws, leaf.dtype)

    def make(network: models.Network, images: Any) -> tuple[dict, dict]:
        shapes = jax.eval_shape(network.initialise, jax.random.key(0), images)
        return jax.tree_util.tree_map_with_path(value, shapes)

    return make


@pytest.fixture(scope="session")
def formula(shared: Path) -> ModuleType:
    path = shared / "reference" / "models" / "formula.py"
    if not path.is_file():
        pytest.skip(f"no reference answers at {path}")
    spec = importlib.util.spec_from_file_location("formula", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def same_as_reference(
    formula: ModuleType, answer: Callable[..., models.Outputs], tmp_path: Path
) -> Callable[..., None]:
    """Fails unless a network of that name is the one that gave the reference answers.

    Its parameters are as many, its multiply-adds, too; weights by formula give the kept logits,
    what goes into the classifier, and the mean over all places of the last feature map, which is
    the output of the submodule `last` (where `pre_logits` are not just that); its norms are as many
    and have the same epsilons; the weights go out as they came in, or as `written` has them.
    """

    def check(
        name: str,
        last: str = "",
        tolerance: float = 1e-5,
        written: Callable[[dict], dict] = dict,
        **options: Any,
    ) -> None:
        reference = formula.load(name)
        stored = formula.state_dict(name)
        save_file(stored, tmp_path / "weights.safetensors")
        network, params, model_state = models.load(
            name, tmp_path / "weights.safetensors", image_shape=shape(reference), **options
        )
        assert models.count_parameters(params) == reference["params"]
        assert models.multiply_adds(network, (1, *shape(reference))) == reference["macs"]
        assert norms(network, params, model_state, shape(reference)) == plain(reference["norm_eps"])
        images = formula.images(reference["input_size"])
        outputs = answer(network, params, model_state, images, capture=(last,) if last else ())
        assert formula.compare(outputs.logits, reference["logits"]) < tolerance
        into = reference.get("pre_logits", reference["features"])
        assert formula.compare(outputs.features, into) < tolerance
        if "pre_logits" in reference:
            places = outputs.captured[last]
            mean = places.reshape(len(places), -1, places.shape[-1]).mean(1)
            assert formula.compare(mean, reference["features"]) < tolerance
        models.save_weights(network, params, model_state, tmp_path / "out.safetensors")
        found, wanted = load_file(tmp_path / "out.safetensors"), written(stored)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)

    return check


def shape(reference: dict[str, Any]) -> tuple[int, int, int]:
    return reference["input_size"], reference["input_size"], 3


KINDS = ("BatchNorm", "GroupNorm", "LayerNorm", "GlobalResponseNorm", "ScaledStdConv", "StdConv")


def plain(norm_eps: dict[str, int]) -> Counter:
    """The counts of the reference with its many kinds (`LayerNorm2dNoBias`) under six names."""
    found: Counter[tuple[str, float]] = Counter()
    for said, count in norm_eps.items():
        name, epsilon = said.split()
        found[next(kind for kind in KINDS if name.startswith(kind)), float(epsilon)] += count
    return found


def norms(network: Any, params: Any, model_state: Any, image: tuple[int, int, int]) -> Counter:
    """The norms that a network calls, and the convolutions that standardise their weights."""
    found: Counter[tuple[str, float]] = Counter()

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        name = type(context.module).__name__
        name = "GlobalResponseNorm" if name == "GRN" else name
        if name in KINDS and context.method_name == "__call__":
            found[name, context.module.epsilon] += 1
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda *args: network.apply(*args, train=False)[0].logits, params, model_state, images
        )
    return found
