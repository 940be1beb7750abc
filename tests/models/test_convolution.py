"""Convolution on CPU is computed in other ways than XLA's own operation, and must be the same.

The devices of one test are simulated, which must be asked for before jax starts: this file is run
as a program by it.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgclf import models
from imgclf.models.layers import Conv, fast_small, fast_stem, plain_operations
from imgclf.models.layers.convolution import convolve
from imgclf.models.layers.fast_convolution import Window

CASES = {
    # kernel, stride, padding, (inputs, outputs, groups)
    "3x3": ((3, 3), 1, 1, (4, 6, 1)),
    "3x3 stride 2": ((3, 3), 2, 1, (4, 6, 1)),
    "3x3 as TensorFlow": ((3, 3), 2, "SAME", (4, 6, 1)),
    "3x3 asymmetric": ((3, 3), 2, ((0, 2), (1, 0)), (4, 6, 1)),
    "3x3 stride 2 of many channels": ((3, 3), 2, 1, (32, 8, 1)),
    "3x5 stride 2 of many channels": ((3, 5), 2, "SAME", (32, 8, 1)),
    "7x7 stride 2 of many channels": ((7, 7), 2, ((0, 3), (8, 1)), (32, 8, 1)),
    "3x3 unpadded, a row left over": ((3, 3), 4, 0, (4, 6, 1)),
    "1x1": ((1, 1), 1, 0, (4, 6, 1)),
    "1x1 stride 2": ((1, 1), 2, 0, (4, 6, 1)),
    "1x1 padded": ((1, 1), 2, ((3, 3), (0, 1)), (4, 6, 1)),
    "1x7": ((1, 7), 1, ((0, 0), (3, 3)), (4, 6, 1)),
    "7x1 stride 2": ((7, 1), 2, "SAME", (4, 6, 1)),
    "2x2 padded by more than itself": ((2, 2), 2, 3, (4, 6, 1)),
    "7x7 stem": ((7, 7), 2, 3, (3, 8, 1)),
    "7x7 stem with rows left over": ((7, 7), 2, ((0, 0), (4, 0)), (3, 8, 1)),
    "11x11 stem": ((11, 11), 4, 2, (3, 8, 1)),
    "5x6 stem as TensorFlow": ((5, 6), 2, "SAME", (1, 8, 1)),
    "patches": ((16, 16), 16, 0, (3, 8, 1)),
    "gaps between windows": ((2, 2), 3, 0, (4, 6, 1)),
    "dilated": ((3, 3), 1, 2, (4, 6, 1)),
    "two groups": ((5, 5), 1, 2, (48, 32, 2)),
    "merged groups": ((3, 3), 1, 1, (64, 128, 16)),
    "merged groups stride 2": ((3, 3), 2, 1, (64, 64, 16)),
    "merged groups of 1x1": ((1, 1), 2, 0, (64, 64, 16)),
    "depthwise": ((3, 3), 1, 1, (8, 8, 8)),
    "depthwise stride 2": ((5, 5), 2, "SAME", (8, 8, 8)),
    "depthwise with gaps": ((2, 2), 3, 1, (8, 8, 8)),
    "depthwise stride 3": ((5, 4), 3, ((1, 4), (0, 2)), (8, 8, 8)),
    "depthwise asymmetric": ((3, 2), 2, ((0, 1), (2, 0)), (8, 8, 8)),
    "depthwise with a multiplier": ((3, 3), 1, 1, (6, 12, 6)),
    "large depthwise": ((13, 13), 1, 6, (4, 4, 4)),
}
KINDS = ("3x3 stride 2", "1x1", "merged groups", "depthwise stride 2")


def case(name, batch=4, dtype=jnp.float32):
    """The convolution, the reference, images, a kernel and a gradient of the output."""
    taps, stride, padding, (inputs, outputs, groups) = CASES[name]
    padding = ((padding,) * 2,) * 2 if isinstance(padding, int) else padding
    dilation = 2 if name == "dilated" else 1

    def function(x, kernel):
        return convolve(x, kernel, stride, padding, groups, dilation)

    def reference(x, kernel):
        # Padded beforehand, since XLA itself is wrong in some gradients of what is padded widely.
        extents = [dilation * (k - 1) + 1 for k in taps]
        sides = padding
        if padding == "SAME":
            sides = jax.lax.padtype_to_pads(x.shape[1:3], extents, (stride, stride), "SAME")
        return jax.lax.conv_general_dilated(
            jnp.pad(x, ((0, 0), *sides, (0, 0))),
            kernel,
            (stride, stride),
            "VALID",
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, 18, 17, inputs)), dtype)
    shape = (*taps, inputs // groups, outputs)
    kernel = jnp.asarray(rng.normal(size=shape) / np.prod(shape[:3]) ** 0.5, dtype)
    gradient = rng.normal(size=jax.eval_shape(reference, x, kernel).shape)
    return function, reference, x, kernel, jnp.asarray(gradient, dtype)


def all_three(function):
    """The output and both gradients."""

    def run(x, kernel, gradient):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(gradient)

    return run


def agree(got, expected, tolerance=1e-5):
    for name, a, b in zip(("output", "by input", "by kernel"), got, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_are_those_of_the_plain_operation(name):
    function, reference, *arrays = case(name)
    agree(jax.jit(all_three(function))(*arrays), jax.jit(all_three(reference))(*arrays))


@pytest.mark.parametrize("name", KINDS)
def test_the_same_comes_out_in_loops_and_for_many_at_once(name):
    function, reference, x, kernel, gradient = case(name)
    xs, kernels = jnp.stack([x, 2 * x, -x]), jnp.stack([kernel, -kernel, 3 * kernel])
    gradients = jnp.stack([gradient] * 3)
    run, expected = all_three(function), jax.vmap(all_three(reference))(xs, kernels, gradients)

    @jax.jit
    def in_a_loop(*arrays):
        return jax.lax.scan(lambda _, each: (0, run(*each)), 0, arrays)[1]

    agree(in_a_loop(xs, kernels, gradients), expected)
    agree(jax.jit(jax.vmap(run))(xs, kernels, gradients), expected)


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_is_as_near_to_float32_as_its_digits_allow(name):
    function, reference, *arrays = case(name)
    halves = [each.astype(jnp.bfloat16) for each in arrays]
    expected = jax.jit(all_three(reference))(*(each.astype(jnp.float32) for each in halves))
    found = jax.jit(all_three(function))(*halves)
    assert {each.dtype for each in found} == {jnp.dtype(jnp.bfloat16)}
    agree([each.astype(jnp.float32) for each in found], expected, 2e-2)


def test_forward_mode_needs_the_switch_which_counts_in_compiled_functions_too():
    function, reference, x, kernel, _ = case("merged groups")
    along = jax.jit(lambda x, kernel: jax.jvp(lambda x: function(x, kernel), (x,), (x,)))
    with pytest.raises(TypeError, match="forward-mode"):
        along(x, kernel)
    with plain_operations():
        y, moved = along(x, kernel)
        assert "custom_vjp" not in str(jax.make_jaxpr(function)(x, kernel))
    np.testing.assert_allclose(y, reference(x, kernel), atol=1e-5)
    np.testing.assert_allclose(moved, y, atol=1e-5)  # linear: along itself
    assert "custom_vjp" in str(jax.make_jaxpr(function)(x, kernel))
    with pytest.raises(TypeError, match="forward-mode"):
        along(x, kernel)


@pytest.mark.parametrize("name", KINDS)
def test_accelerators_are_given_the_plain_operation_alone(name):
    function, _, *arrays = case(name)
    *_, (_, _, groups) = CASES[name]
    lowered = jax.jit(all_three(function)).trace(*arrays).lower(lowering_platforms=("cuda",))
    program = lowered.as_text()
    assert program.count("stablehlo.convolution") == 3
    assert f"feature_group_count = {groups} " in program
    for other in ("while", "barrier", "dot_general", "dynamic"):
        assert f"stablehlo.{other}" not in program


STEMS = [name for name in CASES if "stem" in name]


@pytest.mark.parametrize("name", STEMS)
def test_gpus_compute_a_stem_by_blocks_to_the_same_values(name):
    function, reference, x, kernel, gradient = case(name)
    taps, stride, padding, _ = CASES[name]
    if padding == "SAME":
        padding = jax.lax.padtype_to_pads(x.shape[1:3], taps, (stride, stride), "SAME")
    padding = ((padding,) * 2,) * 2 if isinstance(padding, int) else tuple(padding)
    window = Window(stride, padding)
    assert fast_stem.suits(window, x, kernel)
    got = all_three(lambda x, kernel: fast_stem.forward(window, x, kernel))(x, kernel, gradient)
    agree(got, all_three(reference)(x, kernel, gradient))
    lowered = jax.jit(function).trace(x, kernel).lower(lowering_platforms=("cuda",))
    blocks = f"{stride * stride * x.shape[-1]}x8xf32>"
    program = lowered.as_text()
    assert program.count("stablehlo.convolution") == 1 and f"x{blocks}) -> " in program


SMALL = [name for name in CASES if "groups" in name or "depthwise" in name]


@pytest.mark.parametrize("name", SMALL)
def test_gpus_recognise_weight_gradients_of_groups_in_small_images(name):
    function, reference, x, kernel, _ = case(name)
    taps, stride, padding, (*_, groups) = CASES[name]
    x = x[:, : taps[0] + 1, : taps[1]]
    gradient = jnp.cos(jnp.arange(reference(x, kernel).size, dtype=x.dtype))
    gradient = gradient.reshape(reference(x, kernel).shape)
    if padding == "SAME":
        padding = jax.lax.padtype_to_pads(x.shape[1:3], taps, (stride, stride), "SAME")
    padding = ((padding,) * 2,) * 2 if isinstance(padding, int) else tuple(padding)
    window = Window(stride, padding, groups)
    assert fast_small.suits(window, x, kernel)
    got = all_three(lambda x, kernel: fast_small.forward(window, x, kernel))(x, kernel, gradient)
    agree(got, all_three(reference)(x, kernel, gradient))
    lowered = jax.jit(all_three(function)).trace(x, kernel, gradient)
    program = lowered.lower(lowering_platforms=("cuda",)).as_text()
    larger = [max(n, k + 1) for n, k in zip(gradient.shape[1:3], taps, strict=True)]
    assert f"{gradient.shape[0]}x{larger[0]}x{larger[1]}x{gradient.shape[3]}xf32>" in program


class Three(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        x = Conv(64, 3, name="dense")(images)
        x = Conv(64, 3, 2, groups=16, name="grouped")(x)
        x = Conv(64, 7, groups=64, name="depthwise")(x)
        return nn.Dense(2, name="head")(x.mean((1, 2)))


def test_multiply_adds_are_those_of_the_plain_operation():
    network = models.create(lambda num_classes: Three(), 2)
    layers = {each.name: each.multiply_adds for each in models.layers_of(network, (2, 16, 16, 3))}
    assert layers == {
        "dense": 2 * 16 * 16 * 9 * 3 * 64,
        "grouped": 2 * 8 * 8 * 9 * 4 * 64,
        "depthwise": 2 * 8 * 8 * 49 * 64,
        "head": 2 * 64 * 2,
    }


def test_eight_devices_share_the_images_and_exchange_none():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-W", "error", __file__]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


def compare_on_eight_devices():
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    assert jax.device_count() == 8
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    for name in KINDS:
        function, reference, *arrays = case(name, batch=16)
        run = jax.jit(
            all_three(function),
            in_shardings=(rows, whole, rows),
            out_shardings=(rows, rows, whole),
        )
        program = run.lower(*arrays).compile()
        agree(
            program(*jax.device_put(tuple(arrays), (rows, whole, rows))),
            all_three(reference)(*arrays),
        )
        lines = [line for line in program.as_text().splitlines() if "replica_groups" in line]
        others = [line for line in lines if " all-reduce" not in line]
        assert lines and not others, f"{name}: {others}"


if __name__ == "__main__":
    compare_on_eight_devices()
