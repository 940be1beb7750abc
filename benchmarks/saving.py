"""How long a checkpoint holds up the loop, and how long until it is committed.

    python benchmarks/saving.py [--rounds 5] [--folder /where/runs/lie]

The states are of ResNet-50's shapes with SGD's momentum, and of ViT-B/16's with momentum and with
AdamW's two moments; all numbers are random, since zeros would be compressed away. They are saved as
the loop does it: `save` returns when the next step may change the state, and the rest is done in
the background. What that costs the next step (here one that adds to every number, in place) is told
as well. A first save, which is not counted, warms up. Writes results/saving_DEVICE.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import hardware
import jax
import jax.numpy as jnp

from imgclf.models import create
from imgclf.optimizers import SGD, AdamW, Optimizer
from imgclf.schedules import Constant
from imgclf.training.checkpoints import Checkpoints
from imgclf.training.state import State

Shapes = Mapping[str, Any]


def resnet50() -> tuple[Shapes, Shapes]:
    """Shapes of the parameters and of the batch statistics."""
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return jax.eval_shape(create("resnet50", 1000).initialise, jax.random.key(0), images)


def vit_b16() -> tuple[Shapes, Shapes]:
    """Shapes of the parameters of ViT-B/16 at 224 px (arXiv:2010.11929); it has no statistics."""
    width, hidden, places, classes = 768, 3072, 1 + (224 // 16) ** 2, 1000
    norm = {"scale": (width,), "bias": (width,)}

    def dense(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {"kernel": (inputs, outputs), "bias": (outputs,)}

    block = {
        "norm1": norm,
        "attention": {"qkv": dense(width, 3 * width), "out": dense(width, width)},
        "norm2": norm,
        "mlp": {"in": dense(width, hidden), "out": dense(hidden, width)},
    }
    shapes = {
        "patches": {"kernel": (16, 16, 3, width), "bias": (width,)},
        "token": (1, 1, width),
        "positions": (1, places, width),
        "blocks": {str(i): block for i in range(12)},
        "norm": norm,
        "head": dense(width, classes),
    }
    as_array = lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    return jax.tree.map(as_array, shapes, is_leaf=lambda x: isinstance(x, tuple)), {}


STATES = {
    "ResNet-50, SGD": (resnet50, SGD()),
    "ViT-B/16, SGD": (vit_b16, SGD()),
    "ViT-B/16, AdamW": (vit_b16, AdamW()),
}


def filled(shapes: tuple[Shapes, Shapes], optimizer: Optimizer) -> State:
    """A state whose every number is random."""

    def zeros(params: Shapes, model_state: Shapes) -> State:
        built = optimizer.build(Constant(0.1).build(100, 10), params)
        return State(jnp.int32(0), params, model_state, built.init(params), None)

    leaves, tree = jax.tree.flatten(jax.eval_shape(zeros, *shapes))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(tree, [noise(k, x) for k, x in zip(keys, leaves, strict=True)])


def noise(key: jax.Array, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return jax.random.normal(key, leaf.shape, leaf.dtype)
    return jnp.ones(leaf.shape, leaf.dtype)


@partial(jax.jit, donate_argnums=0)
def add_one(state: State) -> State:
    return jax.tree.map(lambda x: x + 1, state)


def measure(state: State, folder: Path, rounds: int) -> dict[str, Any]:
    """Saves once to warm up, then `rounds` times, each time with a step after it."""
    checkpoints = Checkpoints(folder, keep=2, best=1, score=lambda metadata: None)
    alone, held_up, after, committed = [], [], [], []
    for number in range(rounds + 1):
        state = add_one(state)
        jax.block_until_ready(state)
        seconds, state = timed(add_one, state)
        alone.append(1000 * seconds)
        begun = time.perf_counter()
        seconds, _ = timed(checkpoints.save, state, number, {"evaluation": {}})
        held_up.append(1000 * seconds)
        seconds, state = timed(add_one, state)
        after.append(1000 * seconds)
        checkpoints.wait()
        committed.append(time.perf_counter() - begun)
    checkpoints.close()
    leaves = jax.tree.leaves(state)
    return {
        "arrays": len(leaves),
        "bytes": sum(leaf.nbytes for leaf in leaves),
        "held_up_ms": hardware.spread(held_up[1:]),
        "committed_seconds": hardware.spread(committed[1:]),
        "next_step_ms": hardware.spread(after[1:]),
        "step_alone_ms": hardware.spread(alone[1:]),
    }


def timed(function: Callable[..., Any], *words: Any) -> tuple[float, Any]:
    """Seconds until what it returned is ready, and that."""
    before = time.perf_counter()
    found = jax.block_until_ready(function(*words))
    return time.perf_counter() - before, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to save; by default the temporary one")
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument("--output", type=Path)
    words = parser.parse_args()
    report: dict[str, Any] = {
        "command": hardware.command(),
        "machine": hardware.machine(),
        "states": {},
    }
    for name in words.states:
        shapes, optimizer = STATES[name]
        with tempfile.TemporaryDirectory(dir=words.folder) as folder:
            found = measure(filled(shapes(), optimizer), Path(folder), words.rounds)
        report["states"][name] = found
        held_up, committed = found["held_up_ms"], found["committed_seconds"]
        print(
            f"{name:<16} {found['arrays']:>4} arrays {found['bytes'] / 2**20:>6.0f} MiB: the loop "
            f"waits {held_up['median']:.4g} ms ({held_up['least']:.4g}..{held_up['greatest']:.4g}),"
            f" the next step takes {found['next_step_ms']['median']:.4g} ms rather than "
            f"{found['step_alone_ms']['median']:.4g}, committed after {committed['median']:.3g} s; "
            f"n={words.rounds}",
            flush=True,
        )
    default = Path(__file__).parent / "results" / f"saving_{hardware.device_name()}.json"
    output = words.output or default
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
