"""Where arrays lie: the mesh of devices, and the placement of batch and state on it."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from imgclf.errors import UserError
from imgclf.recipe.value import Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(mesh: Mesh) -> jax.sharding.Mesh:
    """The devices of all processes, laid out along `data`, `fsdp` and `tensor`."""
    count, others = jax.device_count(), mesh.fsdp * mesh.tensor
    if mesh.data < 0 or others < 1:
        raise UserError(f"The axes of `Mesh` must be 1 or more (`data` also 0); got {mesh}")
    data = mesh.data or count // others
    if data * others != count:
        raise UserError(
            f"The axes of `Mesh` must multiply to the number of devices (={count}); got data="
            f"{data}, fsdp={mesh.fsdp}, tensor={mesh.tensor}"
        )
    return jax.make_mesh((data, mesh.fsdp, mesh.tensor), AXES, axis_types=(AxisType.Auto,) * 3)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Rows of a batch over the axes `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(mesh: jax.sharding.Mesh, owner: str, batch_size: int) -> None:
    """Raises a `UserError` unless the rows of a batch can be shared out evenly."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % shares:
        raise UserError(
            f"The {owner} (={batch_size}) must be divisible by the devices that share it out "
            f"(data * fsdp = {shares})"
        )


def state_shardings(mesh: jax.sharding.Mesh, rules: tuple, shapes: Any) -> Any:
    """A placement for every leaf of a state: by the first rule that matches its path and has an
    axis for each of its dimensions, else by its shape.

    Without a rule the largest dimension that divides is sharded over `fsdp`; what is smaller than
    that axis, and every scalar, is replicated.
    """

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, axes in rules:
            if len(axes) == len(leaf.shape) and re.search(pattern, name):
                return NamedSharding(mesh, _placement(mesh, pattern, axes, name, leaf.shape))
        return NamedSharding(mesh, _by_shape(mesh.shape, leaf.shape))

    return jax.tree_util.tree_map_with_path(place, shapes)


def _by_shape(axes: Mapping[str, int], shape: tuple[int, ...]) -> PartitionSpec:
    size = axes["fsdp"]
    divisible = [d for d in range(len(shape)) if shape[d] % size == 0 and shape[d] >= size]
    if size == 1 or len(shape) < 2 or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda d: shape[d])
    return PartitionSpec(*("fsdp" if d == largest else None for d in range(len(shape))))


def _placement(
    mesh: jax.sharding.Mesh, pattern: str, axes: tuple[str, ...], name: str, shape: tuple[int, ...]
) -> PartitionSpec:
    for axis, length in zip(axes, shape, strict=True):
        if axis and axis not in AXES:
            raise UserError(
                f"A placement of `Mesh.rules` must name data, fsdp or tensor; got {axis!r}"
            )
        if axis and length % mesh.shape[axis]:
            raise UserError(
                f"The rule {pattern!r} of `Mesh` shards {name} of shape {shape} over "
                f"{axis} (={mesh.shape[axis]}), which does not divide it"
            )
    return PartitionSpec(*(axis or None for axis in axes))


def put_batch(sharding: NamedSharding, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """The global batch on the devices, from this process's rows."""
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }
