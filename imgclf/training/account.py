"""What a run will hold and cost, told without computing anything."""

import math
from collections.abc import Iterator
from typing import Any

import jax

from imgclf.models.summary import count_parameters, multiply_adds
from imgclf.recipe.resolution import Resolved
from imgclf.training.feed import example_batch, is_resident
from imgclf.training.mesh import check_batch, make_mesh
from imgclf.training.program import Program
from imgclf.training.step import train_step

LARGE = 2**20
"""Arrays of the state of at least so many bytes are listed by themselves."""


def account(resolved: Resolved) -> Iterator[str]:
    """Lines on parameters, FLOPs, batch shapes, and where each large array of the state lies."""
    recipe = resolved.recipe
    mesh = make_mesh(recipe.mesh)
    for name, stream in resolved.streams.items():
        check_batch(mesh, name, stream.batch_size)
    program = Program(resolved, mesh, train_step, donate=True)
    macs = multiply_adds(resolved.network, (1, *resolved.image_shape))
    yield ""
    yield f"parameters        {count_parameters(program.state.params):,}"
    yield f"multiply-adds     {macs / 1e6:,.1f} million an image forward"
    flops = 6 * macs * resolved.images_per_step
    yield f"FLOPs             {flops / 1e9:,.1f} billion a training step"
    yield f"length            {resolved.steps:,} steps of {resolved.images_per_step} images"
    for path, each in jax.tree_util.tree_flatten_with_path(example_batch(resolved))[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=" ")
        yield f"batch {name:<11} {each.dtype} {list(each.shape)}"
    yield f"data              {'on the device' if is_resident(resolved) else 'streamed'}"
    yield f"mesh              {dict(mesh.shape)} on {mesh.size} {jax.devices()[0].device_kind}"
    leaves = jax.tree_util.tree_flatten_with_path(program.state)[0]
    total = sum(_bytes(leaf.shape, leaf.dtype) for _, leaf in leaves)
    here = sum(_bytes(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for _, leaf in leaves)
    yield f"state             {_size(total)} in {len(leaves)} arrays, {_size(here)} on each device"
    for path, leaf in leaves:
        if _bytes(leaf.shape, leaf.dtype) >= LARGE:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            axes = [axis or "-" for axis in leaf.sharding.spec] or ["replicated"]
            size = _size(_bytes(leaf.sharding.shard_shape(leaf.shape), leaf.dtype))
            yield f"  {name} {leaf.dtype}{list(leaf.shape)}: {', '.join(axes)}, {size} a device"


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * dtype.itemsize


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024
    return ""
