"""Images that could not be read: warned of, listed once each in `bad_records.jsonl`, counted."""

import bisect
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgclf.data.pipeline import Problem
from imgclf.recipe.value import Data
from imgclf.training.cluster import Cluster
from imgclf.training.display import Display
from imgclf.training.writers import Appended, Kept, cut_lines

SHOWN = 10
"""After so many warnings the list alone has the rest."""
ENOUGH = 1000
"""Records that must have been read before their share says anything."""


class BadRecords:
    """The list of one run: each record of a source once, where it was first due.

    `step` is the training step they were due in, 0 in evaluation. Of several processes the main one
    keeps it; the others tell it at every `gather`. `lost` is told of a list that cannot be written;
    what is not in it yet is written with what comes next.
    """

    def __init__(
        self,
        file: Path,
        data: Data,
        display: Display,
        cluster: Cluster,
        lost: Callable[[str, OSError], None],
    ):
        self._file, self._display = Appended(file), display
        self._batch_size, self._share = data.batch_size, data.bad_share
        self._cluster, self._lost = cluster, lost
        self._listed: set[tuple[str, int]] = set()
        self._untold: list[tuple[str, Problem]] = []
        self._before = 0
        self._places: list[int] = []

    def cut(self, kept: Kept) -> None:
        """Forgets what was listed for later steps, and knows the rest again."""
        cut_lines(self._file.path, kept)
        if self._file.path.exists():
            lines = map(json.loads, self._file.path.read_text().splitlines())
            self._listed = {_key(line["source"], line) for line in lines}

    def resume(self, unread: int) -> None:
        """Goes on counting from what `unread` was at the checkpoint."""
        self._before, self._places = unread, []

    def of(self, source: str) -> Callable[[list[Problem]], None]:
        """What the feed of the training data ("train"), or of an evaluation source, reports to."""

        def report(problems: list[Problem]) -> None:
            self._untold += [(source, each) for each in problems]
            if self._cluster.count == 1:
                self.gather()

        return report

    def unread(self, step: int) -> int:
        """In how many places of the first `step` training batches a record could not be read.

        A function of the step alone, and in all processes the same, after a `gather`.
        """
        return self._before + bisect.bisect_left(self._places, step * self._batch_size)

    def too_many(self, step: int) -> str:
        """What is to be said if of what was read up to `step` too much is bad; else "".

        Each process must come here.
        """
        self.gather()
        read, unread = step * self._batch_size, self.unread(step)
        if read < ENOUGH or unread <= self._share * read:
            return ""
        return (
            f"{unread:,} of the {read:,} training records read so far could not be read, more than "
            f"the `bad_share` of `Data` (={self._share:g}) allows; they are listed in "
            f"{self._file.path}, and --data.bad_share {_twice(unread / read)} allows for them"
        )

    def gather(self) -> None:
        """Lists what all processes have found since the last time; each must come here."""
        told = json.dumps([(source, dataclasses.asdict(each)) for source, each in self._untold])
        self._untold = []
        words = map(json.loads, self._cluster.exchange(told))
        found = sorted((pair for word in words for pair in word), key=lambda p: p[1]["position"])
        # Along `tensor` several processes read the same.
        places = {each["position"] for source, each in found if source == "train"}
        self._places = sorted(places.union(self._places)) if places else self._places
        new: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}
        for pair in found:
            if _key(*pair) not in self._listed:
                new.setdefault(_key(*pair), pair)
        self._listed |= new.keys()
        if not self._cluster.main:
            return
        lines = []
        for source, each in new.values():
            step = each["position"] // self._batch_size + 1 if source == "train" else 0
            lines.append(json.dumps({"source": source, "step": step} | each) + "\n")
        try:
            self._file.append("".join(lines).encode())
        except OSError as error:
            self._lost(str(self._file.path), error)
        shown = max(0, SHOWN - len(self._listed) + len(new))
        for _, each in list(new.values())[:shown]:
            self._display.warn(f"{each['name']} could not be read: {each['reason']}")


def _key(source: str, problem: dict[str, Any]) -> tuple[str, int]:
    return source, problem["id"]


def _twice(share: float) -> str:
    return f"{min(1.0, 2 * share):.2g}"
