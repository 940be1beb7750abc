"""How large a network is: parameters, multiply-adds, and a table of its layers."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from imgclf.models.columns import aligned
from imgclf.models.network import Network, Tree


@dataclass(frozen=True)
class Layer:
    """A submodule that holds parameters of its own or multiplies."""

    name: str
    """Its path, as `capture` takes it, such as "layer1.0.conv1"; "" is the network itself."""
    shape: tuple[int, ...]
    """Of what it returns, the batch's axis included."""
    parameters: int
    multiply_adds: int


def count_parameters(params: Tree) -> int:
    """How many numbers are trained: statistics of norms don't count."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def multiply_adds(network: Network, images_shape: Sequence[int]) -> int:
    """Multiply-adds of all convolutions and matrix products, for images (b, h, w, c) together."""
    jaxpr, _ = _trace(network, images_shape)
    return sum(count for _, count in _products(jaxpr, ()))


def sizes_of(network: Network) -> tuple[int, int]:
    """(parameters, multiply-adds) for one image of the size that the network is meant for."""
    images = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
    params, _ = jax.eval_shape(network.initialise, jax.random.key(0), images)
    return count_parameters(params), multiply_adds(network, images.shape)


def layers_of(network: Network, images_shape: Sequence[int]) -> list[Layer]:
    """The layers in the order in which they are called, for images of the shape (b, h, w, c).

    Nothing is computed. Their parameters and multiply-adds add up to the network's. Last come heads
    that are called in training alone: no shape, and no multiply-adds, of theirs are known.
    """
    jaxpr, calls = _trace(network, images_shape)
    products: Counter[str] = Counter()
    for scopes, count in _products(jaxpr, ()):
        # Deeper scopes first: "layer1/0/conv1" is a call, "layer1/0/conv1/einsum" is within one.
        inside = (".".join(scopes[:n]) for n in range(len(scopes), -1, -1))
        products[next(name for name in inside if name in calls)] += count
    return [
        Layer(name, shape, parameters, products[name])
        for name, (shape, parameters) in calls.items()
        if parameters or products[name]
    ]


def table(network: Network, images_shape: Sequence[int] = ()) -> str:
    """The layers as text, a line each, and the sums; for one image of the network's own size."""
    shape = tuple(images_shape) or (1, *network.image_shape)
    layers = layers_of(network, shape)
    rows = [("layer", "output", "parameters", "multiply-adds")]
    for layer in layers:
        output = " x ".join(map(str, layer.shape[1:]))
        numbers = (f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
        rows.append((layer.name or network.name, output, *numbers))
    parameters = sum(layer.parameters for layer in layers)
    products = sum(layer.multiply_adds for layer in layers)
    rows.append((network.name, "", f"{parameters:,}", f"{products:,}"))
    return "\n".join(aligned(rows, "<<>>"))


def _trace(
    network: Network, images_shape: Sequence[int]
) -> tuple[Jaxpr, dict[str, tuple[tuple[int, ...], int]]]:
    """The network's forward pass, and each submodule's output shape and own parameters."""
    calls: dict[str, tuple[tuple[int, ...], int]] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        name = ".".join(context.module.path)
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        calls.setdefault(name, ((), 0))  # Its place among the calls, before what it calls itself.
        answer = call(*args, **kwargs)
        calls[name] = (tuple(jax.tree.leaves(answer)[0].shape), own_parameters[name])
        return answer

    def forward(params: Tree, model_state: Tree, images: jax.Array) -> jax.Array:
        return network.apply(params, model_state, images, train=False)[0].logits

    images = jax.ShapeDtypeStruct(tuple(images_shape), jnp.float32)
    template = jax.eval_shape(network.initialise, jax.random.key(0), images)
    own_parameters: Counter[str] = Counter()
    for keys, leaf in flatten_dict(template[0]).items():
        own_parameters[".".join(keys[:-1])] += leaf.size
    with nn.intercept_methods(note):
        jaxpr = jax.make_jaxpr(forward)(*template, images).jaxpr
    for name, parameters in own_parameters.items():
        calls.setdefault(name, ((), parameters))
    return jaxpr, calls


def _products(jaxpr: Jaxpr, outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """(the names of the scopes around it, multiply-adds) for each product of the program."""
    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack)
        scopes = outer + tuple(stack.split("/") if stack else ())
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            # The outermost scope is the network's own class.
            yield scopes[1:], _multiply_adds(equation)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in _inner_programs(equation):
            for names, count in _products(inner, scopes):
                yield names, times * count


def _multiply_adds(equation: JaxprEqn) -> int:
    left, right, out = (v.aval.shape for v in (*equation.invars, *equation.outvars))  # type: ignore[attr-defined]
    outputs = math.prod(out)
    dimensions = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = dimensions
        return outputs * math.prod(left[axis] for axis in contracted)
    return outputs * math.prod(right) // right[dimensions.rhs_spec[0]]


def _inner_programs(equation: JaxprEqn) -> Iterator[Jaxpr]:
    # Of the branches of a condition, the last: conditions that choose by platform count once.
    for value in equation.params.values():
        last = value[-1] if isinstance(value, tuple) and value else value
        if isinstance(last, ClosedJaxpr):
            yield last.jaxpr
        elif isinstance(last, Jaxpr):
            yield last
