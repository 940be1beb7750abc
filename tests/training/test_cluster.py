"""How processes agree, with threads for processes and a dictionary for JAX's key-value store."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imgclf.training import cluster
from imgclf.training.cluster import Alone, Many, together

COUNT = 3
SECONDS = 30
"""Nothing that is waited for takes so long, on whatever machine."""


class Memory:
    """What `Store` does, in this process; an answer may take a while, as over a network."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._lock, self._chance = threading.Lock(), random.Random(0)

    def set(self, key: str, value: str) -> None:
        self._delay()
        with self._lock:
            self.values[key] = value

    def take(self, key: str) -> bool:
        with self._lock:
            return key not in self.values and not self.values.update({key: "taken"})

    def get(self, key: str) -> str:
        with self._lock:
            return self.values.get(key, "")

    def all(self, place: str) -> dict[int, str]:
        with self._lock:
            found = {key: value for key, value in self.values.items() if key.startswith(place)}
        self._delay()
        return {int(key.rsplit("/", 1)[1]): value for key, value in found.items()}

    def forget(self, place: str) -> None:
        with self._lock:
            self.values = {k: v for k, v in self.values.items() if not k.startswith(place)}

    def _delay(self) -> None:
        threading.Event().wait(self._chance.uniform(0, 0.0005))


@pytest.fixture
def store() -> Memory:
    return Memory()


@pytest.fixture
def members(store: Memory, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Many]]:
    """Three processes, each of which looks at the others without a rest; none may leave."""
    left: list[str] = []
    monkeypatch.setattr(Many, "_leave", lambda self, index, why: left.append(why))
    made: list[Many] = []
    for i in range(COUNT):
        monkeypatch.setattr(cluster, "place", lambda i=i: (i, COUNT))
        stored: Any = store
        made.append(Many(stored, 10_000, print))
        made[-1]._interval = 0.0001
    yield made
    for each in made:
        each.close("the test is over")
    assert left == []


def together_in_threads(members: list[Many], work: Callable[[Many], Any]) -> list[Any]:
    """What `work` gives in each process; fails if one of them does not come to its end."""
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda e=e: found.update({e.index: work(e)}), daemon=True)
        for e in members
    ]
    for each in threads:
        each.start()
    last = time.monotonic() + SECONDS
    for each in threads:
        each.join(max(0.0, last - time.monotonic()))
    assert sorted(found) == list(range(COUNT)), "the others hang, or have failed"
    return [found[i] for i in range(COUNT)]


def test_a_process_by_itself_agrees_with_itself() -> None:
    with together(5, print) as found:
        assert isinstance(found, Alone) and found.main
        assert found.exchange("word") == ["word"] and found.by_main(lambda: [1]) == [1]
        assert not found.due()
        found.wishes.append(lambda: True)
        assert found.due()


def test_all_get_the_words_of_all_in_order_and_old_ones_are_forgotten(
    members: list[Many], store: Memory
) -> None:
    def work(member: Many) -> list[list[str]]:
        return [member.exchange(f"{talk} from {member.index}") for talk in range(200)]

    expected = [[f"{talk} from {i}" for i in range(COUNT)] for talk in range(200)]
    assert together_in_threads(members, work) == [expected] * COUNT
    assert sum(key.startswith("talk/") for key in store.values) <= 2 * COUNT


def test_what_the_main_process_makes_is_given_to_all(members: list[Many]) -> None:
    made: list[int] = []

    def work(member: Many) -> Any:
        return member.by_main(lambda: made.append(member.index) or {"made": member.index})

    assert together_in_threads(members, work) == [{"made": 0}] * COUNT and made == [0]


@pytest.mark.parametrize("seed", [0, 1])
def test_however_often_one_wishes_it_all_meet_at_the_same_dispatch(
    members: list[Many], seed: int
) -> None:
    step = threading.Barrier(COUNT)

    def work(member: Many) -> list[tuple[int, list[str]]]:
        chance, wished = random.Random(COUNT * seed + member.index), [False]
        member.wishes.append(lambda: wished[0])
        tick, met = 0, []
        while len(met) < 200:
            tick += 1
            wished[0] |= chance.random() < 0.02
            if member.due():
                met.append((tick, member.exchange(str(tick))))
                wished[0] = False
            if tick % 3 == 0:  # collectives let no process get far ahead
                step.wait(SECONDS)
        return met

    met = together_in_threads(members, work)
    assert met[0] == met[1] == met[2]
    assert all(words == [str(tick)] * COUNT for tick, words in met[0])
    assert met[0][-1][0] > 2000, "most dispatches are none to meet at"
