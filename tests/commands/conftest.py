"""One trained run, and images on disk, for the tests of the verbs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf.commands import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run folder of the recipe `digits`: 24 steps, saved and evaluated after 12 and 24."""
    run = str(tmp_path_factory.mktemp("trained") / "run")
    words = ["--length", "24steps", "--schedule.warmup", "4steps", "--log.tensorboard", "False"]
    words += ["--checkpoint.every", "12steps", "--evaluate_every", "12steps"]
    assert main(["train", "digits", "--run", run, "--quiet", *words]) == 0
    return run


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """`photos("here", ant=4, bee=2)` makes here/ant/0.jpg ... of noise, of differing sizes."""

    def make(name: str, side: int = 20, **counts: int) -> Path:
        rng = np.random.default_rng(0)
        for label, count in counts.items():
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (side + i, side, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / label / f"{i}.jpg")
        return tmp_path / name

    return make
