import json
from pathlib import Path

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


def test_an_absent_package_of_a_writer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the package wandb: pip install wandb"):
        make_writers(Log(wandb="project"), tmp_path)
    assert len(make_writers(Log(tensorboard=False), tmp_path)) == 1
