"""`imgclf data prepare` killed, stopped, run twice at once and in pieces: always the same bytes."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import imgclf as package
from imgclf.data import Folder, prepare, writing
from imgclf.errors import UserError

SECONDS = 120.0
"""Nothing that is waited for takes so long, on whatever machine."""
OPTIONS = ("--size", "60", "--shards", "6")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """120 photographs to be scaled, in two classes, and one that is cut off."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    for i in range(120):
        folder = root / ("ant" if i % 3 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.roll(noise, i, 0)).resize((400 + i, 320))
        image.save(folder / f"{i}.jpg")
    cut = root / "ant" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:1000])
    return root


def start(photos, out, workers, *words):
    command = [sys.executable, "-m", "imgclf", "data", "prepare", str(photos), str(out), *OPTIONS]
    root = os.path.dirname(os.path.dirname(package.__file__))
    return subprocess.Popen(
        [*command, "--workers", str(workers), *words],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def await_work(process):
    """Returns when the shards are about to be written."""
    for line in process.stdout:
        if "to be made" in line:
            return
    pytest.fail(process.stderr.read())


def contents(out):
    """What is in a folder; a draft, which only another run may have left, counts as well."""
    return {
        str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    """What a run writes that is left in peace."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    _, err = (process := start(photos, out, 1)).communicate(timeout=SECONDS)
    assert process.returncode == 0 and "1 images could not be read" in err
    found = contents(out)
    assert sum("array_record" in name for name in found) == 8
    return found


def ends_in_the_same_bytes(photos, folder, undisturbed, workers, kills):
    """Kills runs until it has been done `kills` times; starts over where one ended before."""
    rng, done, place = random.Random(0), 0, 0
    while done < kills:
        out = folder / str(place) / "out"
        process = start(photos, out, workers[done % len(workers)])
        early = rng.random() < 0.2
        if not early:
            await_work(process)
        threading.Event().wait(rng.uniform(0, 0.6))
        # All at once, as for want of memory on the machine, or the first process alone.
        (os.killpg if done % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.communicate(timeout=SECONDS)
        if process.returncode == -signal.SIGKILL:
            done += 1
        else:
            assert process.returncode == 0 and contents(out) == undisturbed
            place += 1
    out = folder / str(place) / "out"
    _, err = (process := start(photos, out, workers[-1])).communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert contents(out) == undisturbed


def test_a_run_killed_three_times_writes_the_same_bytes(photos, tmp_path, undisturbed):
    ends_in_the_same_bytes(photos, tmp_path, undisturbed, workers=(1, 2, 2), kills=3)


@pytest.mark.slow  # 15 s each
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_twenty_times_writes_the_same_bytes(photos, tmp_path, undisturbed, workers):
    ends_in_the_same_bytes(photos, tmp_path, undisturbed, (workers,), kills=20)


def test_an_interrupt_ends_all_processes_with_one_line(photos, tmp_path, undisturbed):
    for attempt in range(10):
        out = tmp_path / str(attempt) / "out"
        process = start(photos, out, 2)
        await_work(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=SECONDS)
        if process.returncode:
            break  # else it was done before the signal came
    assert (process.returncode, err) == (130, "imgclf: stopped\n")
    assert not list(out.glob(".drafts-*"))
    assert start(photos, out, 1).communicate(timeout=SECONDS)
    assert contents(out) == undisturbed


def test_two_runs_at_once_into_one_folder_write_the_same_bytes(photos, tmp_path, undisturbed):
    runs = [start(photos, tmp_path / "out", 1) for _ in range(2)]
    said = [each.communicate(timeout=SECONDS) for each in runs]
    assert [each.returncode for each in runs] == [0, 0], said
    assert contents(tmp_path / "out") == undisturbed


def test_pieces_make_the_whole(imgclf, photos, tmp_path, undisturbed):
    said = [
        imgclf(
            "data", "prepare", str(photos), "out", *OPTIONS, "--workers", "1", "--shard-range", part
        ).out
        for part in ("5:8", "0:2", "1:5")
    ]
    assert "5 of 8 shards are still to be made" in said[0]
    assert "3 of 8 shards are still to be made" in said[1] and "train on them by" in said[2]
    assert contents(tmp_path / "out") == undisturbed


def test_a_killed_worker_is_said_and_what_it_finished_stays(photos, tmp_path):
    job = prepare.plan({"train": Folder(str(photos))}, tmp_path / "out", size=60, shards=6)

    def kill_one(images):
        for child in multiprocessing.active_children()[:1]:
            child.kill()

    with pytest.raises(UserError, match="A process of `prepare` was killed"):
        writing.write(job, range(job.total), workers=2, tick=kill_one)
    assert prepare.finish(job) is None and not list((tmp_path / "out").glob(".drafts-*"))
    writing.write(job, range(job.total))
    manifest = prepare.finish(job)
    assert manifest is not None and manifest["examples"] == 119


def test_a_shard_of_another_length_is_made_anew(imgclf, photos, tmp_path, undisturbed):
    imgclf("data", "prepare", str(photos), "out", *OPTIONS, "--workers", "1")
    shard = tmp_path / "out" / "out-train.array_record-00003-of-00006"
    shard.write_bytes(shard.read_bytes()[:70_000])
    (tmp_path / "out" / "out-test.array_record-00001-of-00002").unlink()
    ended = imgclf("data", "prepare", str(photos), "out", *OPTIONS, "--workers", "1")
    assert "2 of 8 to be made" in ended.out
    assert contents(tmp_path / "out") == undisturbed


def test_unfinished_files_of_a_run_that_goes_on_are_left_alone(tmp_path):
    (tmp_path / ".drafts-dead").mkdir()
    with writing.drafts_in(tmp_path) as first:
        (first / "shard").write_text("half")
        with writing.drafts_in(tmp_path) as second:
            assert first != second
            assert (first / "shard").exists() and not (tmp_path / ".drafts-dead").exists()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_later(photos, tmp_path, undisturbed):
    process = start(photos, tmp_path / "out", 2)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (40_000, -1))  # workers have it, too
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2 and err.count("\n") == 1, err
    assert "cannot be written: write() failed: File too large" in err
    assert start(photos, tmp_path / "out", 1).communicate(timeout=SECONDS)
    assert contents(tmp_path / "out") == undisturbed
