"""Where the time of a run went."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds of wall time by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        before = time.perf_counter()
        try:
            yield
        finally:
            self.add(what, time.perf_counter() - before)

    def resume(self, seconds: dict[str, float]) -> None:
        """Adds the seconds of earlier sittings of the same run."""
        for what, value in seconds.items():
            self.add(what, value)

    def add(self, what: str, seconds: float) -> None:
        """Counts seconds that were measured elsewhere."""
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds
