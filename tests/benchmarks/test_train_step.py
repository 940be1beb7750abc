"""The benchmark of a step starts where little is installed, and says what it measured."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "train_step.py"

WITHOUT = """
import runpy, sys

class Missing:
    names = frozenset(sys.argv[1].split(","))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} (kept away by the test)")

sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[2])
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_synthetic_step_needs_nothing_but_jax_flax_and_optax(tmp_path: Path) -> None:
    kept_away = not_needed_by("jax", "flax", "optax")
    assert {"grain", "cloudpickle", "safetensors", "sklearn", "tyro"} <= kept_away
    output = tmp_path / "step.json"
    words = ["--models", "cnn", "--batch-sizes", "16", "--rounds", "3", "--steps", "2"]
    ended = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT, ",".join(sorted(kept_away)), str(SCRIPT.parent)),
            *(str(SCRIPT), *words, "--output", str(output)),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    check(json.loads(output.read_text()))


def check(report: dict[str, Any]) -> None:
    assert report["machine"]["jax"] == importlib.metadata.version("jax")
    assert report["peak"]["float32"]["tflops"] > 0
    (result,) = report["results"]
    assert (result["model"], result["size"], result["batch_size"]) == ("cnn", 8, 16)
    assert result["parameters"] == 65_834
    times = result["ms_per_step"]
    assert times["n"] == 3
    assert 0 < times["least"] <= times["median"] <= times["greatest"]
    speed = 1000 * 16 / times["median"]
    assert result["images_per_second_per_device"] == pytest.approx(speed, rel=1e-2)
    # 1.494 million multiply-adds an image forward, as many again twice on the way back.
    assert result["gflop_per_step"] == pytest.approx(6 * 16 * 1.494e-3, rel=0.3)
    for name in ("share_of_peak", "gb_per_second", "compile_seconds", "host_ms_per_step"):
        assert result[name] > 0, name
    assert result["memory_bytes"]["program"] > 3 * 4 * 65_834  # parameters, momentum, gradients


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="this interpreter has PyTorch"
)
def test_a_peer_that_cannot_start_says_why_in_one_line() -> None:
    spec = importlib.util.spec_from_file_location("client", SCRIPT.parent / "peers" / "client.py")
    assert spec is not None and spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    with (
        pytest.raises(RuntimeError, match=r"status 1: .*No module named 'torch'"),
        client.started(sys.executable, "torch_step.py"),
    ):
        pass


def not_needed_by(*packages: str) -> set[str]:
    """The installed modules at the top level that are none of these packages' requirements."""
    needed, waiting = {"imgclf"}, list(packages)
    while waiting:
        name = normal(waiting.pop())
        if name in needed:
            continue
        needed.add(name)
        try:
            required = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:  # for another platform or Python
            continue
        waiting += [each for each in required if "extra ==" not in each]
    owners = importlib.metadata.packages_distributions()
    return {
        module
        for module, names in owners.items()
        if module not in sys.stdlib_module_names and needed.isdisjoint(map(normal, names))
    }


def normal(requirement: str) -> str:
    """A requirement's name as package indexes compare it: `orbax_checkpoint>=0.1` too."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()
