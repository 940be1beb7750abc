"""The benchmark of convolutions measures ours beside XLA's, and names no machine's paths."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "convolution.py"


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--loop",)])
def test_a_case_is_measured_in_both_ways(more: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "convolution.json"
    words = ["--cases", "last depthwise", "--batch-size", "2", "--rounds", "3", "--seconds", "0"]
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *words, *more, "--output", str(output)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(output.read_text())
    assert report["command"].startswith("python benchmarks/convolution.py --cases")
    assert report["inside_a_loop"] == bool(more)
    (result,) = report["results"]
    assert (result["groups"], result["kernel"]) == (768, [7, 7])
    assert set(result["ms"]) == {"ours", "xla"}
    for operations in result["ms"].values():
        assert list(operations) == ["forward", "input_gradient", "weight_gradient"]
        for each in operations.values():
            assert each["n"] >= 1 and 0 < each["least"] <= each["median"]
    assert result["name"] in ended.stdout
