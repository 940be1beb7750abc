"""What a convolution and its two gradients cost: ours, XLA's own operation, PyTorch's.

    python benchmarks/convolution.py
    python benchmarks/convolution.py --peer-python /path/with/torch/bin/python
    python benchmarks/convolution.py --loop --cases depthwise 1x1

Each is compiled as a training step is. With `--loop` ours and XLA's are measured inside a loop on
the device, where a run with `dispatch="scan"` has them. The rounds of all three alternate; what
takes long has fewer rounds than `--rounds`, and n says how many. A peer is a script of peers/ under
an interpreter of its own.

Prints a table of ms (medians, and quartiles of the first); writes JSON to `--output`, by default
results/convolution_DEVICE.json, or convolution_loop_DEVICE.json with `--loop`.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hardware
import jax
import jax.numpy as jnp
from peers.client import Peer, started

from imgclf.memory import ask_for_huge_pages
from imgclf.models.layers import plain_operations
from imgclf.models.layers.convolution import convolve
from imgclf.training.backend import compiler_options

LONG = 10.0
"""Seconds after which an operation of one implementation gets no further rounds."""

Function = Callable[..., jax.Array]

OPERATIONS = ("forward", "input_gradient", "weight_gradient")


@dataclass(frozen=True)
class Case:
    """A convolution, padded alike on both sides of an axis."""

    name: str
    size: int
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: tuple[int, int] = (1, 1)
    groups: int = 1


CASES = (
    Case("dense 3x3", 56, 64, 64),
    Case("dense 5x5", 35, 48, 64, (5, 5), padding=(2, 2)),
    Case("dense 1x7", 17, 128, 128, (1, 7), padding=(0, 3)),
    Case("1x1 wider", 56, 64, 256, (1, 1), padding=(0, 0)),
    Case("1x1 narrower", 56, 256, 64, (1, 1), padding=(0, 0)),
    Case("ResNet-50 stem", 224, 3, 64, (7, 7), 2, (3, 3)),
    Case("ResNet-50 3x3 stride 2", 56, 128, 128, stride=2),
    Case("ResNet-50 shortcut", 56, 256, 512, (1, 1), 2, (0, 0)),
    Case("ResNet-50 last 3x3", 7, 512, 512),
    Case("MobileNetV2 depthwise", 56, 144, 144, groups=144),
    Case("MobileNetV2 depthwise stride 2", 112, 96, 96, stride=2, groups=96),
    Case("ConvNeXt-T stem", 224, 3, 96, (4, 4), 4, (0, 0)),
    Case("ConvNeXt-T depthwise 7x7", 56, 96, 96, (7, 7), padding=(3, 3), groups=96),
    Case("ConvNeXt-T last depthwise 7x7", 7, 768, 768, (7, 7), padding=(3, 3), groups=768),
    Case("ConvNeXt-T halving", 56, 96, 192, (2, 2), 2, (0, 0)),
    Case("ViT-Ti patches", 224, 3, 192, (16, 16), 16, (0, 0)),
    Case("ResNeXt-50 32 groups", 28, 256, 256, groups=32),
    Case("ResNeXt-50 32 groups stride 2", 56, 256, 256, stride=2, groups=32),
    Case("AlexNet 2 groups 5x5", 27, 96, 256, (5, 5), padding=(2, 2), groups=2),
)


class Operation:
    """One compiled function of one implementation, and the seconds that each round of it took."""

    def __init__(
        self, function: Callable[..., jax.Array], arrays: tuple[jax.Array, ...], loop: bool
    ):
        self.seconds: list[float] = []
        self._loop, self._arrays = loop, arrays
        options = compiler_options(deterministic=False)
        if loop:
            counted = jax.jit(looped(function), compiler_options=options)
            self._compiled = counted.lower(jnp.int32(1), *arrays).compile()
        else:
            self._compiled = jax.jit(function, compiler_options=options).lower(*arrays).compile()

    def prepare(self, seconds: float) -> None:
        """Warms up, and takes as many calls for a round as take about so long."""
        each = min(self._timed(1), self._timed(1) if seconds else 1e9)
        self._calls = max(1, round(seconds / each))

    def round(self) -> None:
        if sum(self.seconds) * self._calls < LONG:
            self.seconds.append(self._timed(self._calls) / self._calls)

    def _timed(self, calls: int) -> float:
        before = time.perf_counter()
        if self._loop:
            self._compiled(jnp.int32(calls), *self._arrays).block_until_ready()
        else:
            for _ in range(calls):
                self._compiled(*self._arrays).block_until_ready()
        return time.perf_counter() - before


def looped(function: Function) -> Function:
    """So many calls one after another, the count being the first argument."""

    def many(count: jax.Array, *arrays: jax.Array) -> jax.Array:
        def one(i: jax.Array, _: jax.Array) -> jax.Array:
            *fresh, _ = jax.lax.optimization_barrier((*arrays, i))  # or it would be done just once
            return function(*fresh)

        shape = jax.eval_shape(function, *arrays)
        return jax.lax.fori_loop(0, count, one, jnp.zeros(shape.shape, shape.dtype))

    return many


def operations(case: Case, batch_size: int, dtype: str, loop: bool) -> dict[str, Operation]:
    """The three of one implementation: of the one that is switched on."""
    (rows, columns), groups = case.padding, case.groups

    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, case.stride, ((rows, rows), (columns, columns)), groups)

    def by_input(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: forward(x, kernel), x)[1](gradient)[0]

    def by_kernel(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](gradient)[0]

    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch_size, case.size, case.size, case.inputs), dtype)
    shape = (*case.kernel, case.inputs // groups, case.outputs)
    kernel = 0.1 * jax.random.normal(keys[1], shape, dtype)
    gradient = jax.random.normal(keys[2], jax.eval_shape(forward, x, kernel).shape, dtype)
    return {
        "forward": Operation(forward, (x, kernel), loop),
        "input_gradient": Operation(by_input, (x, kernel, gradient), loop),
        "weight_gradient": Operation(by_kernel, (x, kernel, gradient), loop),
    }


def measure(case: Case, words: argparse.Namespace, peer: Peer | None) -> dict[str, Any]:
    """ms of each operation of each implementation, whose rounds alternate."""
    made = {"ours": operations(case, words.batch_size, words.dtype, words.loop)}
    with plain_operations():
        made["xla"] = operations(case, words.batch_size, words.dtype, words.loop)
    everything = [each for implementation in made.values() for each in implementation.values()]
    for each in everything:
        each.prepare(words.seconds)
    theirs: list[dict[str, Any]] = []
    for _ in range(words.rounds):
        for each in everything:
            each.round()
        if peer:
            theirs.append(peer.round())
    found: dict[str, Any] = {
        name: {k: milliseconds(each.seconds) for k, each in implementation.items()}
        for name, implementation in made.items()
    }
    if peer:
        found["torch"] = {k: milliseconds([each[k] for each in theirs]) for k in OPERATIONS}
        found["cpus_busy_while_torch_idle"] = max(each["busy_while_idle"] for each in theirs)
    return found


def milliseconds(seconds: Sequence[float]) -> dict[str, Any]:
    return hardware.spread([1000 * each for each in seconds])


def run(words: argparse.Namespace) -> None:
    """Measures, prints and writes every case."""
    jax.config.update("jax_enable_compilation_cache", False)
    name = f"convolution{'_loop' * words.loop}_{hardware.device_name()}.json"
    output = words.output or Path(__file__).parent / "results" / name
    report: dict[str, Any] = {
        "command": hardware.command(words.peer_python),
        "machine": hardware.machine(),
        "compiler_options": compiler_options(deterministic=False),
        **{"batch_size": words.batch_size, "dtype": words.dtype, "inside_a_loop": words.loop},
        "results": [],
    }
    print(HEADING)
    for case in CASES:
        if words.cases and not any(word in case.name for word in words.cases):
            continue
        with contextlib.ExitStack() as stack:
            peer = None
            if words.peer_python:
                options = (*case_words(case), "--batch-size", str(words.batch_size))
                options += ("--dtype", words.dtype, "--seconds", str(words.seconds))
                script = "torch_convolution.py"
                peer = stack.enter_context(started(words.peer_python, script, *options))
                report["torch"] = peer.ready
            found = asdict(case) | {"ms": measure(case, words, peer)}
        print("\n".join(lines(found)), flush=True)
        report["results"].append(found)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {output}")


def case_words(case: Case) -> Iterator[str]:
    """The case as options of the peer."""
    for name, value in asdict(case).items():
        if name != "name":
            yield f"--{name}"
            yield from map(str, value if isinstance(value, tuple) else (value,))


HEADING = (
    f"{'':<31}"
    + "".join(f" {operation.replace('_', ' '):<36}" for operation in OPERATIONS)
    + f"\n{'case':<31}"
    + f" {'ours (quartiles)':<22}{'XLA':>7}{'torch':>7}" * 3
)


def lines(found: dict[str, Any]) -> Iterator[str]:
    row = f"{found['name']:<31}"
    for operation in OPERATIONS:
        ours, xla = (found["ms"][name][operation] for name in ("ours", "xla"))
        quartiles = "({:.3g}-{:.3g})".format(*ours["quartiles"])
        peer = found["ms"].get("torch")
        torch = f"{peer[operation]['median']:.3g}" if peer else "-"
        row += f" {ours['median']:<6.3g} {quartiles:<15}{xla['median']:>7.4g}{torch:>7}"
    yield row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--cases", nargs="+", help="words of their names; without: all")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--loop", action="store_true", help="inside a loop on the device")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="that a round takes, about")
    parser.add_argument("--peer-python", help="an interpreter with PyTorch, to compare with")
    parser.add_argument("--output", type=Path)
    run(parser.parse_args())


if __name__ == "__main__":
    ask_for_huge_pages()  # as a run does; the peers have them, too
    main()
