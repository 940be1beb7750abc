"""Images that could not be read: warned of, listed once each in `bad_records.jsonl`, counted."""

import bisect
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imgclf.data.pipeline import Problem
from imgclf.training.cluster import Cluster
from imgclf.training.display import Display
from imgclf.training.writers import Appended, Kept, cut_lines

SHOWN = 10
"""After so many warnings the list alone has the rest."""
ENOUGH = 1000
"""Records that must have been read before their share says anything."""


class BadRecords:
    """The list of one run: each record of a source once, where it was first due.

    `step` is the training step they were due in, 0 in evaluation. `sizes`: how many records of each
    training stream a step reads. Of several processes the main one
    keeps it; the others tell it at every `gather`. `lost` is told of a list that cannot be written;
    what is not in it yet is written with what comes next.
    """

    def __init__(
        self,
        file: Path,
        sizes: Mapping[str, int],
        share: float,
        display: Display,
        cluster: Cluster,
        lost: Callable[[str, OSError], None],
    ):
        self._file, self._display = Appended(file), display
        self._sizes, self._share = sizes, share
        self._cluster, self._lost = cluster, lost
        self._listed: set[tuple[str, bool, int]] = set()
        self._untold: list[tuple[str, str, Problem]] = []
        self.resume(0)

    def cut(self, kept: Kept) -> None:
        """Forgets what was listed for later steps, and knows the rest again."""
        cut_lines(self._file.path, kept)
        if self._file.path.exists():
            lines = map(json.loads, self._file.path.read_text().splitlines())
            self._listed = {(line["source"], line["step"] > 0, line["id"]) for line in lines}

    def resume(self, unread: int) -> None:
        """Goes on counting from what `unread` was at the checkpoint."""
        self._before = unread
        self._places: dict[str, list[int]] = {stream: [] for stream in self._sizes}

    def of_stream(self, stream: str) -> Callable[[list[Problem]], None]:
        """What the feed of a training stream reports to; the labelled one is called `train`."""
        return self._report("train" if stream == "labelled" else stream, stream)

    def of(self, source: str) -> Callable[[list[Problem]], None]:
        """What the feed of an evaluation source reports to."""
        return self._report(source, "")

    def _report(self, source: str, stream: str) -> Callable[[list[Problem]], None]:
        def report(problems: list[Problem]) -> None:
            self._untold += [(source, stream, each) for each in problems]
            if self._cluster.count == 1:
                self.gather()

        return report

    def unread(self, step: int) -> int:
        """In how many places of the first `step` training batches a record could not be read.

        A function of the step alone, and in all processes the same, after a `gather`.
        """
        return self._before + sum(
            bisect.bisect_left(self._places[stream], step * size)
            for stream, size in self._sizes.items()
        )

    def too_many(self, step: int) -> str:
        """What is to be said if of what was read up to `step` too much is bad; else "".

        Each process must come here.
        """
        self.gather()
        read, unread = step * sum(self._sizes.values()), self.unread(step)
        if read < ENOUGH or unread <= self._share * read:
            return ""
        return (
            f"{unread:,} of the {read:,} training records read so far could not be read, more than "
            f"the `bad_share` of `Data` (={self._share:g}) allows; they are listed in "
            f"{self._file.path}, and --data.bad_share {_twice(unread / read)} allows for them"
        )

    def gather(self) -> None:
        """Lists what all processes have found since the last time; each must come here."""
        told = json.dumps([(*names, dataclasses.asdict(each)) for *names, each in self._untold])
        self._untold = []
        words = map(json.loads, self._cluster.exchange(told))
        found = sorted((each for word in words for each in word), key=lambda e: e[2]["position"])
        for stream, known in self._places.items():  # along `tensor` several processes read the same
            places = {each["position"] for _, fed, each in found if fed == stream}
            self._places[stream] = sorted(places.union(known)) if places else known
        new: dict[tuple[str, bool, int], dict[str, Any]] = {}
        for source, stream, each in found:
            key = source, stream != "", each["id"]
            step = each["position"] // self._sizes[stream] + 1 if stream else 0
            if key not in self._listed:
                new.setdefault(key, {"source": source, "step": step} | each)
        self._listed |= new.keys()
        if not self._cluster.main:
            return
        lines = [json.dumps(each) + "\n" for each in new.values()]
        try:
            self._file.append("".join(lines).encode())
        except OSError as error:
            self._lost(str(self._file.path), error)
        shown = max(0, SHOWN - len(self._listed) + len(new))
        for each in list(new.values())[:shown]:
            self._display.warn(f"{each['name']} could not be read: {each['reason']}")


def _twice(share: float) -> str:
    return f"{min(1.0, 2 * share):.2g}"
