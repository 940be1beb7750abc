"""Images that could not be read: warned of, and listed once in the run's `bad_records.jsonl`."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgclf.data.pipeline import Problem
from imgclf.training.cluster import Cluster
from imgclf.training.display import Display
from imgclf.training.writers import Appended, Kept, cut_lines

SHOWN = 10
"""After so many warnings the list alone has the rest."""


class BadRecords:
    """The list of one run. `step` is the training step they were due in, 0 in evaluation.

    Of several processes the main one keeps it; the others tell it at every `gather`. `lost` is told
    of a list that cannot be written; what is not in it yet is written with what comes next.
    """

    def __init__(
        self,
        file: Path,
        batch_size: int,
        display: Display,
        cluster: Cluster,
        lost: Callable[[str, OSError], None],
    ):
        self._file, self._batch_size, self._display = Appended(file), batch_size, display
        self._cluster, self._lost = cluster, lost
        self._listed: set[tuple[str, int, int]] = set()
        self._untold: list[tuple[str, Problem]] = []

    def cut(self, kept: Kept) -> None:
        """Forgets what was listed for later steps, and knows the rest again."""
        cut_lines(self._file.path, kept)
        if self._file.path.exists():
            lines = map(json.loads, self._file.path.read_text().splitlines())
            self._listed = {_key(line["source"], line) for line in lines}

    def of(self, source: str) -> Callable[[list[Problem]], None]:
        """What the feed of the training data ("train"), or of an evaluation source, reports to."""

        def report(problems: list[Problem]) -> None:
            self._untold += [(source, each) for each in problems]
            if self._cluster.count == 1:
                self.gather()

        return report

    def gather(self) -> None:
        """Lists what all processes have found since the last time; each must come here."""
        told = json.dumps([(source, dataclasses.asdict(each)) for source, each in self._untold])
        self._untold = []
        found = [pair for word in self._cluster.exchange(told) for pair in json.loads(word)]
        by_key = {_key(*pair): pair for pair in found}  # along `tensor` several read the same
        new = [pair for key, pair in by_key.items() if key not in self._listed]
        self._listed |= by_key.keys()
        if not self._cluster.main:
            return
        lines = []
        for source, each in sorted(new, key=lambda pair: pair[1]["position"]):
            step = each["position"] // self._batch_size + 1 if source == "train" else 0
            lines.append(json.dumps({"source": source, "step": step} | each) + "\n")
        try:
            self._file.append("".join(lines).encode())
        except OSError as error:
            self._lost(str(self._file.path), error)
        for _, each in new[: max(0, SHOWN - len(self._listed) + len(new))]:
            self._display.warn(f"{each['name']} could not be read: {each['reason']}")


def _key(source: str, problem: dict[str, Any]) -> tuple[str, int, int]:
    return source, problem["position"], problem["id"]
