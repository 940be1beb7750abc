"""Our own Python for each dispatch: the real loop beside the bare compiled call, in one process.

    python benchmarks/train_step.py --host

The loop is `imgclf.train` with ResNet-50's whole state, images of noise on the device, a log line
every 50 steps, no evaluation and no checkpoint on the way; its step changes nothing but the count
of steps, so that the host is what is seen. Every 50 steps the loop stands still while the same
program is called 50 times on a copy of the state, so that both see the same machine. Needs
cloudpickle beside jax, flax and optax. Writes results/host_DEVICE.json.
"""

import argparse
import dataclasses
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hardware
import jax
import jax.numpy as jnp

import imgclf
from imgclf import Checkpoint, Data, Log, Model, Never, Preprocess, Recipe, Steps
from imgclf.data import Synthetic
from imgclf.optimizers import SGD
from imgclf.schedules import Constant
from imgclf.tasks import Batch, Metrics
from imgclf.training.feed import Resident
from imgclf.training.loop import Options
from imgclf.training.program import Stepwise
from imgclf.training.state import State

SEGMENT = 50
SEGMENTS = 20
BATCH_SIZE, SIZE = 8, 32  # little, since XLA copies small batches in the main thread on CPU
AIM = 0.2
"""Milliseconds beyond the bare call."""


def nothing(state: State, batch: Batch, **bound: Any) -> tuple[State, Metrics]:
    """A step that learns nothing, and returns the metrics of one that does."""
    metrics = dict.fromkeys(("loss", "accuracy", "gradient_norm"), jnp.float32(0))
    return dataclasses.replace(state, step=state.step + 1), metrics


@dataclasses.dataclass(frozen=True)
class Cost:
    """Milliseconds a step."""

    cpu: float
    """Of the main thread's processor time."""
    garbage: float
    """Of that, collecting garbage: it comes seldom and takes long, in whoever's turn it falls."""
    wall: float

    @property
    def own(self) -> float:
        return self.cpu - self.garbage


class Stopwatch:
    """The main thread's time between `start` and `stop`."""

    def __init__(self) -> None:
        self._garbage, self._since = 0.0, 0.0
        self.start()

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """To be among `gc.callbacks`."""
        if phase == "start":
            self._since = time.thread_time()
        else:
            self._garbage += time.thread_time() - self._since

    def start(self) -> None:
        self._begun = time.thread_time(), self._garbage, time.perf_counter()

    def stop(self) -> Cost:
        ended = time.thread_time(), self._garbage, time.perf_counter()
        return Cost(*(1000 * (b - a) / SEGMENT for a, b in zip(self._begun, ended, strict=True)))


class Probe:
    """Stands around the loop's dispatches: `run` in place of `Stepwise.run`."""

    def __init__(self) -> None:
        self.loop: list[Cost] = []
        self.bare: list[Cost] = []
        self.input_ms: list[float] = []
        self.watch = Stopwatch()
        self._copy: Any = None
        self._input = 0.0
        self._run, self._batches = Stepwise.run, Resident.batches

    def run(self, runner: Stepwise, state: State, start: int, stop: int) -> tuple[State, Metrics]:
        """Ends a segment of the loop, measures the bare call, and begins the next segment."""
        if start % SEGMENT == 0:
            cost = self.watch.stop()
            jax.block_until_ready(state)
            bare = self._bare(runner, state)
            if start > SEGMENT:  # the first segment warms up
                self.loop.append(cost)
                self.bare.append(bare)
                self.input_ms.append(1000 * self._input / SEGMENT)
            self._input = 0.0
            self.watch.start()
        return self._run(runner, state, start, stop)

    def batches(self, feed: Resident, start: int, stop: int) -> Iterator[Batch]:
        """The feed's batches, timed."""
        batches = self._batches(feed, start, stop)
        while True:
            before = time.thread_time()
            batch = next(batches, None)
            self._input += time.thread_time() - before
            if batch is None:
                return
            yield batch

    def _bare(self, runner: Stepwise, state: State) -> Cost:
        call: Any = runner.function
        if self._copy is None:
            self._copy = jax.tree.map(jnp.copy, state)
            self.leaves = len(jax.tree.leaves(state))
            self._batch = next(self._batches(runner.feed, 0, 1))
        self.watch.start()
        for _ in range(SEGMENT):
            self._copy, _ = call(self._copy, self._batch)
        cost = self.watch.stop()
        jax.block_until_ready(self._copy)
        return cost


def recipe() -> Recipe:
    return Recipe(
        data=Data(train=Synthetic(8 * BATCH_SIZE, SIZE), evaluate={}, batch_size=BATCH_SIZE),
        model=Model("resnet50", preprocess=Preprocess(size=SIZE)),
        optimizer=SGD(momentum=0.9, weight_decay=1e-4),
        schedule=Constant(0.01),
        length=Steps(SEGMENT * (SEGMENTS + 2)),
        evaluate_every=Never(),
        checkpoint=Checkpoint(every=Never()),
        log=Log(every=Steps(SEGMENT), tensorboard=find_spec("tensorboardX") is not None),
        dispatch="step",
    )


def measure() -> Probe:
    """Trains with a probe in the loop."""
    probe = Probe()
    run = patch.object(Stepwise, "run", lambda *words: probe.run(*words))
    batches = patch.object(Resident, "batches", lambda *words: probe.batches(*words))
    gc.callbacks.append(probe.watch.collecting)
    try:
        with run, batches, tempfile.TemporaryDirectory() as folder:
            imgclf.train(recipe(), folder, step=nothing, options=Options(quiet=True))
    finally:
        gc.callbacks.remove(probe.watch.collecting)
    return probe


def run(words: argparse.Namespace) -> None:
    """Measures, prints and writes what was seen."""
    probe = measure()
    pairs = list(zip(probe.loop, probe.bare, strict=True))
    found = {
        "loop": _parts(probe.loop),
        "bare_call": _parts(probe.bare),
        "beyond_the_bare_call": {
            "cpu": hardware.spread([loop.own - bare.own for loop, bare in pairs]),
            "of_that_input": hardware.spread(probe.input_ms),
        },
    }
    report = {
        "command": hardware.command(),
        "machine": hardware.machine(),
        "state": f"resnet50, {probe.leaves} arrays",
        "steps_per_segment": SEGMENT,
        "tensorboard": recipe().log.tensorboard,
        "aim_ms_per_step": AIM,
        "ms_per_step": found,
    }
    default = Path(__file__).parent / "results" / f"host_{hardware.device_name()}.json"
    output = words.output or default
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{report['state']}; ms a step, medians of {len(pairs)} x {SEGMENT} steps")
    for name in ("loop", "bare_call"):
        cpu, wall, garbage = found[name].values()
        print(
            f"{name:<10} processor {cpu['median']:.3f}, wall {wall['median']:.3f}; "
            f"collecting garbage comes on top: {garbage['mean']:.3f} (mean)"
        )
    beyond = found["beyond_the_bare_call"]
    print(
        f"our Python beyond the bare call {beyond['cpu']['median']:.3f} "
        f"({beyond['cpu']['least']:.3f}..{beyond['cpu']['greatest']:.3f}), "
        f"of that input {beyond['of_that_input']['median']:.3f}; the aim is {AIM}"
    )
    print(f"written to {output}")


def _parts(costs: list[Cost]) -> dict[str, dict[str, float]]:
    """Of garbage the mean: most segments see none."""
    return {
        "cpu": hardware.spread([each.own for each in costs]),
        "wall": hardware.spread([each.wall for each in costs]),
        "garbage": {"mean": hardware.rounded(statistics.mean(each.garbage for each in costs))},
    }
