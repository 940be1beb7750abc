import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from imgclf import Log, UserError
from imgclf.training.writers import JsonLines, TensorBoard, Writer, _records, make_writers


def steps_of(folder: Path) -> list[int]:
    events = []
    for file in sorted(folder.glob("events*")):
        events += [Event.FromString(content) for _, content in _records(file.read_bytes())]
    return [event.step for event in events if event.summary.value]


@pytest.mark.parametrize("kind", [JsonLines, TensorBoard])
def test_what_was_written_after_the_checkpoint_is_forgotten(tmp_path: Path, kind: type) -> None:
    target = tmp_path / "metrics.jsonl" if kind is JsonLines else tmp_path
    first: Writer = kind(target)
    for step in (1, 2, 3, 4):
        first.write(step, {"train/loss": step / 10})
    first.close()
    second: Writer = kind(target)
    second.cut(lambda step, names: step <= 2)
    for step in (3, 5):
        second.write(step, {"train/loss": step / 10})
    second.close()
    if kind is JsonLines:
        lines = [json.loads(line) for line in target.read_text().splitlines()]
        assert lines[2] == {"step": 3, "train/loss": 0.3}
        steps = [line["step"] for line in lines]
    else:
        steps = steps_of(tmp_path)
    assert steps == [1, 2, 3, 5]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "x": 2}\n{"step": 2, "x')
    JsonLines(file).cut(lambda step, names: True)
    assert file.read_text() == '{"step": 1, "x": 2}\n'


@pytest.mark.parametrize(
    "damage",
    [b'{"step": 9, "x": "\xff"}\n', b"\0" * 40 + b"\n", b"7\n", b'{"step": "9"}\n', b"[]\n"],
    ids=["no UTF-8", "zeros", "a number", "a step in quotes", "a list"],
)
def test_a_damaged_line_is_dropped_and_the_others_are_kept(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "metrics.jsonl"
    first, last = b'{"step": 1, "x": 2}\n', b'{"step": 2, "x": 3}\n'
    file.write_bytes(first + damage + last)
    JsonLines(file).cut(lambda step, names: step < 9)
    assert file.read_bytes() == first + last


def test_what_comes_after_damage_in_an_event_file_is_dropped(tmp_path: Path) -> None:
    writer = TensorBoard(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"train/loss": step / 10})
    (file,) = tmp_path.glob("events*")
    whole = file.read_bytes()
    third = sum(len(each) for each, _ in list(_records(whole))[:3])
    for place in range(third, len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        TensorBoard(tmp_path).cut(lambda step, names: True)
        assert file.read_bytes() == whole[:third], place
    file.write_bytes(whole + bytes(4096))  # as a power cut leaves it
    TensorBoard(tmp_path).cut(lambda step, names: True)
    assert file.read_bytes() == whole


class Tracker(types.ModuleType):
    """What `WandB` and `MLflow` use of their packages, as they are documented."""

    def __init__(self, name: str):
        super().__init__(name)
        self.runs: dict[str, list[int]] = {}
        self.broken = False
        self.set_experiment = self.end_run = self.finish = lambda *_: None

    def init(self, *, id: str, **_: Any) -> "Tracker":
        self._now = self.runs.setdefault(id, [])
        return self

    def start_run(self, run_id: str = "", run_name: str = "") -> Any:
        run_id = run_id or f"{run_name}-{len(self.runs)}"
        self._now = self.runs.setdefault(run_id, [])
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def log(self, values: Any, step: int) -> None:
        if self.broken:
            raise RuntimeError("the server is away\nfor long")
        self._now.append(step)

    log_metrics = log


@pytest.fixture(params=["wandb", "mlflow"])
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    made = Tracker(request.param)
    monkeypatch.setitem(sys.modules, request.param, made)
    return made


def test_a_run_goes_on_in_its_own_run_of_a_tracker_whatever_its_folder_is_called(
    tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, name in enumerate(("resnet/0", "vit/0", "resnet/0", ".")):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        _, writer = make_writers(Log(tensorboard=False, **{tracker.__name__: "project"}), Path("."))
        writer.write(step, {})
        writer.close()
    assert list(tracker.runs.values()) == [[0, 2], [1], [3]] and "" not in tracker.runs


def test_a_trackers_errors_are_said_once_and_end_nothing(tmp_path: Path, tracker: Tracker) -> None:
    warned: list[str] = []
    log = Log(tensorboard=False, **{tracker.__name__: "project"})
    _, writer = make_writers(log, tmp_path, warned.append)
    tracker.broken = True
    for step in (1, 2):
        writer.write(step, {})
    tracker.broken = False
    writer.write(3, {})
    assert list(tracker.runs.values()) == [[3]]
    assert len(warned) == 1 and warned[0].endswith("RuntimeError: the server is away")


def test_an_absent_package_of_a_writer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the package wandb: pip install wandb"):
        make_writers(Log(wandb="project"), tmp_path)
    assert len(make_writers(Log(tensorboard=False), tmp_path)) == 1
