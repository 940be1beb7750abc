"""Where arrays lie: the mesh of devices, and the placement of batch and state on it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from imgclf.errors import UserError
from imgclf.recipe.value import Mesh

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""The axes whose devices share out the rows of a batch."""


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
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(mesh: jax.sharding.Mesh, stream: str, batch_size: int) -> None:
    """Raises a `UserError` unless the rows of a batch of the stream can be shared out evenly."""
    field = "batch_size" if stream == "labelled" else f"{stream}_batch_size"
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % shares:
        raise UserError(
            f"The `{field}` of `Data` (={batch_size}) must be divisible by the devices that "
            f"share it out (data * fsdp = {shares})"
        )


def state_shardings(mesh: jax.sharding.Mesh, rules: tuple, shapes: Any) -> Any:
    """A placement for every leaf of a state: by the first rule that matches its path and has an
    axis for each of its dimensions, else by its shape.

    Without a rule, an array of two or more dimensions is sharded over `tensor` along its last one
    (a layer's outputs), and over `fsdp` along the largest of the others; along no dimension that
    the axis does not divide. Where `tensor` is not used, `fsdp` may take the last one too. All else
    is replicated: scales, biases and scalars always.
    """

    used = set()
    for pattern, axes in rules:
        _check_rule(pattern, axes)

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, axes in rules:
            if len(axes) == len(leaf.shape) and re.search(pattern, name):
                used.add((pattern, axes))
                return NamedSharding(mesh, _placement(mesh, pattern, axes, name, leaf.shape))
        return NamedSharding(mesh, _by_shape(mesh.shape, leaf.shape))

    placement = jax.tree_util.tree_map_with_path(place, shapes)
    for pattern, axes in rules:
        if (pattern, axes) not in used:
            raise UserError(
                f"The rule {pattern!r} of `Mesh` places nothing: no array whose path it matches, "
                f"and no rule before it, has {len(axes)} dimensions (`imgclf show` lists arrays)"
            )
    return placement


def gathering(placement: Any) -> Callable[[Any], Any]:
    """A function that makes parameters with this placement whole for a layer that uses them.

    Each device needs all weights for its own rows, so those that lie over the axes of the batch are
    gathered, and their gradient goes back to where they lie; what is sharded over `tensor` stays.
    Without it XLA's partitioner gathers the batch in places, and computes the wrong gradient of a
    convolution whose inputs and images share an axis (seen with jaxlib 0.10.2 and 0.12.0).
    """
    whole = jax.tree.map(_without_batch_axes, placement)
    if whole == placement:
        return lambda params: params

    def gather(params: Any) -> Any:
        at_home = jax.lax.with_sharding_constraint(params, placement)
        return jax.lax.with_sharding_constraint(at_home, whole)

    return gather


def _check_rule(pattern: str, axes: tuple[str, ...]) -> None:
    named = [axis for axis in axes if axis]
    for axis in named:
        if axis not in AXES:
            raise UserError(
                f"The rule {pattern!r} of `Mesh` must name data, fsdp or tensor; got {axis!r}"
            )
        if named.count(axis) > 1:
            raise UserError(f"The rule {pattern!r} of `Mesh` must name {axis} once; got {axes}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"The rule {pattern!r} of `Mesh` is no regular expression: {error}"
        ) from None


def _without_batch_axes(sharding: NamedSharding) -> NamedSharding:
    axes = (None if axis in BATCH_AXES else axis for axis in sharding.spec)
    return NamedSharding(sharding.mesh, PartitionSpec(*axes))


def _by_shape(axes: Mapping[str, int], shape: tuple[int, ...]) -> PartitionSpec:
    if len(shape) < 2:
        return PartitionSpec()
    placed: list[str | None] = [None] * len(shape)
    if axes["tensor"] > 1 and _divides(axes["tensor"], shape[-1]):
        placed[-1] = "tensor"
    free = [d for d, axis in enumerate(placed) if not axis and _divides(axes["fsdp"], shape[d])]
    if axes["fsdp"] > 1 and free:
        placed[max(free, key=lambda d: shape[d])] = "fsdp"
    return PartitionSpec(*placed)


def _divides(size: int, length: int) -> bool:
    return length > 0 and length % size == 0


def _placement(
    mesh: jax.sharding.Mesh, pattern: str, axes: tuple[str, ...], name: str, shape: tuple[int, ...]
) -> PartitionSpec:
    for axis, length in zip(axes, shape, strict=True):
        if axis and length % mesh.shape[axis]:
            raise UserError(
                f"The rule {pattern!r} of `Mesh` shards {name} of shape {shape} over "
                f"{axis} (={mesh.shape[axis]}), which does not divide it"
            )
    return PartitionSpec(*(axis or None for axis in axes))


def put_batch(
    sharding: NamedSharding, batch: Mapping[str, np.ndarray], rows: int
) -> dict[str, jax.Array]:
    """The global batch of so many rows on the devices, from this process's part of it."""
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, value, (rows, *value.shape[1:]))
        for name, value in batch.items()
    }


def share(sharding: NamedSharding, rows: int) -> tuple[int, int]:
    """Which part of a batch of so many rows this process makes: (i, n) for the i-th of n.

    Processes whose devices hold the same rows (along `tensor`) make the same part.
    """
    places = sharding.addressable_devices_indices_map((rows,)).values()
    slices = [place[0].indices(rows)[:2] for place in places if place is not None]
    first, last = min(start for start, _ in slices), max(stop for _, stop in slices)
    count = rows // (last - first)
    if len({*range(first, last)} - {i for s in slices for i in range(*s)}) or rows % count:
        raise UserError(
            f"The `Mesh` must give every process one piece of the batch; process "
            f"{jax.process_index()} has the rows {sorted(set(slices))} of {rows}"
        )
    return first // (last - first), count
