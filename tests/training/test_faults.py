"""What a machine does to a run: bits that flip, disks that fill, folders that vanish, old files."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from imgclf import UserError
from imgclf.commands import main
from imgclf.training.checkpoints import Checkpoints, newest
from imgclf.training.manifest import digest_of, verify, write_whole
from imgclf.training.run import sole_trainer
from imgclf.training.state import State

from .runs import Training, lines, same_run, saved

RECIPE = """
from imgclf import Average, Checkpoint, Data, Log, Model, Recipe, Steps
from imgclf.augmentation import Translate
from imgclf.data import Digits
from imgclf.schedules import Constant

recipe = Recipe(
    data=Data(Digits(), {"test": Digits("test")}, batch_size=32),
    augment=(Translate(1),),
    model=Model("cnn", dtype="float32", options={"width": 4}),
    schedule=Constant(0.02),
    average=Average(0.9),
    length=Steps(80),
    evaluate_every=Steps(40),
    checkpoint=Checkpoint(every=Steps(10), keep=3),
    log=Log(every=Steps(1)),
)
"""
OLD = Path(__file__).parent / "old_runs" / "format1"
AGAIN = ("train", "mine.py", "--run", "run")
Command = Callable[..., Any]


class Disk:
    """A small file system in memory, mounted at `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        mount("-t", "tmpfs", "-o", "size=20m", "imgclf-test", str(folder))

    def size(self, size: str) -> None:
        mount("-o", f"remount,size={size}", str(self.folder))


def mount(*words: str) -> None:
    if shutil.which("mount") is None:
        pytest.skip("there is no command mount here")
    done = subprocess.run(["mount", *words], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    try:
        yield Disk(folder)
    finally:
        for mounted in (folder / "run", folder):
            words = ["umount", "--lazy", str(mounted)]
            subprocess.run(words, capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to."""
    return _run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def first_half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first forty steps of it, saved after 20, 30 and 40."""
    return _run(tmp_path_factory.mktemp("half"), "--length", "40steps")


def _run(folder: Path, *words: str) -> Path:
    (folder / "mine.py").write_text(RECIPE)
    status = main(["train", str(folder / "mine.py"), "--run", f"{folder}/run", "--quiet", *words])
    assert status == 0
    return folder / "run"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def half(mine: Path, first_half: Path) -> Path:
    """A copy of the first half, beside its recipe, to be spoilt."""
    return Path(shutil.copytree(first_half, mine / "run"))


def flip(folder: Path, rng: random.Random) -> tuple[Path, bytes]:
    """Turns one bit of one file of a checkpoint; the file, and what it was."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)
    file = rng.choice(files)
    before = file.read_bytes()
    spoilt, place = bytearray(before), rng.randrange(len(before) * 8)
    spoilt[place // 8] ^= 1 << place % 8
    file.write_bytes(spoilt)
    return file, before


def test_a_hundred_flipped_bits_are_found_named_and_the_older_checkpoint_is_taken(
    first_half: Path,
) -> None:
    rng = random.Random(0)
    checkpoints = Checkpoints(first_half / "checkpoints")
    for _ in range(100):
        file, before = flip(checkpoints.folder / "00000040", rng)
        warned: list[str] = []
        found = newest(checkpoints, warned.append, move=False)
        assert found is not None and found.step == 30, file
        (line,) = warned
        assert "00000040 is not used" in line
        assert str(file.relative_to(checkpoints.folder / "00000040")) in line
        file.write_bytes(before)
    assert saved(first_half) == ["00000020", "00000030", "00000040"]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_a_run_with_rotten_checkpoints_falls_back_and_ends_as_if_nothing_had_been(
    imgclf: Command, half: Path, whole: Path, seed: int
) -> None:
    rng = random.Random(seed)
    for step in (30, 40):
        flip(half / "checkpoints" / f"{step:08d}", rng)
    ended = imgclf("train", "mine.py", "--run", "run")
    warned = ended.err.splitlines()
    assert ended.status == 0 and len(warned) == 2
    assert "00000040 is not used" in warned[0] and "00000030 is not used" in warned[1]
    assert "going on after step 20 of 80" in ended.out
    assert {f.name for f in (half / "checkpoints").glob("bad-*")} == {
        "bad-00000030",
        "bad-00000040",
    }
    assert saved(half)[-3:] == ["00000060", "00000070", "00000080"]
    same_run(half, whole)


def test_a_run_without_a_whole_checkpoint_is_refused_again_and_again(
    imgclf: Command, half: Path
) -> None:
    rng = random.Random(3)
    for step in (20, 30, 40):
        flip(half / "checkpoints" / f"{step:08d}", rng)
    ended = imgclf("train", "mine.py", "--run", "run")
    warned = ended.err.splitlines()
    assert ended.status == 2
    assert [line.split(" is not used")[0][-8:] for line in warned[:3]] == [
        "00000040", "00000030", "00000020"
    ]  # fmt: skip
    assert warned[3:] == [
        "imgclf: No checkpoint of run is whole (see checkpoints/bad-*); give another --run to "
        "start anew"
    ]
    assert len(list((half / "checkpoints").glob("bad-*/manifest.json"))) == 3
    again = imgclf("train", "mine.py", "--run", "run")
    assert (again.status, again.err.splitlines()) == (2, warned[3:])


@pytest.mark.parametrize("lost", ["checkpoints", "checkpoints/*"])
def test_a_run_whose_checkpoints_are_all_gone_is_refused_and_not_begun_anew(
    refused: Command, half: Path, lost: str
) -> None:
    for folder in half.glob(lost):
        shutil.rmtree(folder)
    before = (half / "metrics.jsonl").read_bytes()
    for _ in range(2):
        assert "No checkpoint of run is there any more" in refused(*AGAIN)
        assert (half / "metrics.jsonl").read_bytes() == before


def test_a_run_of_the_first_release_without_a_whole_checkpoint_is_not_begun_anew(
    imgclf: Command, old: Path
) -> None:
    for folder in (old / "checkpoints").glob("[0-9]*"):
        flip(folder, random.Random(1))
    before = (old / "metrics.jsonl").read_bytes()
    ended = imgclf("train", "tiny.py", "--run", "run")
    assert ended.status == 2 and "No checkpoint of run is whole" in ended.err
    assert (old / "metrics.jsonl").read_bytes() == before


def test_a_second_training_in_the_folder_of_a_running_one_changes_nothing_there(
    refused: Command, half: Path
) -> None:
    recipe = half.parent / "mine.py"
    recipe.write_text(recipe.read_text() + "# another one\n")
    with sole_trainer(half):
        before = content(half)
        assert "Another process is training" in refused(*AGAIN, "--log.every", "2steps")
        assert content(half) == before


def content(run: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_the_kept_recipe_is_written_again_only_if_it_has_changed(
    imgclf: Command, half: Path
) -> None:
    kept, recipe = half / "recipe" / "mine.py", half.parent / "mine.py"
    before = kept.stat()
    ended = imgclf(*AGAIN, "--length", "40steps")
    assert ended.status == 0 and "mine.py is another one" not in ended.out
    after = kept.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    recipe.write_text(recipe.read_text() + "# another one\n")
    ended = imgclf(*AGAIN, "--length", "40steps")
    assert ended.status == 0 and "mine.py is another one" in ended.out
    assert kept.read_bytes() == recipe.read_bytes()
    assert [file.name for file in kept.parent.iterdir()] == ["mine.py"]


def test_a_file_that_the_disk_does_not_give_back_is_a_rotten_one(first_half: Path) -> None:
    unreadable = Path("/proc/self/mem")  # reading its first byte is an input/output error
    if not unreadable.exists():
        pytest.skip("there is no /proc here")
    file = first_half / "checkpoints" / "00000040" / "orbax.checkpoint"
    assert file.stat().st_size == 0
    file.unlink()
    file.symlink_to(unreadable)
    wrong = verify(file.parent)
    file.unlink()
    file.touch()
    assert wrong == "orbax.checkpoint cannot be read (Input/output error)"
    assert verify(file.parent) == ""


def test_a_disk_that_fills_in_a_save_loses_nothing_and_the_run_goes_on_later(
    imgclf: Command, mine: Path, disk: Disk, whole: Path
) -> None:
    disk.size("500k")
    with Training(mine, run="disk/run") as training:
        status, said, _ = training.end()
    assert status == 2 and len(said) == 1, said
    kept = saved(disk.folder / "run")
    assert kept, "no checkpoint fits: the disk is too small for this test"
    # Whatever is written while the save fills the disk may be what finds it full.
    at_fault = re.fullmatch(r"imgclf: Could not (save checkpoint|write to) disk/run/(.*)", said[0])
    assert at_fault and "No space left on device" in said[0]
    assert said[0].endswith(f"; the last good checkpoint is disk/run/checkpoints/{kept[-1]}")
    log = (disk.folder / "run" / "log.txt").read_text(errors="replace")
    assert "going on" not in log
    if at_fault[1] == "save checkpoint":
        assert at_fault[2].startswith("checkpoints/000000") and "absl" in log
    disk.size("20m")
    ended = imgclf("train", "mine.py", "--run", "disk/run")
    assert ended.status == 0 and not ended.err
    assert f"going on after step {int(kept[-1])} of 80" in ended.out
    same_run(disk.folder / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["4k", "16k", "24k", "60k", "200k"])
def test_a_disk_that_is_full_from_the_start_on_is_said_in_one_line(
    imgclf: Command, mine: Path, disk: Disk, whole: Path, size: str
) -> None:
    disk.size(size)
    with Training(mine, run="disk/run") as training:
        status, said, _ = training.end()
    assert status == 2 and len(said) == 1, said
    assert said[0].startswith("imgclf: ") and "No space left on device" in said[0]
    disk.size("20m")
    assert imgclf("train", "mine.py", "--run", "disk/run").status == 0
    same_run(disk.folder / "run", whole)


@pytest.mark.slow
def test_a_run_that_may_go_on_saves_again_once_there_is_room(
    mine: Path, disk: Disk, whole: Path
) -> None:
    run = disk.folder / "run"
    with Training(mine, "--checkpoint.on_failure", "continue", run="disk/run") as training:
        training.reach("step 12/")
        training.pause()
        kept = saved(run)
        stats = os.statvfs(disk.folder)
        with (disk.folder / "ballast").open("wb") as ballast:
            ballast.write(b"\0" * stats.f_bavail * stats.f_frsize)
        training.resume()
        training.reach("step 35/")
        training.pause()
        assert set(kept) <= set(saved(run))
        (disk.folder / "ballast").unlink()
        training.resume()
        status, said, _ = training.end()
    assert status == 0 and 1 <= len(said) < 60, said
    assert all(line.startswith("warning: Could not ") for line in said)
    assert all(line.endswith("; going on, as --checkpoint.on_failure says") for line in said)
    assert any("Could not save checkpoint" in line for line in said)
    assert saved(run)[-1] == "00000080" and not list(run.glob("checkpoints/*tmp*"))
    same_run(run, whole)


@pytest.mark.slow
def test_a_run_that_may_go_on_does_not_end_well_without_its_last_save(
    imgclf: Command, mine: Path, disk: Disk, whole: Path
) -> None:
    disk.size("300k")
    with Training(mine, "--checkpoint.on_failure", "continue", run="disk/run") as training:
        status, said, _ = training.end()
    assert status == 2
    assert said[-1].startswith("imgclf: Could not save checkpoint disk/run/checkpoints/00000080")
    disk.size("20m")
    assert imgclf("train", "mine.py", "--run", "disk/run").status == 0
    same_run(disk.folder / "run", whole)


def turn_read_only(training: Training, run: Path) -> None:
    training.pause()
    mount("--bind", str(run), str(run))
    mount("-o", "remount,bind,ro", str(run))
    training.resume()


@pytest.mark.slow
def test_a_folder_that_turns_read_only_loses_nothing_and_the_run_goes_on_later(
    imgclf: Command, mine: Path, disk: Disk, whole: Path
) -> None:
    run = disk.folder / "run"
    with Training(mine, run="disk/run") as training:
        training.reach("step 12/")
        turn_read_only(training, run)
        kept = saved(run)
        status, said, _ = training.end()
    assert status == 2 and len(said) == 1, said
    assert said[0].startswith("imgclf: Could not ") and "Read-only file system" in said[0]
    assert saved(run) == kept
    subprocess.run(["umount", "--lazy", str(run)], check=True, timeout=60)
    ended = imgclf("train", "mine.py", "--run", "disk/run")
    assert ended.status == 0 and not ended.err
    same_run(run, whole)


@pytest.mark.slow
def test_a_run_that_may_go_on_saves_again_once_it_can_write(
    mine: Path, disk: Disk, whole: Path
) -> None:
    run = disk.folder / "run"
    with Training(mine, "--checkpoint.on_failure", "continue", run="disk/run") as training:
        training.reach("step 12/")
        turn_read_only(training, run)
        training.reach("step 35/")
        subprocess.run(["umount", "--lazy", str(run)], check=True, timeout=60)
        status, said, _ = training.end()
    assert status == 0 and said
    assert all(line.startswith("warning: Could not ") for line in said)
    same_run(run, whole)


@pytest.mark.slow
def test_a_signal_does_not_say_that_it_saved_where_nothing_can_be(mine: Path, disk: Disk) -> None:
    with Training(mine, "--checkpoint.on_failure", "continue", run="disk/run") as training:
        training.reach("step 12/")
        turn_read_only(training, disk.folder / "run")
        training.reach("step 24/")
        training.process.send_signal(signal.SIGTERM)
        status, said, _ = training.end()
    assert status == 2
    assert said[-1].startswith("imgclf: Could not save checkpoint")
    assert not any("saved step" in line for line in said)


@pytest.mark.slow
def test_a_lost_folder_is_reported(mine: Path) -> None:
    with Training(mine) as training:
        training.reach("step 22/")
        training.pause()
        (mine / "run" / "checkpoints").rename(mine / "away")
        training.resume()
        status, said, _ = training.end()
    # A save that was under way may have made the folder anew.
    if status == 0:
        assert said and all(line.endswith(" is gone") for line in said), said
    else:
        assert status == 2 and len(said) == 1, said
        assert "Could not save checkpoint" in said[0] and "nothing is saved yet" in said[0]


def _state(value: int) -> State:
    return State(jnp.int32(value), {"w": jnp.full(3, value, jnp.float32)}, {}, (), None)


def test_a_checkpoint_that_vanishes_is_named_and_a_folder_that_does_fails_the_save(
    tmp_path: Path,
) -> None:
    warned: list[str] = []
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    checkpoints = Checkpoints(folder, warn=warned.append)
    for step in (1, 2):
        checkpoints.save(_state(step), step, {})
    checkpoints.wait()
    shutil.rmtree(folder / "00000001")
    checkpoints.save(_state(3), 3, {})
    checkpoints.wait()
    assert warned == [f"checkpoint {folder}/00000001 is gone"]
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"00000004: No such file.*; nothing is saved yet"):
        checkpoints.save(_state(4), 4, {})
    checkpoints.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run that the first release left after six of its twelve steps, beside its recipe."""
    shutil.copy(OLD / "tiny.py", tmp_path)
    return Path(shutil.copytree(OLD / "run", tmp_path / "run"))


def test_a_run_of_the_first_release_evaluates_to_what_it_said_then(
    imgclf: Command, old: Path
) -> None:
    said = json.loads((old / "result.json").read_text())
    ended = imgclf("evaluate", "run")
    assert ended.status == 0 and "34 of 360 right" in ended.out, ended
    found = json.loads((old / "predictions" / "test" / "metrics.json").read_text())
    assert found["accuracy"] == said["accuracy"] and found["right"] == 34


def test_a_run_of_the_first_release_goes_on(imgclf: Command, old: Path) -> None:
    before = lines(old)
    ended = imgclf("train", "tiny.py", "--run", "run")
    assert ended.status == 0 and not ended.err, ended
    assert "going on after step 6 of 12" in ended.out
    after = lines(old)
    assert after[: len(before)] == before
    assert [line["step"] for line in after] == [2, 4, 6, 6, 8, 10, 12, 12]
    assert json.loads((old / "result.json").read_text())["steps"] == 12


@pytest.mark.parametrize("command", ["train tiny.py --run run", "evaluate run"])
def test_a_checkpoint_of_another_format_is_left_alone_and_both_formats_are_named(
    refused: Command, old: Path, command: str
) -> None:
    manifest = old / "checkpoints" / "00000006" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["sha256"]
    content["metadata"]["format"] = 99
    write_whole(manifest, {"sha256": digest_of(content)} | content)
    before = {
        file: file.read_bytes() for file in (old / "checkpoints").rglob("*") if file.is_file()
    }
    assert "has format 99; this version reads format 1" in refused(*command.split())
    after = {file: file.read_bytes() for file in (old / "checkpoints").rglob("*") if file.is_file()}
    assert after == before
