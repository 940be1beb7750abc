"""The script that says whether a run gives the same bits again; on a processor it does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
import os
from dataclasses import dataclass

import numpy as np

from imgclf import Data, Model, Recipe, Steps
from imgclf.data import Synthetic
from imgclf.schedules import Constant


@dataclass(frozen=True)
class Mine(Synthetic):
    def read(self, i):
        image = super().read(i)
        return np.frombuffer(os.urandom(64), np.uint8).reshape(8, 8, 1) if {restless} else image


data = Data(Mine(64, 8, 1, 3), evaluate={{}}, batch_size=16)
recipe = Recipe(data=data, model=Model("cnn"), schedule=Constant(0.1), length=Steps(9))
"""


@pytest.mark.slow
@pytest.mark.parametrize("restless", [False, True])
def test_it_finds_a_run_that_comes_out_otherwise_and_no_other(
    tmp_path: Path, restless: bool
) -> None:
    (tmp_path / "mine.py").write_text(RECIPE.format(restless=restless))
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "same_bits.py"), "mine.py", "--steps", "12"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == restless, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines()[1:])
    assert list(said) == ["again", "stopped", "killed"]
    if restless:
        assert all(found.startswith("step 1: ") for found in said.values())
    else:
        assert set(said.values()) == {"the same bits"}
