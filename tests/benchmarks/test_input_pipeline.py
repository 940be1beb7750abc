"""The benchmark of the input pipeline measures what it says, from each layout of the images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf.data import Files, Order, RandomResizedCrop, Squash, train_batches
from imgclf.preprocess import Preprocess

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "input_pipeline.py"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs" / "some"
    folder.mkdir(parents=True)
    for seed in range(12):
        noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
        image = Image.fromarray(noise).resize((400, 300 + seed))
        image.save(folder / f"{seed}.JPEG")
    return folder.parent


@pytest.mark.slow  # 15 s: each feed is a process that imports Grain
def test_each_layout_is_measured_beside_the_bare_decoder(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "input.json"
    words = ["--sources", "folder", "160", "--workers", "0", "--threads", "1", "--rounds", "2"]
    command = [sys.executable, str(SCRIPT), "--data", str(photographs), *words, "--seconds", "0.3"]
    ended = subprocess.run(
        [*command, "--output", str(output)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(output.read_text())
    assert report["images"] == 12 and report["command"].startswith("python benchmarks/input_")
    folder, records, spawned = report["results"]
    assert (folder["source"], records["source"], spawned["workers"]) == ("folder", "160", os_cpus())
    for result in report["results"]:
        assert result["images_per_second"]["n"] == 2
        bare = result["beside"]["bare"]
        assert bare["images_per_second"]["least"] > 0 and bare["peak_mib"] < result["peak_mib"]
    square = 2 * 3 * 224 * 224
    assert square < records["bytes_copied_per_image"] < folder["bytes_copied_per_image"]
    assert "| ArrayRecord, 160 px | 0 x" in ended.stdout


def os_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def test_the_crop_by_hand_is_a_square_of_any_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent / "peers"))
    import input_feed

    for size in ((400, 300), (5, 300)):
        assert input_feed.by_hand(Image.new("RGB", size), 24).size == (24, 24)


def test_what_is_written_for_an_image_is_file_pixels_and_its_square_twice(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent / "peers"))
    import input_feed

    record = (photographs / "some" / "0.JPEG").read_bytes()
    moved = input_feed.bytes_moved(record, Squash(), Preprocess(size=24), 0)
    assert moved == len(record) + 3 * 400 * 300 + 2 * 3 * 24**2


def test_the_whole_that_is_profiled_is_what_training_reads(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import input_profile

    files = sorted(photographs.rglob("*.JPEG"))
    whole = input_profile.parts(files)["all of it"]
    with train_batches(
        Files(tuple(map(str, files))),
        Order(12, 0, shuffle=False),
        batch_size=12,
        start=0,
        stop=1,
        geometry=RandomResizedCrop(),
        preprocess=input_profile.PREPROCESS,
        seed=0,
    ) as batches:
        images = next(batches)["image"]
    for i in range(12):
        np.testing.assert_array_equal(whole(i), images[i])


def test_the_profile_names_every_part(photographs: Path) -> None:
    command = [sys.executable, str(SCRIPT.parent / "input_profile.py"), "--data", str(photographs)]
    ended = subprocess.run(
        [*command, "--rounds", "1"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    rows = [row.split("|") for row in ended.stdout.splitlines() if row.startswith("| ")]
    shares = {row[1].strip(): float(row[3]) for row in rows[1:]}
    assert shares["bare decoder"] == 1 and len(shares) == 8
    assert shares["all of it"] > shares["decoding the part needed"] > 0
