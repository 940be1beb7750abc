"""What a benchmark ran on, and how fast that could be at best; shared by the scripts beside it."""

import datetime
import importlib.metadata
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import imgclf

TERA = 1e12

PEAKS = (
    # device_kind, TFLOP/s in bfloat16, TFLOP/s for float32 as JAX multiplies it by default: in TF32
    # on NVIDIA, in bfloat16 on TPUs. Dense, without sparsity, from the makers' data sheets.
    (r"H100 PCIe", 756, 378),
    (r"H100 NVL", 835, 418),
    (r"H100|H200", 989, 494),
    (r"A100", 312, 156),
    (r"L4", 121, 60),
    (r"TPU v4", 275, 275),
    (r"TPU v5 ?(lite|e)", 197, 197),
    (r"TPU (v5p|v5)", 459, 459),
    (r"TPU v6 ?(lite|e)", 918, 918),
)


def peak(dtype: str, side: int = 2048) -> tuple[float, str]:
    """Most FLOP/s of one device in `dtype`, and where that figure comes from.

    Of a device that is in no table it is what a product of two `side` x `side` matrices reaches.
    """
    kind = jax.devices()[0].device_kind
    for pattern, bfloat16, float32 in PEAKS:
        if re.search(rf"\b({pattern})\b", kind):
            return (bfloat16 if dtype == "bfloat16" else float32) * TERA, "data sheet"
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(10):
        before = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - before)
    return 2 * side**3 / min(seconds), f"measured: {side} x {side} matrix product in {dtype}"


def machine() -> dict[str, Any]:
    """Device, processor, versions, commit and date, as results keep them."""
    devices = jax.devices()
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "cpu": _cpu(),
        "cpus": _cpus(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "imgclf": imgclf.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def command(peer_python: str | None = None) -> str:
    """The line that was typed, with the script's path as seen from the project's folder.

    A peer's interpreter, whose path is a machine's own, stands there as PYTHON.
    """
    script = Path(sys.argv[0]).resolve()
    words = ["PYTHON" if word == peer_python else word for word in sys.argv[1:]]
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *words])


def device_name() -> str:
    """The device as part of a file's name: `cpu`, `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, quartiles and extremes, and of how many."""
    first, _, third = statistics.quantiles(values, method="inclusive") if values[1:] else values * 3
    found = {
        "median": statistics.median(values),
        "quartiles": [first, third],
        "least": min(values),
        "greatest": max(values),
    }
    return {"n": len(values)} | {k: rounded(v, digits) for k, v in found.items()}


def rounded(value: Any, digits: int = 4) -> Any:
    """Numbers to so many significant digits, so that results can be read."""
    if isinstance(value, list):
        return [rounded(each, digits) for each in value]
    return float(f"{value:.{digits}g}")


def rounded_values(**values: float) -> dict[str, float]:
    return {name: rounded(value) for name, value in values.items()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _commit() -> str:
    """The commit of the checkout, with a `+` behind where files differ from it; "" without one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return ""
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
