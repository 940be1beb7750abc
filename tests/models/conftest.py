"""The reference answers: weights and images by formula, and what the originals say to them."""

import importlib.util
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
def same_as_reference(formula: ModuleType, tmp_path: Path) -> Callable[..., None]:
    """Fails unless a network of that name is the one that gave the reference answers.

    Its parameters are as many, its multiply-adds, too; weights by formula give the kept logits,
    what goes into the classifier, and the mean over all places of the last feature map, which is
    the output of the submodule `last` (where `pre_logits` are not just that); its norms are as many
    and have the same epsilons; the weights go out as they came in.
    """

    def check(name: str, last: str = "", tolerance: float = 1e-5, **options: Any) -> None:
        reference = formula.load(name)
        stored = formula.state_dict(name)
        save_file(stored, tmp_path / "weights.safetensors")
        network, params, model_state = models.load(
            name, tmp_path / "weights.safetensors", image_shape=shape(reference), **options
        )
        assert models.count_parameters(params) == reference["params"]
        assert models.multiply_adds(network, (1, *shape(reference))) == reference["macs"]
        assert norms(network, params, model_state, shape(reference)) == plain(reference["norm_eps"])
        apply = jax.jit(
            lambda *args: network.apply(*args, train=False, capture=(last,) if last else ())[0]
        )
        outputs = apply(params, model_state, formula.images(reference["input_size"]))
        assert formula.compare(outputs.logits, reference["logits"]) < tolerance
        into = reference.get("pre_logits", reference["features"])
        assert formula.compare(outputs.features, into) < tolerance
        if "pre_logits" in reference:
            places = outputs.captured[last]
            mean = places.reshape(len(places), -1, places.shape[-1]).mean(1)
            assert formula.compare(mean, reference["features"]) < tolerance
        models.save_weights(network, params, model_state, tmp_path / "out.safetensors")
        written = load_file(tmp_path / "out.safetensors")
        assert written.keys() == stored.keys()
        for key, value in stored.items():
            np.testing.assert_array_equal(written[key], value, err_msg=key)

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
