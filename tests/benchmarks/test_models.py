"""The benchmark of all networks goes on after one that fails, and does not measure one twice."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "models.py"


def benchmark(output: Path, *models: str) -> subprocess.CompletedProcess[str]:
    words = ["--size", "32", "--batch-size", "2", "--rounds", "2", "--seconds", "0"]
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--models", *models, *words, "--output", str(output)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow  # 10 s: each network is measured in a process that imports JAX
def test_a_network_that_fails_is_a_row_and_the_others_go_on_also_in_the_next_call(
    tmp_path: Path,
) -> None:
    output = tmp_path / "models.csv"
    failed = benchmark(output, "inception_v3")
    assert failed.returncode == 1, failed.stderr
    first = output.read_text()
    ended = benchmark(output, "inception_v3", "cnn")
    assert ended.returncode == 0, ended.stderr
    assert output.read_text().startswith(first)
    with output.open(newline="") as file:
        too_small, measured = csv.DictReader(file)
    assert too_small["error"].startswith("UserError: ") and "75 x 75" in too_small["error"]
    assert (measured["model"], measured["batch_size"], measured["error"]) == ("cnn", "2", "")
    # Four stages of 3 x 3 convolutions, 32 to 256 wide, for 32 px in colour.
    assert (measured["parameters"], measured["multiply_adds"]) == ("1175786", "52791808")
    for program in ("inference", "training"):
        for name in ("compile_seconds", "images_per_second", "memory_bytes"):
            assert float(measured[f"{program}_{name}"]) > 0, name
    assert int(measured["training_memory_bytes"]) > 3 * 4 * int(measured["parameters"])
    assert measured["command"].startswith("python benchmarks/models.py --models inception_v3 cnn")
