"""The training step of train_step.py in PyTorch, to compare with: one process, one configuration.

    python benchmarks/peers/torch_step.py --model resnet18 --size 224 --batch-size 16

Runs under an interpreter of its own, which needs PyTorch (2.4 or later), and timm for the networks
that are not written out here. When it is ready it prints a line of JSON; then, for each line on
standard input, it runs one round and answers with a line of JSON. In between it is idle.

The step is PyTorch at its best: channels last, fused SGD; on a GPU `torch.compile`, mixed precision
and cuDNN's choice by trial; on CPU compiled or eager, whichever is the faster (`--compile auto`).
As in imgclf's step the images come as uint8 and are normalised in the step, only weights of two or
more dimensions decay, and the batch's accuracy is taken along (imgclf takes the gradient's norm as
well).
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from answers import answers
from torch import Tensor, nn

TRIAL = 0.5
"""Seconds, about, of a trial by which the faster way is chosen; the best of three counts."""


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, features, 3, stride), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = conv(features, features), nn.BatchNorm2d(features)
        self.downsample = downsample(inputs, features, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        outputs = features * self.expansion
        self.conv1, self.bn1 = conv(inputs, features, 1), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = conv(features, features, 3, stride), nn.BatchNorm2d(features)
        self.conv3, self.bn3 = conv(features, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def downsample(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Sequential):
    """He et al. 2015 (arXiv:1512.03385), with the stride in the 3x3 convolutions."""

    def __init__(self, block: Any, depths: tuple[int, ...], channels: int, classes: int):
        layers = [conv(channels, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for i, depth in enumerate(depths):
            for j in range(depth):
                layers.append(block(inputs, 64 * 2**i, 2 if i and not j else 1))
                inputs = 64 * 2**i * block.expansion
        super().__init__(*layers, *head(inputs, classes))


class CifarBlock(nn.Module):
    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.stride, self.added = stride, features - inputs
        self.conv1, self.bn1 = conv(inputs, features, 3, stride), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = conv(features, features), nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.added or self.stride > 1:
            before = self.added // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, before, self.added - before))
        return F.relu(y + x)


class CifarResNet(nn.Sequential):
    """The same paper's section 4.2: shortcuts without parameters."""

    def __init__(self, depth: int, channels: int, classes: int):
        layers: list[nn.Module] = [conv(channels, 16), nn.BatchNorm2d(16), nn.ReLU()]
        inputs = 16
        for i in range(3):
            for j in range(depth):
                layers.append(CifarBlock(inputs, 16 * 2**i, 2 if i and not j else 1))
                inputs = 16 * 2**i
        super().__init__(*layers, *head(inputs, classes))


class CNN(nn.Sequential):
    """imgclf's `cnn`: two to four stages of two convolutions, each halves the size."""

    def __init__(self, size: int, channels: int, classes: int):
        layers: list[nn.Module] = []
        inputs = channels
        for i in range(2 if size < 16 else 3 if size < 32 else 4):
            for _ in range(2):
                layers += [conv(inputs, 32 * 2**i), nn.BatchNorm2d(32 * 2**i), nn.ReLU()]
                inputs = 32 * 2**i
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, *head(inputs, classes))


def head(inputs: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]


def build(name: str, size: int, channels: int, classes: int) -> nn.Module:
    """The network that imgclf has under the same name."""
    stages = {
        "resnet18": (BasicBlock, (2, 2, 2, 2)),
        "resnet34": (BasicBlock, (3, 4, 6, 3)),
        "resnet50": (Bottleneck, (3, 4, 6, 3)),
        "resnet101": (Bottleneck, (3, 4, 23, 3)),
        "resnet152": (Bottleneck, (3, 8, 36, 3)),
    }
    if name in stages:
        return ResNet(*stages[name], channels, classes)
    if name.startswith("cifar_resnet"):
        return CifarResNet((int(name.removeprefix("cifar_resnet")) - 2) // 6, channels, classes)
    if name == "cnn":
        return CNN(size, channels, classes)
    try:
        import timm
    except ImportError:
        raise SystemExit(f"{sys.executable} has no timm, which has the network {name!r}") from None
    return timm.create_model(name, in_chans=channels, num_classes=classes)


class Trainer:
    """One network, its optimizer and a batch on the device; `step` is one update."""

    def __init__(self, words: argparse.Namespace, device: str, compiled: bool):
        self._device, self._dtype = device, getattr(torch, words.dtype)
        network = build(words.model, words.size, words.channels, words.classes)
        network = network.to(device, memory_format=torch.channels_last).train()
        self.parameters = sum(p.numel() for p in network.parameters())
        groups = [
            {"params": [p for p in network.parameters() if p.ndim >= 2], "weight_decay": 1e-4},
            {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, fused=True)
        shape = (words.batch_size, words.channels, words.size, words.size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self._images = images.to(memory_format=torch.channels_last)
        self._labels = torch.randint(0, words.classes, (words.batch_size,), device=device)
        self._network = network
        self._forward = torch.compile(self._loss) if compiled else self._loss

    def step(self) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        with self._mixed_precision():
            loss, accuracy = self._forward(self._images, self._labels)
        loss.backward()
        self._optimizer.step()
        return accuracy

    def steps(self, count: int) -> float:
        """The seconds that `count` steps take, to the last result."""
        before = time.perf_counter()
        for _ in range(count):
            result = self.step()
        result.item()
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - before

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._network((images.float() / 255 - 0.45) / 0.225)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return F.cross_entropy(logits.float(), labels), accuracy

    def _mixed_precision(self) -> contextlib.AbstractContextManager:
        if self._dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device, self._dtype)


def main() -> None:
    words = parsed()
    answer = answers()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, as JAX multiplies there
    torch.backends.cudnn.allow_tf32 = True
    trainer, mode, why = chosen(words, device)
    each = trainer.steps(2) / 2
    count = words.steps or max(1, round(words.seconds / each))
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
    answer(
        {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "mode": mode,
            "mode_chosen": why,
            "parameters": trainer.parameters,
            "steps": count,
            "peak_memory": memory,
        }
    )
    busy = time.process_time()
    for _ in sys.stdin:
        idle = time.process_time() - busy
        trainer.steps(1)  # untimed
        seconds = trainer.steps(count)
        busy = time.process_time()
        answer({"seconds": seconds, "steps": count, "cpu_seconds_while_idle": idle})


def chosen(words: argparse.Namespace, device: str) -> tuple[Trainer, str, str]:
    """A warm trainer, how it runs, and why so."""
    tried: dict[str, Callable[[], Trainer]] = {
        "compiled": lambda: Trainer(words, device, True),
        "eager": lambda: Trainer(words, device, False),
    }
    if words.compile != "auto" or device == "cuda":
        mode = "eager" if words.compile == "no" else "compiled"
        trainer = tried[mode]()
        trainer.steps(3)
        return trainer, mode, "as asked for" if words.compile != "auto" else "on a GPU"
    found: dict[str, tuple[float, Trainer]] = {}
    failed = ""
    for mode, make in tried.items():
        try:
            trainer = make()
            trainer.steps(2)
            count = max(1, round(TRIAL / trainer.steps(1)))
        except Exception as error:  # no C++ compiler, most often: any of the compiler's exceptions
            if mode == "eager":
                raise
            failed = f"not compiled: {str(error).splitlines()[0][:200]}"
            continue
        found[mode] = (min(trainer.steps(count) for _ in range(3)) / count, trainer)
    fastest = min(found, key=lambda mode: found[mode][0])
    timed = ", ".join(f"{mode} {1000 * found[mode][0]:.4g} ms" for mode in found)
    return found[fastest][1], fastest, failed or f"the faster one: {timed}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", choices=("auto", "yes", "no"), default="auto")
    parser.add_argument("--steps", type=int, default=0, help="of a round; 0: what --seconds take")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a round takes, about")
    return parser.parse_args()


if __name__ == "__main__":
    main()
