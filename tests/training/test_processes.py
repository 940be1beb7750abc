"""Several real processes that train one network, agree, and lose each other."""

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgclf.training.cluster import GONE

from .processes import (
    DEAD_AFTER,
    RECIPE,
    Process,
    close,
    coordinators,
    finished,
    free_port,
    started,
    trained,
)
from .runs import same_run

LONG = ("--length", "120steps", "--evaluate-every", "50steps")
"""Long enough to be stopped on the way."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `LONG` run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    finished(folder, "--run", "run", *LONG)
    return folder / "run"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Process]:
    """A run of one process with four devices."""
    folder = tmp_path_factory.mktemp("alone")
    (process,) = finished(folder, "--run", "run", processes=1, devices=4)
    return folder / "run", process


def test_two_processes_see_the_batches_and_learn_the_losses_of_one(
    tmp_path: Path, alone: tuple[Path, Process]
) -> None:
    two, one = finished(tmp_path, "--run", "run"), alone[1]
    close(tmp_path / "run", alone[0])
    assert [line["step"] for line in trained(tmp_path / "run")] == list(range(1, 21))
    shown = [[line for line in each.out if line.startswith("step ")] for each in (two[0], one)]
    assert len(shown[0]) == len(shown[1]) == 20
    assert two[0].err == two[1].err == [] and not set(two[0].out) & set(two[1].out) - {""}
    files = [sorted(file.name for file in run.iterdir()) for run in (alone[0], tmp_path / "run")]
    for names in files:
        assert sum(name.startswith("events") for name in names) == 1
    plain = [[name for name in names if "events" not in name] for names in files]
    assert plain[0] == plain[1]
    assert (tmp_path / "run" / "log.txt").read_text().count("compiling the step ...") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "words"),
    [
        (4, ()),
        (2, ("--mesh.fsdp", "4")),
        (2, ("--mesh.tensor", "2")),
        (2, ("--mesh.tensor", "4")),
        (2, ("--mesh.fsdp", "2", "--mesh.tensor", "2")),
    ],
    ids=["four", "fsdp 4", "tensor 2", "tensor 4", "fsdp 2 and tensor 2"],
)
def test_any_processes_and_mesh_learn_the_losses_of_one_process(
    tmp_path: Path, alone: tuple[Path, Process], processes: int, words: Sequence[str]
) -> None:
    finished(tmp_path, "--run", "run", *words, processes=processes, devices=4 // processes)
    close(tmp_path / "run", alone[0])


@pytest.mark.slow
def test_streamed_accumulated_averaged_mixed_runs_of_two_processes_are_those_of_one(
    tmp_path: Path,
) -> None:
    text = RECIPE.replace("(Translate(1),)", "(Translate(1), Mixup())")
    (tmp_path / "recipe.py").write_text(text.replace("import Translate", "import Mixup, Translate"))
    words = ("--data.resident", "no", "--data.workers", "1", "--accumulate", "2")
    words += ("--average.decay", "0.9")
    finished(tmp_path, "--run", "two", *words)
    finished(tmp_path, "--run", "one", *words, processes=1, devices=4)
    close(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_signal_to_one_process_makes_all_save_the_same_step_and_leave(
    tmp_path: Path, whole: Path
) -> None:
    signalled(tmp_path, signal.SIGTERM, (1,), 7)
    finished(tmp_path, "--run", "run", *LONG)
    same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_any_signal_to_any_process_or_to_the_whole_job_does(tmp_path: Path, whole: Path) -> None:
    step = 7
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        for to in ((0,), (1,), (0, 1)):
            step = signalled(tmp_path, sent, to, step) + 2
    finished(tmp_path, "--run", "run", *LONG)
    same_run(whole, tmp_path / "run")


def signalled(folder: Path, sent: signal.Signals, to: Sequence[int], step: int) -> int:
    """Sends a signal after `step`, after which all leave; returns the step that they have saved.

    Where it goes to both processes, it goes to what they have started, too.
    """
    port = free_port()
    with started(folder, "--run", "run", *LONG, port=port) as cluster:
        cluster[0].await_line(f"step {step}/120")
        for number in coordinators(port) if len(to) == 2 else ():
            os.kill(number, sent)
        for process in to:
            cluster[process].send(sent)
        assert [each.end() for each in cluster] == [128 + sent] * 2, [e.err for e in cluster]
    newest = sorted((folder / "run" / "checkpoints").glob("*/manifest.json"))[-1].parent
    saved = f"warning: {sent.name}: saved step {int(newest.name)} of 120 and stopped"
    again = ", again to leave at once" if sent is signal.SIGINT else ""
    noted = [f"{sent.name}: saving and leaving{again}"]
    assert cluster[0].err == (noted if 0 in to else []) + [saved]
    assert cluster[1].err == (noted if 1 in to else [])
    return int(newest.name)


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_signal_before_the_first_step_is_told_to_the_others(tmp_path: Path, process: int) -> None:
    with started(tmp_path, "--run", "run", *LONG) as cluster:
        cluster[0].await_line("compiling")
        cluster[process].send(signal.SIGTERM)
        assert [each.end() for each in cluster] == ([143, GONE] if process == 0 else [GONE, 143])
    assert "SIGTERM: leaving" in cluster[process].err
    (said,) = cluster[1 - process].err
    assert said.startswith(
        f"imgclf: process {process} of 2 has left: SIGTERM; nothing is saved yet; "
    )


@pytest.mark.slow
def test_when_a_process_is_killed_the_others_name_it_and_leave_and_the_run_goes_on(
    tmp_path: Path, whole: Path
) -> None:
    port = free_port()
    for process, line in ((1, "step 13/120"), (0, "step 63/120")):
        with started(tmp_path, "--run", "run", *LONG, port=port) as cluster:
            cluster[0].await_line(line)
            cluster[process].send(signal.SIGKILL)
            leaves(cluster[1 - process], process, "has died")
            await_no_coordinator(port)
    finished(tmp_path, "--run", "run", *LONG, port=port)
    same_run(whole, tmp_path / "run")


def leaves(process: Process, gone: int, what: str = "has died") -> None:
    """A process leaves, with one line on which one is gone and what is saved."""
    assert process.end() == GONE, process.err
    (said,) = process.err
    expected = f"imgclf: process {gone} of 2 {what} (no sign of life for {DEAD_AFTER} s); "
    assert said.startswith(expected), said
    saved = "the last good checkpoint is run/checkpoints/000000"
    assert said.removeprefix(expected).startswith((saved, "nothing is saved yet; ")), said


def await_no_coordinator(port: int) -> None:
    event = threading.Event()
    for _ in range(100):
        if not coordinators(port):
            return
        event.wait(0.2)  # it is no child of ours, and nothing tells of its end
    raise AssertionError(f"the coordinator at {port} did not end")


JOINS_AND_DIES = """
import os, signal, sys
from imgclf.training.join import join
join(sys.argv[-7], int(sys.argv[-5]), int(sys.argv[-3]))
os.kill(os.getpid(), signal.SIGKILL)
"""
DIES_AT_THE_END = """
import os, signal, sys
from imgclf.commands import main
main(sys.argv[1:])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_dies_before_all_devices_are_known_is_named(
    tmp_path: Path, process: int
) -> None:
    with started(tmp_path, "--run", "run", program={process: JOINS_AND_DIES}) as cluster:
        assert cluster[process].end() == -signal.SIGKILL
        leaves(cluster[1 - process], process)


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_dies_when_all_is_done_does_not_keep_the_others(
    tmp_path: Path, process: int
) -> None:
    with started(tmp_path, "--run", "run", program={process: DIES_AT_THE_END}) as cluster:
        assert cluster[process].end() == -signal.SIGKILL
        assert cluster[1 - process].end() == 0 and cluster[1 - process].err == []
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_killed_process_that_is_started_again_at_once_waits_until_the_others_have_left(
    tmp_path: Path, whole: Path, process: int
) -> None:
    with contextlib.ExitStack() as stack:

        def start(port: int, only: int | None = None) -> list[Process]:
            cluster = started(tmp_path, "--run", "run", *LONG, port=port, only=only)
            return stack.enter_context(cluster)

        port = free_port()
        first = start(port)
        first[0].await_line("step 13/120")
        first[process].send(signal.SIGKILL)
        assert first[process].end() == -signal.SIGKILL
        (killed,) = start(port, process)
        leaves(first[1 - process], process)
        (left,) = start(port, 1 - process)
        assert killed.end() == left.end() == 0, (killed.err, left.err)
    same_run(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_was_held_up_for_too_long_leaves_when_it_wakes(
    tmp_path: Path, process: int
) -> None:
    with started(tmp_path, "--run", "run", *LONG) as cluster:
        cluster[0].await_line("step 13/120")
        cluster[process].send(signal.SIGSTOP)
        leaves(cluster[1 - process], process)
        cluster[process].send(signal.SIGCONT)
        leaves(cluster[process], process, "was taken for dead")


@pytest.mark.slow
def test_processes_that_were_held_up_together_go_on(tmp_path: Path, whole: Path) -> None:
    with started(tmp_path, "--run", "run", *LONG) as cluster:
        cluster[0].await_line("step 13/120")
        for each in cluster:
            each.send(signal.SIGSTOP)
        threading.Event().wait(DEAD_AFTER + 2)  # nothing but time is waited for
        for each in cluster:
            each.send(signal.SIGCONT)
        assert [each.end() for each in cluster] == [0, 0], [each.err for each in cluster]
    same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_run_killed_twenty_times_at_random_ends_to_the_bit(tmp_path: Path) -> None:
    words = ("--length", "240steps", "--evaluate-every", "50steps", "--checkpoint.every", "3steps")
    finished(tmp_path, "--run", "whole", *words)
    chance, port, saves = random.Random(0), free_port(), tmp_path / "run" / "checkpoints"
    for _ in range(20):
        process, more = chance.randrange(2), chance.randint(1, 9)
        saved = max([0, *(int(each.parent.name) for each in saves.glob("[0-9]*/manifest.json"))])
        moment = chance.choice(("starting", "compiling", "step", "step", "step"))
        with started(tmp_path, "--run", "run", *words, port=port) as cluster:
            if moment == "starting":
                threading.Event().wait(chance.uniform(0, 4))
                cluster[process].send(signal.SIGKILL)
                continue  # the other one may wait for it for long, and is killed, too
            cluster[0].await_line(moment if moment != "step" else f"step {saved + more}/240")
            threading.Event().wait(chance.uniform(0, 0.3))
            cluster[process].send(signal.SIGKILL)
            leaves(cluster[1 - process], process)
    finished(tmp_path, "--run", "run", *words, port=port)
    same_run(tmp_path / "whole", tmp_path / "run")
    assert [line["step"] for line in trained(tmp_path / "run")] == list(range(1, 241))


@pytest.mark.slow
def test_a_run_of_four_processes_goes_on_with_fewer_and_sees_the_same_batches(
    tmp_path: Path, whole: Path
) -> None:
    words = ("--run", "run", *LONG)
    with started(tmp_path, *words, processes=4, devices=1) as cluster:
        cluster[0].await_line("step 13/120")
        cluster[2].send(signal.SIGTERM)
        assert [each.end() for each in cluster] == [143] * 4
    with started(tmp_path, *words) as cluster:
        cluster[0].await_line("step 63/120")
        cluster[1].send(signal.SIGTERM)
        assert [each.end() for each in cluster] == [143] * 2
    (alone,) = finished(tmp_path, *words, processes=1, devices=1)
    for process, counts in ((cluster[0], "processes 4 -> 2"), (alone, "processes 2 -> 1")):
        (said,) = [line for line in process.out if line.startswith("bits may differ")]
        assert counts in said
        assert any(line.startswith("going on after step ") for line in process.out)
    close(tmp_path / "run", whole)


PHOTOGRAPHS = """
import os

from imgclf import Checkpoint, Data, Epochs, Log, Model, Preprocess, Recipe
from imgclf.data import Folder
from imgclf.schedules import Constant

recipe = Recipe(
    data=Data(
        Folder("train"), {"val": Folder("val")}, batch_size=4, root=os.environ["PHOTOGRAPHS"]
    ),
    model=Model("cnn", dtype="float32", preprocess=Preprocess(size=16), options={"width": 2}),
    schedule=Constant(0.01),
    length=Epochs(2),
    checkpoint=Checkpoint(every=Epochs(1)),
    log=Log(tensorboard=False),
)
"""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Sixteen and eight photographs, of which the last in either part cannot be read."""
    (tmp_path / "recipe.py").write_text(PHOTOGRAPHS)
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for name in ("ant", "bee"):
            folder = tmp_path / "photographs" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
        broken = folder / f"{count - 1}.jpg"
        broken.write_bytes(broken.read_bytes()[:200])
    return tmp_path / "photographs"


def test_a_mistake_of_one_process_is_told_by_the_others(tmp_path: Path, photographs: Path) -> None:
    roots = (str(photographs), "nowhere")
    with started(tmp_path, "--run", "run", env=lambda i: {"PHOTOGRAPHS": roots[i]}) as cluster:
        assert [each.end() for each in cluster] == [GONE, 2]
    (said,), (mistake,) = (each.err for each in cluster)
    assert "nowhere/train does not exist" in mistake
    why = mistake.removeprefix("imgclf: ")
    assert said.startswith(f"imgclf: process 1 of 2 has left: {why}; nothing is saved yet")


def test_processes_with_different_recipes_say_in_what_and_leave(tmp_path: Path) -> None:
    own = {0: (), 1: ("--seed", "1")}
    with started(tmp_path, "--run", "run", own=own.__getitem__) as cluster:
        assert [each.end() for each in cluster] == [2, 2], [each.err for each in cluster]
    (said,) = cluster[0].err
    assert cluster[1].err == [said]
    assert said.endswith("seed is 0 in process 0, 1 in process 1"), said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [(), ("--mesh.tensor", "2", "--data.workers", "1")], ids=["shared out", "read twice"]
)
def test_what_processes_cannot_read_is_listed_once_and_counted(
    tmp_path: Path, photographs: Path, words: Sequence[str]
) -> None:
    env = {"PHOTOGRAPHS": str(photographs)}
    how: dict[str, Any] = {"env": lambda process: env}
    finished(tmp_path, "--run", "two", *words, **how, devices=1)
    finished(tmp_path, "--run", "one", **how, processes=1, devices=1)
    one, two = (
        list(map(json.loads, (tmp_path / run / "bad_records.jsonl").read_text().splitlines()))
        for run in ("one", "two")
    )
    assert {each["name"] for each in one} == {"bee/7.jpg", "bee/3.jpg"} and len(one) == 2
    assert sorted(map(str, one)) == sorted(map(str, two))
    for run in ("one", "two"):
        last = json.loads((tmp_path / run / "result.json").read_text())["metrics"]["last"]
        assert (last["val/total"], last["val/unread"]) == (7, 1)


@pytest.mark.slow
def test_a_part_of_a_checkpoint_that_one_process_cannot_write_stops_all(
    tmp_path: Path, whole: Path
) -> None:
    words = ("--run", "run", *LONG, "--mesh.fsdp", "4")
    with started(tmp_path, *words) as cluster:
        cluster[0].await_line("step 13/120")
        cluster[1].limit_files(1000)
        assert [each.end() for each in cluster] == [2, 2]
    (said,) = cluster[0].err
    assert cluster[1].err == [said]
    assert "Could not save checkpoint run/checkpoints/000000" in said and "File too large" in said
    assert "; the last good checkpoint is run/checkpoints/000000" in said
    finished(tmp_path, *words)
    close(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_run_goes_on_without_a_checkpoint_and_saves_again_where_it_is_told_to(
    tmp_path: Path, whole: Path
) -> None:
    words = ("--run", "run", *LONG, "--mesh.fsdp", "4", "--checkpoint.on_failure", "continue")
    with started(tmp_path, *words) as cluster:
        cluster[0].await_line("step 13/120")
        cluster[1].limit_files(1000)
        cluster[0].await_line("warning: Could not save checkpoint")
        cluster[1].limit_files(-1)
        assert [each.end() for each in cluster] == [0, 0]
    assert all("File too large; the last good checkpoint" in line for line in cluster[0].err)
    assert cluster[1].err == []
    assert (tmp_path / "run" / "checkpoints" / "00000120" / "manifest.json").is_file()
    close(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SLURM", "Open MPI"])
def test_processes_find_each_other_where_a_scheduler_started_them(
    tmp_path: Path, alone: tuple[Path, Process], kind: str
) -> None:
    port = free_port()

    def env(process: int) -> dict[str, str]:
        by_kind = {
            "SLURM": {
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": str(process),
                "SLURM_LOCALID": str(process),
            },
            "Open MPI": {
                "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": str(process),
                "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
            },
        }
        return by_kind[kind] | {"JAX_COORDINATOR_PORT": str(port)}

    main, _ = finished(tmp_path, "--run", "run", port=port, env=env, options=False)
    assert any("4 cpu devices of 2 processes" in line for line in main.out)
    close(tmp_path / "run", alone[0])
