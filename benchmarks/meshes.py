"""Whether a step is the same however devices and processes are laid out: the tables of losses.

    python benchmarks/meshes.py

The devices are simulated ones of the CPU, and every line of a table is measured in processes of its
own. For every mesh (data x fsdp x tensor): the loss of ResNet-18's first step, how far its gradient
is from that on one device, relative to its norm, and the greatest difference of 20 losses on
digits. For every number of processes, with eight devices in all: the digits losses again. Every
image of the digits carries its number, so that a step also tells which examples its batch had, in
which order. This file is the recipe of those runs, too:

    imgclf train benchmarks/meshes.py --run RUN --mesh.fsdp 4

Writes results/meshes_cpu.json beside this file, with command, versions and date.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import Data, Log, Mesh, Model, Preprocess, Recipe, Steps
from imgclf.data import Digits, Source, Synthetic
from imgclf.optimizers import SGD
from imgclf.schedules import Constant
from imgclf.tasks import Classify, Task

FILE = Path(__file__).resolve()
HERE = FILE.parent
MESHES = ("1x1x1", "8x1x1", "2x4x1", "2x2x2")
PRIME = 999_983
"""Below 2^24, so that a float32 holds every remainder."""

Gradient = list[np.ndarray]


@dataclass(frozen=True)
class Numbered(Source):
    """Digits whose first two pixels are the number of the image, low byte first."""

    def __len__(self) -> int:
        return len(self._digits)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._digits.classes

    def labels(self) -> np.ndarray:
        return self._digits.labels()

    def ids(self) -> Sequence[str]:
        return self._digits.ids()

    def read(self, i: int) -> np.ndarray:
        image = self._digits.read(i).copy()
        image[0, :2, 0] = i % 256, i // 256
        return image

    @cached_property
    def _digits(self) -> Digits:
        return Digits()


@dataclass(frozen=True)
class ClassifyNumbered(Task):
    """Classification that also says which images a batch has: the metric `batch`."""

    def initialise(self, *arguments: Any) -> Any:
        return Classify().initialise(*arguments)

    def loss(
        self, network: Any, params: Any, model_state: Any, batch: Any, key: Any, progress: Any
    ) -> Any:
        loss, (model_state, metrics) = Classify().loss(
            network, params, model_state, batch, key, progress
        )
        low_b, high_b = batch["image"][:, 0, :2, 0].astype(jnp.int32).T
        return loss, (model_state, metrics | {"batch": checksum(low_b + 256 * high_b, jnp)})

    def predict(self, *arguments: Any) -> Any:
        return Classify().predict(*arguments)


def checksum(ids_b: Any, xp: Any) -> Any:
    """A float32 that other examples, or another order of them, would very likely change."""
    places = xp.arange(1, len(ids_b) + 1, dtype=xp.int32)
    each = (ids_b.astype(xp.int32) + 1) * places % 9973 * places
    return (each.sum() % PRIME).astype(xp.float32)


recipe = Recipe(
    data=Data(Numbered(), {"test": Digits("test")}, batch_size=64, threads=1, resident="no"),
    model=Model("cnn", dtype="float32"),
    task=ClassifyNumbered(),
    optimizer=SGD(momentum=0.9),
    schedule=Constant(0.001),
    length=Steps(20),
    log=Log(every=Steps(1), tensorboard=False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meshes", nargs="+", default=MESHES, metavar="DxFxT")
    parser.add_argument("--processes", nargs="*", type=int, default=(1, 2, 4), metavar="N")
    parser.add_argument("--process-meshes", nargs="+", default=("8x1x1", "2x2x2"), metavar="DxFxT")
    parser.add_argument("--width", type=int, default=64, help="channels of ResNet-18's stem")
    parser.add_argument("--size", type=int, default=32, help="side of its 16 images, in px")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "meshes_cpu.json")
    parser.add_argument("--first-step", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.first_step:  # one of our own children
        for name in words.meshes:
            save_first_step(words.first_step / name, name, words.width, words.size)
        return

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": folder}
        meshes = table_of_meshes(words.meshes, words.width, words.size, Path(folder))
        processes = table_of_processes(words.processes, words.process_meshes, Path(folder))
    import hardware

    result = {
        "command": hardware.command(),
        "machine": hardware.machine(),
        "meshes": meshes,
        "processes": processes,
    }
    words.output.parent.mkdir(exist_ok=True)
    words.output.write_text(json.dumps(result, indent=1) + "\n")


def table_of_meshes(
    names: Sequence[str], width: int, size: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """What each mesh gives, compared with the first of them."""
    print("mesh   first loss  gradient off by  20 digits losses off by  same batches", flush=True)
    found: dict[str, dict[str, Any]] = {}
    reference: tuple[Gradient, list[float]] | None = None
    for name in names:
        words = ["--first-step", str(folder), "--meshes", name]
        words += ["--width", str(width), "--size", str(size)]
        run_together([[sys.executable, str(FILE), *words]], devices_of(name))
        loss, gradient = load_first_step(folder / name)
        losses, same = digits(name, 1, folder / f"digits-{name}")
        reference = reference or (gradient, losses)
        apart, off = distance(gradient, reference[0]), greatest_difference(losses, reference[1])
        found[name] = {
            "first loss": loss,
            "gradient": apart,
            "digits losses": off,
            "same batches": same,
        }
        print(f"{name:6} {loss:<11.7f} {apart:<16.2g} {off:<24.2g} {same}", flush=True)
    return found


def table_of_processes(
    counts: Sequence[int], meshes: Sequence[str], folder: Path
) -> dict[str, dict[str, Any]]:
    """What so many processes give, compared with the first number of them."""
    if counts:
        print("\nmesh   processes x devices  20 digits losses off by  same batches", flush=True)
    found: dict[str, dict[str, Any]] = {}
    for name in meshes:
        reference: list[float] = []
        for count in counts:
            layout = f"{count}x{devices_of(name) // count}"
            losses, same = digits(name, count, folder / f"processes-{name}-{count}")
            reference = reference or losses
            off = greatest_difference(losses, reference)
            found[f"{name} on {layout}"] = {"digits losses": off, "same batches": same}
            print(f"{name:6} {layout:20} {off:<24.2g} {same}", flush=True)
    return found


def save_first_step(file: Path, mesh: str, width: int, size: int) -> None:
    """Takes the loss of ResNet-18 on 16 images of noise and its gradient, in this process."""
    from imgclf.recipe import resolve
    from imgclf.training.feed import Streamed
    from imgclf.training.mesh import batch_sharding, make_mesh
    from imgclf.training.program import Program

    recipe = Recipe(
        Data(Synthetic(16, size, 3, 10), {}, batch_size=16, threads=1, resident="no"),
        Model("resnet18", "float32", preprocess=Preprocess(size=size), options={"width": width}),
        length=Steps(1),
        schedule=Constant(0.1),
        mesh=Mesh(*map(int, mesh.split("x"))),
    )
    resolved, devices = resolve(recipe), make_mesh(recipe.mesh)
    program = Program(resolved, devices, gradient_step, donate=True)
    runner = program.compile(
        Streamed(resolved, batch_sharding(devices), lambda _: lambda _: None), False
    )
    runner.start(0, 1)
    state, metrics = runner.run(program.initial()[0], 0, 1)
    runner.close()
    leaves = map(np.asarray, jax.tree.leaves(state.params))
    with file.open("wb") as out:
        np.savez(out, metrics["loss"], *leaves)


def load_first_step(file: Path) -> tuple[float, Gradient]:
    with np.load(file) as arrays:
        loss, *gradient = arrays.values()
    return float(loss), gradient


def gradient_step(state: Any, batch: Any, *, network: Any, task: Any, gather: Any, **_: Any) -> Any:
    """A step that leaves the gradient in place of the parameters."""
    from imgclf.training.state import State
    from imgclf.training.step import gradients

    def loss(params: Any, *others: Any) -> Any:
        return task.loss(network, gather(params), *others, progress=jnp.float32(0))

    gradient, model_state, metrics = gradients(loss, state, batch, jax.random.key(0), 1)
    return State(state.step, gradient, model_state, state.optimizer_state, state.average), metrics


def digits(mesh: str, processes: int, folder: Path) -> tuple[list[float], bool]:
    """The training losses of this file's recipe, and whether all batches were those it orders."""
    sizes = zip(("data", "fsdp", "tensor"), mesh.split("x"), strict=True)
    words = [sys.executable, "-m", "imgclf", "train", str(FILE), "--run", str(folder), "--quiet"]
    words += [word for axis, size in sizes for word in (f"--mesh.{axis}", size)]
    together = [words]
    if processes > 1:
        place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(processes)]
        together = [[*words, *place, "--process", str(i)] for i in range(processes)]
    run_together(together, devices_of(mesh) // processes)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "train/loss" in line]
    return [line["train/loss"] for line in lines], [line["train/batch"] for line in lines] == [
        float(checksum(ids, np)) for ids in ordered(len(lines))
    ]


def ordered(steps: int) -> np.ndarray:
    """The ids (steps, b) of the batches, straight from the order."""
    from imgclf.data.order import Order

    size = recipe.data.batch_size
    order = Order(len(recipe.data.train), recipe.seed)
    return order.ids(np.arange(steps * size)).reshape(steps, size)


def run_together(commands: Sequence[list[str]], devices: int) -> None:
    """Runs the commands at the same time, each with so many devices of its own."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    with tempfile.TemporaryFile("w+") as log:  # Gloo tells of every connection
        started = [
            subprocess.Popen(
                words, env=os.environ | {"XLA_FLAGS": flags}, stdout=log, stderr=subprocess.STDOUT
            )
            for words in commands
        ]
        try:
            if any([process.wait() for process in started]):
                log.seek(0)
                raise SystemExit(f"A process failed: {' '.join(commands[0])}\n{log.read()}")
        finally:
            for process in started:
                process.kill()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def devices_of(mesh: str) -> int:
    return int(np.prod([int(size) for size in mesh.split("x")]))


def distance(gradient: Gradient, reference: Gradient) -> float:
    """The norm of the difference over all leaves, relative to the norm of `reference`."""
    apart = sum(np.square(a - b).sum() for a, b in zip(gradient, reference, strict=True))
    return float(np.sqrt(apart / sum(np.square(b).sum() for b in reference)))


def greatest_difference(losses: list[float], reference: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(losses, reference, strict=True))


if __name__ == "__main__":
    main()
