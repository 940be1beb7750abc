"""Images that could not be read: warned of, and listed once in the run's `bad_records.jsonl`."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from imgclf.data.pipeline import Problem
from imgclf.training.display import Display
from imgclf.training.writers import cut_lines

SHOWN = 10
"""After so many warnings the list alone has the rest."""


class BadRecords:
    """The list of one run. `step` is the training step they were due in, 0 in evaluation."""

    def __init__(self, file: Path, batch_size: int, display: Display):
        self._file, self._batch_size, self._display = file, batch_size, display
        self._listed: set[tuple[str, int]] = set()

    def cut(self, step: int) -> None:
        """Forgets what was listed for later steps, and knows the rest again."""
        cut_lines(self._file, step)
        if self._file.exists():
            lines = map(json.loads, self._file.read_text().splitlines())
            self._listed = {(line["source"], line["position"]) for line in lines}

    def of(self, source: str) -> Callable[[list[Problem]], None]:
        """What the feed of the training data ("train"), or of an evaluation source, reports to."""

        def report(problems: list[Problem]) -> None:
            new = [each for each in problems if (source, each.position) not in self._listed]
            with self._file.open("a") as out:
                for each in new:
                    step = each.position // self._batch_size + 1 if source == "train" else 0
                    line = {"source": source, "step": step} | dataclasses.asdict(each)
                    out.write(json.dumps(line) + "\n")
                    self._listed.add((source, each.position))
                    if len(self._listed) <= SHOWN:
                        self._display.warn(f"{each.name} could not be read: {each.reason}")

        return report
