"""Where metrics go: JSON lines, TensorBoard, Weights & Biases, MLflow, by one small base."""

import abc
import errno
import json
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from imgclf.errors import UserError
from imgclf.recipe.value import Log
from imgclf.training.manifest import write_whole

Values = dict[str, float]
Kept = Callable[[int, Collection[str]], bool]


class Writer(abc.ABC):
    """Takes the metrics of a step. On a resume `cut` is called first, then steps follow on."""

    @abc.abstractmethod
    def cut(self, kept: Kept) -> None:
        """Forgets everything but what is `kept`, of a step and the names of its numbers."""

    @abc.abstractmethod
    def write(self, step: int, values: Values) -> None:
        """Writes named numbers for the state after `step` updates."""

    @abc.abstractmethod
    def close(self) -> None:
        """Returns when everything is written."""


class JsonLines(Writer):
    """One JSON object a line: `step` and the values."""

    def __init__(self, file: Path):
        self._file = Appended(file)

    def cut(self, kept: Kept) -> None:
        cut_lines(self._file.path, kept)

    def write(self, step: int, values: Values) -> None:
        self._file.append((json.dumps({"step": step} | values) + "\n").encode())

    def close(self) -> None:
        self._file.append(b"")


class TensorBoard(Writer):
    """An event file, written without TensorFlow; a run that goes on writes on in the same one."""

    def __init__(self, folder: Path):
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._file = Appended(next(iter(sorted(folder.glob(_EVENTS))), folder / name))

    def cut(self, kept: Kept) -> None:
        from tensorboardX.proto.event_pb2 import Event

        def is_kept(content: bytes) -> bool:
            event = Event.FromString(content)
            return kept(event.step, [value.tag for value in event.summary.value])

        for file in self._file.path.parent.glob(_EVENTS):
            records = list(_records(file.read_bytes()))
            draft = file.with_name(f".{file.name}")
            draft.write_bytes(b"".join(whole for whole, content in records if is_kept(content)))
            draft.replace(file)

    def write(self, step: int, values: Values) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if not self._file.path.exists():
            self._file.append(_framed(Event(wall_time=time.time(), file_version="brain.Event:2")))
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        self._file.append(_framed(event))

    def close(self) -> None:
        self._file.append(b"")


class WandB(Writer):
    """Weights & Biases; what was written for a step before stays as it was first written."""

    def __init__(self, project: str, folder: Path):
        kept = folder / "wandb.json"
        if not kept.is_file():
            write_whole(kept, secrets.token_hex(8))
        self._run = _optional("wandb").init(
            project=project,
            name=folder.resolve().name,
            id=json.loads(kept.read_text()),
            resume="allow",
            dir=str(folder),
        )

    def cut(self, kept: Kept) -> None:
        pass

    def write(self, step: int, values: Values) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow(Writer):
    """An MLflow run named after the run folder; a run that goes on writes on in the same one."""

    def __init__(self, experiment: str, folder: Path):
        self._mlflow = _optional("mlflow")
        self._mlflow.set_experiment(experiment)
        kept = folder / "mlflow.json"
        if kept.is_file():
            self._mlflow.start_run(run_id=json.loads(kept.read_text()))
        else:
            begun = self._mlflow.start_run(run_name=folder.resolve().name)
            write_whole(kept, begun.info.run_id)

    def cut(self, kept: Kept) -> None:
        pass

    def write(self, step: int, values: Values) -> None:
        self._mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class Service(Writer):
    """Another writer, to a server, whose errors do not end the run: `warn` is told of the first."""

    def __init__(self, name: str, make: Callable[[], Writer], warn: Callable[[str], None]):
        self._name, self._warn, self._said = name, warn, False
        self._writer: Writer | None = self._attempt(make)

    def cut(self, kept: Kept) -> None:
        if self._writer is not None:
            self._attempt(partial(self._writer.cut, kept))

    def write(self, step: int, values: Values) -> None:
        if self._writer is not None:
            self._attempt(partial(self._writer.write, step, values))

    def close(self) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)

    def _attempt(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            if not self._said:
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                self._warn(f"{self._name} lacks metrics that metrics.jsonl has: {why}")
            self._said = True
            return None


def make_writers(
    log: Log, folder: Path, warn: Callable[[str], None] = lambda line: None
) -> list[Writer]:
    """The writers that a recipe asks for, `metrics.jsonl` always first; `warn` shows a line."""
    writers: list[Writer] = [JsonLines(folder / "metrics.jsonl")]
    if log.tensorboard:
        writers.append(TensorBoard(folder))
    if log.wandb:
        writers.append(Service("Weights & Biases", partial(WandB, log.wandb, folder), warn))
    if log.mlflow:
        writers.append(Service("MLflow", partial(MLflow, log.mlflow, folder), warn))
    return writers


def cut_lines(file: Path, kept: Kept) -> None:
    """Drops the JSON lines that are not `kept`, and those that are damaged or not whole."""
    if not file.exists():
        return
    lines = []
    for line in file.read_bytes().splitlines(keepends=True):
        try:
            values = json.loads(line)
            if line.endswith(b"\n") and kept(values["step"], values.keys()):
                lines.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    draft = file.with_name(f".{file.name}")
    draft.write_bytes(b"".join(lines))
    draft.replace(file)


class Appended:
    """A file that grows by whole pieces. What does not fit on the disk is kept for the next time.

    Raises the `OSError`; the file is then as it was.
    """

    def __init__(self, path: Path):
        self.path, self._waiting = path, b""

    def append(self, piece: bytes) -> None:
        self._waiting += piece
        if not self._waiting:
            return
        with self.path.open("ab", buffering=0) as out:
            size = out.tell()
            if out.write(self._waiting) < len(self._waiting):
                out.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._waiting = b""


_EVENTS = "events.out.tfevents.*"


def _framed(event: Any) -> bytes:
    """A record of an event file: length, its CRC, content, its CRC."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return length + _crc(length) + content + _crc(content)


def _crc(part: bytes) -> bytes:
    from tensorboardX.record_writer import masked_crc32c

    return struct.pack("<I", masked_crc32c(part))


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of an event file, framed and bare, up to the first that is damaged."""
    start = 0
    while start + 12 <= len(content):
        length = content[start : start + 8]
        stop = start + 12 + int.from_bytes(length, "little") + 4
        whole = content[start:stop]
        if stop > len(content) or whole[8:12] != _crc(length) or whole[-4:] != _crc(whole[12:-4]):
            return
        yield whole, whole[12:-4]
        start = stop


def _optional(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"`--log.{module}` needs the package {module}: pip install {module}"
        ) from None
