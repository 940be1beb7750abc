"""Several processes that train one network: how they agree, and learn that one is gone.

What they tell each other beside the step's collectives goes through the key-value store of JAX's
coordination service: short words, at the start, around saves and after a signal. A thread in each
process says every now and then that it is alive.
"""

import abc
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import jax

from imgclf.errors import UserError
from imgclf.training.signals import leave_at_once

GONE = 75
"""Exit status of a process that leaves because another one is gone: the same command goes on."""
DEAD_AFTER = 30.0
"""Seconds without a sign of life after which a process counts as dead."""
_GRACE = 5.0
"""Seconds in which a process may end by itself after another one has told why it left."""


class Cluster(abc.ABC):
    """The processes that train together, as one of them sees it."""

    index: int
    count: int

    def __init__(self) -> None:
        self.wishes: list[Callable[[], bool]] = []
        """What makes this process want all to meet: a signal that came, a save that failed."""
        self.last_good: Callable[[], str] = lambda: "nothing is saved yet"
        """Says which checkpoint a run goes on from."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes what there is one copy of."""
        return self.index == 0

    @abc.abstractmethod
    def due(self) -> bool:
        """Whether all processes meet now, since one of them wished it.

        Called once after every dispatch, in every process: all get True at the same one.
        """

    @abc.abstractmethod
    def exchange(self, word: str) -> list[str]:
        """The words of all processes, in their order; each waits here for the others."""

    @abc.abstractmethod
    def tell(self, about: str, word: str) -> None:
        """Tells the others a word, without waiting for them."""

    @abc.abstractmethod
    def told(self, about: str) -> str:
        """What one of the processes has told, or ""."""

    def by_main(self, make: Callable[[], Any]) -> Any:
        """What `make()` gives in the main process (JSON), in all; its `UserError`, too."""
        if self.count == 1:
            return make()
        told: dict[str, Any] = {}
        if self.main:
            try:
                told = {"value": make()}
            except UserError as error:
                told = {"error": str(error)}
        told = json.loads(self.exchange(json.dumps(told))[0])
        if "error" in told:
            raise UserError(told["error"])
        return told["value"]


@final
class Alone(Cluster):
    """One process, which agrees with itself."""

    index, count = 0, 1

    def due(self) -> bool:
        return any(wish() for wish in self.wishes)

    def exchange(self, word: str) -> list[str]:
        return [word]

    def tell(self, about: str, word: str) -> None:
        pass

    def told(self, about: str) -> str:
        return ""


@final
class Many(Cluster):
    """One of several processes.

    `show` shows a line. A process that is not heard of for `dead_after` seconds, or that has told
    why it left, makes this one say so and leave with the status `GONE`.
    """

    def __init__(self, store: "Store", dead_after: float, show: Callable[[str], None]):
        super().__init__()
        self.index, self.count = place()
        self._store, self._dead_after, self._show = store, dead_after, show
        self._interval = min(0.5, dead_after / 10)
        self._talks = self._round = self._tick = 0
        self._lock, self._agreed, self._closed = (
            threading.Lock(),
            threading.Event(),
            threading.Event(),
        )
        self._bound: int | None = None
        self._meeting = 0
        self._heard: dict[int, tuple[str, int]] = {}
        self._thread = threading.Thread(target=self._watch, name="cluster", daemon=True)
        self._thread.start()

    def due(self) -> bool:
        with self._lock:
            self._tick += 1
            if self._bound is None or self._tick < self._bound:
                return False
        self._agreed.wait()
        if self._tick < self._meeting:
            return False
        with self._lock:
            self._round += 1
            self._bound = None
            self._agreed.clear()
        return True

    def exchange(self, word: str) -> list[str]:
        self._talks += 1
        place = f"talk/{self._talks}/"
        self._store.set(f"{place}{self.index}", word)
        pause = 0.002
        while len(said := self._store.all(place)) < self.count:
            threading.Event().wait(pause)  # in Python, so that a signal is answered meanwhile
            pause = min(0.1, 1.5 * pause)
        if self.main:
            self._store.forget(f"talk/{self._talks - 1}/")
        return [said[i] for i in range(self.count)]

    def tell(self, about: str, word: str) -> None:
        self._store.set(f"told/{about}/{self.index}", word)

    def told(self, about: str) -> str:
        return next(iter(self._store.all(f"told/{about}/").values()), "")

    def close(self, why: str = "") -> None:
        """Ends well, when all have come here; or at once, telling the others `why`."""
        if why:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._store.set("left", json.dumps([self.index, why]))
        else:
            self.exchange("")
        self._closed.set()
        self._thread.join()

    def await_news(self) -> None:
        """Waits until it is known why a collective failed: the watching thread then leaves."""
        self._closed.wait(self._dead_after + 4 * self._interval)

    def _watch(self) -> None:
        try:
            self._look()
        except Exception as error:  # or this process would live on, taken for dead
            self._leave(self.index, f"cannot go on: {type(error).__name__}: {error}")

    def _look(self) -> None:
        beat, reached, left_at = 0, time.monotonic(), 0.0
        while not self._closed.wait(self._interval):
            beat += 1
            now = time.monotonic()
            try:
                self._store.set(f"alive/{self.index}", str(beat))
                self._arrange()
                left = self._store.get("left")
                dead = "" if left else self._store.get("dead") or self._dead()
                reached = now
            except jax.errors.JaxRuntimeError:
                left, dead = "", "0" if now - reached > self._dead_after else ""
            if dead:
                taken = "was taken for dead" if int(dead) == self.index else "has died"
                self._leave(int(dead), f"{taken} (no sign of life for {self._dead_after:g} s)")
            if left:
                left_at = left_at or now
                index, why = json.loads(left)
                if now - left_at > _GRACE and index != self.index:
                    self._leave(index, f"has left: {why}")

    def _arrange(self) -> None:
        """Finds a dispatch that no process has passed, if one of them wishes that all meet.

        Each says which is the first it can still stop at, and goes no further until it knows what
        the others say; all meet at the last of these.
        """
        with self._lock:  # a round ends only after this thread has said its part
            number, bound = self._round, self._bound
        place = f"meet/{number}/"
        said = self._store.all(place)
        if bound is None and (said or any(wish() for wish in self.wishes)):
            with self._lock:
                self._bound = bound = self._tick + 1
            self._store.set(f"{place}{self.index}", str(bound))
        elif bound is not None and len(said) == self.count:
            with self._lock:
                if self._round == number:
                    self._meeting = max(map(int, said.values()))
                    self._agreed.set()
            if self.main:
                self._store.forget(f"meet/{number - 1}/")

    def _dead(self) -> str:
        """The number of a process that is not heard of any more; the main one listens to all.

        Time is counted in looks: where all were held up together, none is dead.
        """
        beats = self._store.all("alive/") if self.main else {0: self._store.get("alive/0")}
        for index in range(self.count) if self.main else (0,):
            beat, looks = self._heard.get(index, ("", 0))
            if beat != beats.get(index, ""):
                beat, looks = beats[index], 0
            self._heard[index] = beat, looks + 1
            if looks * self._interval > self._dead_after:
                self._store.set("dead", str(index))
                return str(index)
        return ""

    def _leave(self, index: int, why: str) -> None:
        leave = threading.Timer(_GRACE, os._exit, (GONE,))  # whatever disk or pipe stands still
        leave.daemon = True
        leave.start()
        try:
            self._show(
                f"process {index} of {self.count} {why}; {self.last_good()}; the same commands go "
                "on from there"
            )
        finally:
            leave_at_once(GONE)


broken = 0
"""The exit status of a process that did not part from the others in peace."""
_trainings = 0


@contextlib.contextmanager
def together(dead_after: float, show: Callable[[str], None]) -> Iterator[Cluster]:
    """The processes of this JAX program, while they train.

    One that leaves by an exception tells the others why; by one that has `agreed`, none needs it.
    """
    if place()[1] == 1:
        yield Alone()
        return
    global _trainings
    _trainings += 1
    cluster = Many(Store.below(f"imgclf/{_trainings}/"), dead_after, show)
    try:
        yield cluster
    except BaseException as error:
        global broken
        if isinstance(error, jax.errors.JaxRuntimeError):
            cluster.await_news()
        if getattr(error, "agreed", False):
            cluster.close()
        else:
            broken = 2 if isinstance(error, UserError) else getattr(error, "status", 1)
            cluster.close(" ".join(str(error).split()) or type(error).__name__)
        raise
    cluster.close()


def place() -> tuple[int, int]:
    """Which process this is and how many there are; JAX says so only when all have come."""
    from jax._src import distributed  # private

    return distributed.global_state.process_id, distributed.global_state.num_processes


@dataclass(frozen=True)
class Store:
    """The key-value store of the coordination service, below a prefix."""

    client: Any
    prefix: str

    @staticmethod
    def below(prefix: str) -> "Store":
        from jax._src import distributed  # private, and the only way to it; Orbax's, too

        return Store(distributed.global_state.client, prefix)

    def set(self, key: str, value: str) -> None:
        self.client.key_value_set(self.prefix + key, value or " ", allow_overwrite=True)

    def take(self, key: str) -> bool:
        """Sets a key, unless it is set."""
        try:
            self.client.key_value_set(self.prefix + key, "taken")
        except jax.errors.JaxRuntimeError as error:
            if "ALREADY_EXISTS" in str(error):
                return False
            raise
        return True

    def get(self, key: str) -> str:
        """The value, or "" where there is none."""
        try:
            return self.client.key_value_try_get(self.prefix + key).strip()
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                return ""
            raise

    def all(self, place: str) -> dict[int, str]:
        """The values below a place, by the process that set them."""
        found = self.client.key_value_dir_get(self.prefix + place)
        return {int(key.rsplit("/", 1)[1]): value.strip() for key, value in found}

    def forget(self, place: str) -> None:
        self.client.key_value_delete(self.prefix + place)
