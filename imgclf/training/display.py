"""What a person sees while a run goes on: a progress bar in a terminal, else plain lines."""

import contextlib
import sys
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from imgclf.errors import printable


class Display:
    """Lines to standard output and to the run's `log.txt`, and the progress of the steps.

    Of several processes only the main one has something to say, but for an alarm or an error.
    """

    def __init__(self, quiet: bool = False, main: bool = True):
        self._quiet, self._main = quiet or not main, main
        self._terminal = sys.stdout.isatty() and not self._quiet
        self._log: Path | None = None
        self._waiting: deque[str] = deque(maxlen=1000)
        self._progress: Any = None
        self._rates: list[tuple[float, int]] = []

    def log_to(self, file: Path) -> None:
        """Writes all lines, also the earlier ones, to `file`."""
        self._log = file

    def say(self, line: str) -> None:
        """Shows a line and keeps it in the log."""
        line = printable(line)  # a script's output may refuse a file's name
        if self._progress is not None:
            self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
        elif not self._quiet:
            print(line, flush=True)
        self._append(line)

    def warn(self, line: str) -> None:
        """Shows a warning on standard error and keeps it in the log."""
        if self._main:
            _tell(f"warning: {line}")
        self._append(f"warning: {line}")

    def alarm(self, line: str) -> None:
        """Shows why this process leaves, whichever it is."""
        _tell(f"imgclf: {line}")
        self._append(line, always=True)

    def log_error(self) -> None:
        """Keeps the traceback of the exception that is being handled in the log alone."""
        self._append(traceback.format_exc(), always=True)

    def start(self, step: int, steps: int) -> None:
        """Starts the clock (and the bar) of a run that goes on at `step`."""
        self._rates = [(time.perf_counter(), step)]
        if not self._terminal or step >= steps:
            return
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.BarColumn(bar_width=20),
            progress.TextColumn("{task.description}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
        )
        self._progress.start()
        self._task = self._progress.add_task("", total=steps, completed=step)

    def show(
        self,
        step: int,
        steps: int,
        epoch: float,
        done: int,
        batch_size: int,
        values: dict[str, float],
    ) -> float:
        """Shows the metrics of `step`; returns images per second over the last while.

        Metrics are looked at late: `done` steps have been made by now.
        """
        now = time.perf_counter()
        self._rates = [*self._rates[-9:], (now, done)]
        then, first = self._rates[0]
        elapsed = now - then
        rate = (done - first) / elapsed if elapsed > 0 and done > first else 0.0
        numbers = " ".join(f"{k} {values[k]:.4g}" for k in ("loss", "accuracy") if k in values)
        text = f"epoch {epoch:.1f} {numbers} {rate * batch_size:,.0f} img/s"
        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=text)
            self._append(f"step {step}/{steps} {text}")
        else:
            left = f" {_clock((steps - step) / rate)} left" if rate else ""
            self.say(f"step {step}/{steps} {text}{left}")
        return rate * batch_size

    def pause_clock(self, seconds: float) -> None:
        """Leaves out of the rates a while that was no training."""
        self._rates = [(then + seconds, step) for then, step in self._rates]

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _append(self, line: str, always: bool = False) -> None:
        """Keeps a line in the log; what a full disk does not take waits for the next one."""
        if not (self._main or always):
            return
        self._waiting.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(line)}\n")
        if self._log is not None:
            with contextlib.suppress(OSError), self._log.open("a") as out:
                out.write("".join(self._waiting))
                out.flush()
                self._waiting.clear()


def _tell(line: str) -> None:
    """A line on standard error, in one piece: another thread may have something to say, too."""
    print(f"{line}\n", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
