"""Eight simulated devices, in a process of their own, against one.

They must be asked for before jax starts: this file is run as a program by its own tests.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import imgclf
from imgclf import Average, Data, Log, Mesh, Model, Recipe, Steps, UserError
from imgclf.augmentation import Mixup, Translate
from imgclf.data import Digits, Synthetic
from imgclf.models.layers import BatchNorm, Conv, Dense
from imgclf.recipe import resolve
from imgclf.schedules import Constant
from imgclf.training.checkpoints import Checkpoints, restore
from imgclf.training.feed import Streamed
from imgclf.training.loop import Options, train
from imgclf.training.mesh import (
    AXES,
    batch_sharding,
    check_batch,
    gathering,
    make_mesh,
    state_shardings,
)
from imgclf.training.program import Program
from imgclf.training.step import train_step

HOME = Path(imgclf.__file__).parent.parent
Sizes = tuple[int, int, int]
"""Of the axes data, fsdp and tensor."""
ONE, DATA, FSDP, TENSOR = (1, 1, 1), (8, 1, 1), (2, 4, 1), (2, 2, 2)


def with_devices(count: int, *words: str, **environment: str) -> str:
    """What a program of Python says that sees so many devices."""
    flags = f"--xla_force_host_platform_device_count={count}"
    path = {"PYTHONPATH": str(HOME), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *words],
        env=os.environ | path | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(count: int, function: str, *arguments: Any, **environment: str) -> Any:
    """What a function of this file gives in a process with so many devices."""
    said = with_devices(count, __file__, function, json.dumps(arguments), **environment)
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize(
    ("sizes", "shape", "spec"),
    [
        (FSDP, (3, 3, 16, 32), (None, None, None, "fsdp")),
        (FSDP, (3, 3, 32, 32), (None, None, "fsdp", None)),
        (FSDP, (3, 3, 32, 6), (None, None, "fsdp", None)),
        (FSDP, (5, 3), ()),
        (FSDP, (64,), ()),
        (FSDP, (), ()),
        (DATA, (64, 64), ()),
        (TENSOR, (3, 3, 16, 32), (None, None, "fsdp", "tensor")),
        (TENSOR, (16, 32), ("fsdp", "tensor")),
        (TENSOR, (7, 7, 3, 64), (None, None, None, "tensor")),
        (TENSOR, (512, 5), ("fsdp", None)),
        ((1, 2, 4), (9, 6), (None, "fsdp")),
        (TENSOR, (64,), ()),
    ],
)
def test_without_a_rule_outputs_go_to_tensor_and_the_largest_of_the_rest_to_fsdp(
    sizes: Sizes, shape: tuple[int, ...], spec: tuple[str | None, ...]
) -> None:
    mesh: Any = jax.sharding.AbstractMesh(sizes, AXES)
    placed = state_shardings(mesh, (), {"array": jax.ShapeDtypeStruct(shape, jnp.float32)})
    assert tuple(axis for axis in placed["array"].spec) == spec or not (
        spec or any(placed["array"].spec)
    )


def test_the_first_rule_that_matches_and_fits_comes_before_the_shape() -> None:
    mesh: Any = jax.sharding.AbstractMesh(TENSOR, AXES)
    rules = (("head/kernel$", ("tensor", "")), ("kernel", ("", "data")), ("head", ("", "")))
    shapes = {"head": {"kernel": (8, 8), "scale": (4, 4)}, "body": {"kernel": (8, 8)}, "x": (8, 8)}
    leaves = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    placed = jax.tree.map(
        lambda sharding: tuple(sharding.spec), state_shardings(mesh, rules, leaves)
    )
    assert placed == {
        "head": {"kernel": ("tensor", None), "scale": (None, None)},
        "body": {"kernel": (None, "data")},
        "x": ("fsdp", "tensor"),
    }


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (("body/kernel", ("", "tensor")), "places nothing"),
        (("head/kernel", ("tensor",)), "places nothing"),
        (("head/kernel", ("", "model")), "must name data, fsdp or tensor; got 'model'"),
        (("nowhere", ("", "model")), "must name data, fsdp or tensor; got 'model'"),
        (("head/kernel", ("fsdp", "fsdp")), "must name fsdp once"),
        (("head/(kernel", ("", "tensor")), "is no regular expression"),
        (("head/kernel", ("", "tensor")), "which does not divide it"),
    ],
    ids=["no such path", "other dimensions", "axis", "axis, no path", "twice", "pattern", "size"],
)
def test_a_mistaken_rule_is_named(rule: tuple[str, tuple[str, ...]], said: str) -> None:
    mesh: Any = jax.sharding.AbstractMesh(TENSOR, AXES)
    leaves = {"head": {"kernel": jax.ShapeDtypeStruct((8, 7), jnp.float32)}}
    with pytest.raises(UserError) as error:
        state_shardings(mesh, (rule,), leaves)
    assert said in str(error.value) and repr(rule[0]) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_rule_that_comes_too_late_is_named() -> None:
    mesh: Any = jax.sharding.AbstractMesh(TENSOR, AXES)
    leaves = {"kernel": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    rules = (("ker", ("", "tensor")), ("kernel", ("tensor", "")))
    with pytest.raises(UserError, match="The rule 'kernel' of `Mesh` places nothing"):
        state_shardings(mesh, rules, leaves)


def digits(sizes: Sizes, run: str) -> dict[str, Any]:
    recipe = Recipe(
        data=Data(Digits(), {"test": Digits("test")}, batch_size=64, evaluate_batch_size=80),
        model=Model("cnn", dtype="float32", options={"width": 8}),
        augment=(Translate(1), Mixup()),
        length=Steps(4),
        schedule=Constant(0.01),
        log=Log(every=Steps(1), tensorboard=False),
        mesh=Mesh(*sizes),
    )
    result = train(recipe, run, options=Options(quiet=True))
    text = (Path(run) / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    last = result["metrics"]["last"]
    return {
        "losses": [line["train/loss"] for line in lines if "train/loss" in line],
        "test": [last["test/loss"], last["test/total"]],
    }


@pytest.mark.parametrize("layout", [DATA, pytest.param(TENSOR, marks=pytest.mark.slow)])
def test_eight_devices_train_and_evaluate_as_one_does(tmp_path: Path, layout: Sizes) -> None:
    one = digits(ONE, str(tmp_path / "one"))
    each = here(8, "digits", layout, str(tmp_path / "eight"))
    assert each["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert each["test"] == pytest.approx(one["test"], abs=1e-3)
    assert one["test"][1] == 360


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("meshes", HOME / "benchmarks" / "meshes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_first_gradient_is_that_of_one_device(benchmark: ModuleType, tmp_path: Path) -> None:
    # At 64 px XLA's partitioner gets it wrong where kernels are not gathered over `fsdp`.
    words = ["--first-step", str(tmp_path), "--width", "16", "--size", "64", "--meshes", "2x2x2"]
    with_devices(8, benchmark.__file__ or "", *words)
    benchmark.save_first_step(tmp_path / "1x1x1", "1x1x1", width=16, size=64)
    (loss, gradient), (other_loss, other) = (
        benchmark.load_first_step(tmp_path / name) for name in ("1x1x1", "2x2x2")
    )
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert benchmark.distance(other, gradient) < 1e-5


@pytest.mark.slow
def test_losses_and_gradients_are_the_same_for_every_mesh_and_number_of_processes(
    tmp_path: Path,
) -> None:
    output = tmp_path / "meshes.json"
    with_devices(1, str(HOME / "benchmarks" / "meshes.py"), "--output", str(output))
    found = json.loads(output.read_text())
    assert list(found["meshes"]) == ["1x1x1", "8x1x1", "2x4x1", "2x2x2"]
    assert len(found["processes"]) == 6
    for name, each in found["meshes"].items():
        assert each["first loss"] == pytest.approx(found["meshes"]["1x1x1"]["first loss"], 1e-5)
        assert each["gradient"] < 1e-5, name
    for name, each in (found["meshes"] | found["processes"]).items():
        assert each["digits losses"] < 0.001 and each["same batches"], name


class Mixer(nn.Module):
    """Patches, a block over their channels as in a transformer, a classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = Conv(32, 4, stride=4, padding=0, name="patches")(images)
        x = BatchNorm(name="norm")(x, train)
        y = nn.gelu(Dense(64, name="up")(x))
        x = x + Dense(32, name="down")(y)
        return Dense(self.num_classes, name="head")(x.mean((1, 2)))


def program(sizes: Sizes, network: Any = Mixer, accumulate: int = 1) -> Program:
    recipe = Recipe(
        data=Data(Synthetic(64, 32, 3, 10), {}, batch_size=32, threads=1, resident="no"),
        model=Model(network, dtype="float32"),
        length=Steps(4),
        accumulate=accumulate,
        average=Average(0.9),
        mesh=Mesh(*sizes),
    )
    return Program(resolve(recipe), make_mesh(recipe.mesh), train_step, donate=True)


def compiled_step(sizes: Sizes, accumulate: int) -> dict[str, Any]:
    made = program(sizes, accumulate=accumulate)
    feed = Streamed(made.resolved, batch_sharding(made.mesh), lambda _: lambda _: None)
    function = made.compile(feed, scan=False).function
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(made.state)
    ]
    leaves = jax.tree.leaves(made.state)
    before = jax.tree.leaves(function.input_shardings[0][0])
    after = jax.tree.leaves(function.output_shardings[0])
    return {
        "leaves": {
            name: (leaf.shape, a.shard_shape(leaf.shape), b.shard_shape(leaf.shape))
            for name, leaf, a, b in zip(names, leaves, before, after, strict=True)
        },
        "sent": [
            (operation, shape)
            for shape, operation in re.findall(
                r"= (.*) (all-gather|all-to-all|collective-permute)\(", function.as_text()
            )
        ],
    }


def many_compiled_steps(layouts: list[tuple[Sizes, int]]) -> list[dict[str, Any]]:
    return [compiled_step(*layout) for layout in layouts]


@pytest.fixture(scope="module")
def compiled() -> dict[tuple[Sizes, int], dict[str, Any]]:
    layouts = [(DATA, 1), (FSDP, 1), (TENSOR, 1), (FSDP, 2)]
    return dict(zip(layouts, here(8, "many_compiled_steps", layouts), strict=True))


@pytest.mark.parametrize("sizes", [DATA, FSDP, TENSOR])
def test_no_array_of_the_compiled_step_is_replicated_where_the_rule_shards_it(
    compiled: dict[tuple[Sizes, int], dict[str, Any]], sizes: Sizes
) -> None:
    _, fsdp, tensor = sizes
    parts = {"params": 0, "optimizer_state": 0, "average": 0}
    for name, (shape, before, after) in compiled[sizes, 1]["leaves"].items():
        shares = 1
        if len(shape) > 1:
            shares *= tensor if shape[-1] % tensor == 0 else 1
            others = shape if tensor == 1 or shape[-1] % tensor else shape[:-1]
            shares *= fsdp if any(length % fsdp == 0 for length in others) else 1
            parts[name.split("/")[0]] += shares > 1
        assert np.prod(before) * shares == np.prod(shape), (name, shape, before)
        assert after == before, name
    assert set(parts.values()) == ({0} if sizes == DATA else {4}), "the kernels of each part"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_compiled_step_gathers_kernels_and_never_the_batch(
    compiled: dict[tuple[Sizes, int], dict[str, Any]], accumulate: int
) -> None:
    assert compiled[DATA, 1]["sent"] == []
    step = compiled[FSDP, accumulate]
    sent = step["sent"]
    assert {operation for operation, _ in sent} == {"all-gather"}
    kernels = [list(shape) for shape, *_ in step["leaves"].values() if len(shape) > 1]
    for _, shape in sent:
        assert json.loads(re.sub(r"f32(\[.*\])\{.*", r"\1", shape)) in kernels, shape


def test_gathered_parameters_lie_whole_over_the_axes_of_the_batch_alone() -> None:
    mesh = make_mesh(Mesh(1, 1, 1))
    placement = {
        "kernel": jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
    }
    gather = gathering(placement)
    text = jax.jit(gather).lower({"kernel": jnp.ones((4, 4))}).as_text()
    assert re.findall(r"sharding_constraint.*<@mesh, \[(.*)\]>", text) == [
        '{"fsdp"}, {"tensor"}',
        '{}, {"tensor"}',
    ]


def filled(made: Program) -> Any:
    """A state whose every element is its own place, made without a whole copy on any device."""

    def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        whole = np.arange(leaf.size).reshape(leaf.shape).astype(leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda i: whole[i])

    return jax.tree.map(fill, made.state)


def save(sizes: Sizes, network: str, folder: str) -> None:
    checkpoints = Checkpoints(Path(folder))
    checkpoints.save(filled(program(sizes, network)), 1, {})
    checkpoints.wait()
    checkpoints.close()


def restored(sizes: Sizes, network: str, folder: str) -> float:
    """Restores and compares; returns by how many times the state's size the memory grew."""
    made = program(sizes, network)
    (saved,) = Checkpoints(Path(folder)).all()
    bytes_before = peak_bytes()
    state = jax.block_until_ready(restore(saved, made.state))
    grown = peak_bytes() - bytes_before
    for leaf, like, expected in zip(
        *map(jax.tree.leaves, (state, made.state, filled(made))), strict=True
    ):
        assert leaf.sharding == like.sharding
        np.testing.assert_array_equal(leaf, expected)
    return grown / sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def peak_bytes() -> int:
    """The most memory this program has had, on Linux; `ru_maxrss` begins with its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    (line,) = [line for line in status.read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def many_restored(layouts: list[Sizes], network: str, folder: str) -> list[float]:
    return [restored(sizes, network, folder) for sizes in layouts]


def test_a_checkpoint_of_one_mesh_restores_onto_others(tmp_path: Path) -> None:
    here(8, "save", FSDP, "cnn", str(tmp_path))
    here(8, "many_restored", [DATA, TENSOR, FSDP], "cnn", str(tmp_path))
    restored(ONE, "cnn", str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux tells it")
@pytest.mark.slow
def test_restoring_onto_another_mesh_never_takes_two_whole_copies(tmp_path: Path) -> None:
    # What is freed goes back at once, so that the peak is what was held.
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    here(8, "save", FSDP, "resnet50", str(tmp_path))
    for devices, sizes in ((8, (1, 8, 1)), (8, (1, 4, 2)), (1, ONE)):
        grown = here(devices, "restored", sizes, "resnet50", str(tmp_path), **freed)
        assert 0.5 < grown < 1.8, f"{grown:.2f} times the state's size on {sizes}"


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        (Mesh(data=3), "must multiply to the number of devices (=1); got data=3, fsdp=1, tensor=1"),
        (Mesh(fsdp=0), "must be 1 or more"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(mesh: Mesh, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_mesh(mesh)
    assert said in str(error.value)


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    mesh: Any = jax.sharding.AbstractMesh((4, 2, 1), AXES)
    with pytest.raises(UserError, match=r"`batch_size` of `Data` \(=12\) must be .* = 8\)"):
        check_batch(mesh, "labelled", 12)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
