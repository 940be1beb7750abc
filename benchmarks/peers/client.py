"""A peer from our side: its process, started once, that runs a round when it is told to."""

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def started(python: str, script: str, *words: str) -> Iterator["Peer"]:
    """A script beside this file, under an interpreter of its own, built and warm."""
    command = [python, str(Path(__file__).parent / script), *words]
    with tempfile.TemporaryFile("w+") as errors:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        try:
            process = subprocess.Popen(command, **pipes, stderr=errors, text=True)
        except OSError as error:
            raise RuntimeError(f"--peer-python {python}: {error.strerror}") from error
        with process:  # it leaves when its standard input ends
            yield Peer(process, errors)


class Peer:
    """`ready` is what it said of itself when it was; in between rounds it is idle."""

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[str]):
        self._process, self._errors = process, errors
        self.ready = self._answer()
        self._idle_since = time.perf_counter()

    def round(self) -> dict[str, Any]:
        """One round: its `seconds`, `steps`, and how many CPUs it kept busy while it was idle."""
        idle = time.perf_counter() - self._idle_since
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        found = self._answer()
        found["busy_while_idle"] = found.pop("cpu_seconds_while_idle") / idle
        self._idle_since = time.perf_counter()
        return found

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["nothing on standard error"])[-1]
        raise RuntimeError(f"the peer left with status {status}: {last}")
