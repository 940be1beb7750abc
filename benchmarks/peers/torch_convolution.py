"""A convolution and its two gradients in PyTorch, to compare with: one process, one case.

    python benchmarks/peers/torch_convolution.py --size 56 --inputs 64 --outputs 64 --kernel 3 3

Channels last, as PyTorch is fastest on CPU. Needs no other package than PyTorch. When it is ready
it prints a line of JSON; then, for each line on standard input, it runs one round and answers with
the seconds that each operation took. In between it is idle.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch
from answers import answers


def operations(words: argparse.Namespace) -> dict[str, Callable[[], object]]:
    dtype, layout = getattr(torch, words.dtype), torch.channels_last

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(dtype).to(memory_format=layout)

    x = noise(words.batch_size, words.inputs, words.size, words.size)
    weight = noise(words.outputs, words.inputs // words.groups, *words.kernel)
    places = ([words.stride] * 2, words.padding, [1, 1])

    def forward() -> torch.Tensor:
        return torch.ops.aten.convolution(x, weight, None, *places, False, [0, 0], words.groups)

    gradient = noise(*forward().shape)

    def backward(*wanted: bool) -> object:
        return torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *places, False, [0, 0], words.groups, [*wanted, False]
        )

    return {
        "forward": forward,
        "input_gradient": lambda: backward(True, False),
        "weight_gradient": lambda: backward(False, True),
    }


def timed(function: Callable[[], object], calls: int) -> float:
    before = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("size", "inputs", "outputs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--kernel", type=int, nargs=2, required=True)
    parser.add_argument("--padding", type=int, nargs=2, default=[0, 0])
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seconds", type=float, default=0.2)
    words = parser.parse_args()
    answer = answers()
    with torch.no_grad():
        found = operations(words)
        calls = {}
        for name, function in found.items():
            timed(function, 2)
            calls[name] = max(1, round(words.seconds / timed(function, 1)))
        answer({"torch": torch.__version__, "threads": torch.get_num_threads()})
        busy = time.process_time()
        for _ in sys.stdin:
            idle = time.process_time() - busy
            seconds = {name: timed(each, calls[name]) / calls[name] for name, each in found.items()}
            busy = time.process_time()
            answer({**seconds, "cpu_seconds_while_idle": idle})


if __name__ == "__main__":
    main()
