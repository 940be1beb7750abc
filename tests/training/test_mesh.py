"""Eight simulated devices, in a process of their own, against one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import imgclf
from imgclf import Mesh, UserError
from imgclf.training.mesh import check_batch, make_mesh

PROGRAM = """
import dataclasses, json, sys
import jax
from imgclf import Data, Log, Mesh, Model, Recipe, Steps
from imgclf.augmentation import Mixup, Translate
from imgclf.data import Digits
from imgclf.recipe import resolve
from imgclf.training.loop import Options, train
from imgclf.training.mesh import make_mesh
from imgclf.training.program import Program
from imgclf.training.step import train_step

recipe = Recipe(
    data=Data(Digits(), {"test": Digits("test")}, batch_size=64, evaluate_batch_size=80),
    model=Model("cnn", dtype="float32", options={"width": 8}),
    augment=(Translate(1), Mixup()),
    length=Steps(4),
    schedule=__import__("imgclf.schedules").schedules.Constant(0.01),
    log=Log(every=Steps(1), tensorboard=False),
)
found = {}
for name, mesh in json.loads(sys.argv[1]).items():
    one = dataclasses.replace(recipe, mesh=Mesh(*mesh))
    result = train(one, f"run-{name}", options=Options(quiet=True))
    lines = [json.loads(line) for line in open(f"run-{name}/metrics.jsonl")]
    state = Program(resolve(one), make_mesh(one.mesh), train_step, donate=True).state
    kernel = state.params["stage2"]["conv2"]["kernel"]
    found[name] = {
        "losses": [line["train/loss"] for line in lines if "train/loss" in line],
        "test": result["metrics"]["last"]["test/loss"],
        "total": result["metrics"]["last"]["test/total"],
        "shard": kernel.sharding.shard_shape(kernel.shape),
    }
print(json.dumps(found))
"""


def losses(folder: Path, devices: int, meshes: dict[str, tuple[int, int, int]]) -> dict:
    flags = f"--xla_force_host_platform_device_count={devices}"
    home = str(Path(imgclf.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(meshes)],
        cwd=folder,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": home},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_losses_on_eight_devices_are_those_on_one_and_the_rule_shards_what_it_says(
    tmp_path: Path,
) -> None:
    (one,) = losses(tmp_path, 1, {"one": (1, 1, 1)}).values()
    many = losses(tmp_path, 8, {"data": (8, 1, 1), "fsdp": (2, 4, 1)})
    for name, each in many.items():
        assert each["losses"] == pytest.approx(one["losses"], abs=1e-4), name
        assert each["test"] == pytest.approx(one["test"], abs=1e-3), name
        assert each["total"] == 360
    assert one["shard"] == many["data"]["shard"] == [3, 3, 16, 16]
    assert sorted(many["fsdp"]["shard"]) == [3, 3, 4, 16]


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
    class Eight:
        shape = {"data": 4, "fsdp": 2, "tensor": 1}  # noqa: RUF012

    with pytest.raises(UserError, match=r"batch_size \(=12\) must be divisible by .* = 8\)"):
        check_batch(Eight(), "batch_size", 12)  # type: ignore[arg-type]
