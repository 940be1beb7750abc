"""Threads and worker processes of the pipeline: watched, and begun anew where a process fails.

Grain neither begins a dead worker again nor notices one that hangs. Since an element is a function
of its number, the pipeline can be built again from the number that is due, and nobody sees it.
"""

import contextlib
import gc
import multiprocessing
import os
import queue
import re
import secrets
import signal
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any, final

import numpy as np

from imgclf.errors import UserError

REBUILDS = 3
"""So many times workers are begun anew for one that died or hung."""
PATIENCE = 60.0
"""Seconds without a batch after which who makes it counts as hanging."""
left_behind = False
"""Whether a thread of this process hangs, for which its end must not wait."""

_LOOK_UP = 2.0
"""Seconds in which Grain notices that it was closed, where nothing hangs."""
_BUFFERED = 2
_HELD = 2 * _BUFFERED + 4  # each worker's batches on the way: in two buffers, and in hand
_DIED = re.compile(r"terminated unexpectedly with exit code (-?\d+)")  # as Grain says it

Element = dict[str, Any]


class _LateError(Exception):
    pass


@final
class Elements(Iterator[Element]):
    """What `make` gives for the numbers from `start` up to `stop`, in order; `close()` it.

    `workers` spawned processes call it, or threads of this process where that is 0; `image` is
    then in memory that this process shares with them, and freed with the array. `warn` is told of
    a worker that died, or gave nothing for `patience` seconds while it was waited for (its first
    element, for which it must begin, is waited for a minute at least).
    """

    def __init__(
        self,
        make: Callable[[int], Element],
        start: int,
        stop: int,
        *,
        workers: int,
        threads: int,
        patience: float,
        warn: Callable[[str], None],
    ):
        self._make, self._next, self._stop = make, start, stop
        self._workers, self._threads, self._patience = workers, threads, patience
        self._warn, self._rebuilt, self._built = warn, 0, False
        if workers:
            _prepare()
        self._build()

    def __next__(self) -> Element:
        while True:
            element, what = self._taken()
            if element is not None:
                self._next += 1
                return _opened(element) if self._workers else element
            self._rebuild(what)

    def close(self) -> None:
        """Ends threads and processes, and frees what they shared."""
        self._end(at_once=False)

    def _build(self) -> None:
        import grain

        self._first, self._token, self._built = self._next, secrets.token_hex(4), True
        read = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads + 1)
        numbers = grain.MapDataset.range(self._next, self._stop)
        if not self._workers:
            self._taker = _Taker(iter(numbers.map(self._make).to_iter_dataset(read)))
            return
        self._roll = SharedMemory(f"imgclf-{self._token}", True, 8 * self._workers)
        processes = grain.MultiprocessingOptions(
            num_workers=self._workers, per_worker_buffer_size=_BUFFERED
        )
        made = numbers.map(partial(_with_plain_errors, self._make)).to_iter_dataset(read)
        sent = made.map(partial(_shared, self._token))
        self._taker = _Taker(iter(sent.mp_prefetch(processes, partial(_begin, self._roll.name))))

    def _taken(self) -> tuple[Element | None, str]:
        """The next element, or what became of the worker that should have made it."""
        global left_behind
        begun = self._next - self._first >= max(1, self._workers)
        patience = self._patience if begun else max(self._patience, PATIENCE)
        try:
            return self._taker.take(patience), ""
        except RuntimeError as error:
            died = _DIED.search(str(error))
            if died is None:
                raise
            return None, _ending(int(died[1]))
        except _LateError:
            nothing = f"gave no batch for {patience:g} s"
            if self._workers:
                return None, f"{nothing} and was killed"
            left_behind = True
            raise UserError(
                f"The data pipeline {nothing}: a thread that reads or decodes hangs, and cannot be "
                "stopped. With --data.workers 1 it would be a process, which can; if reading is "
                "just slow, raise --data.worker_timeout"
            ) from None

    def _rebuild(self, what: str) -> None:
        """Begins anew where the consumer is, for the worker whose turn it is."""
        worker = (self._next - self._first) % self._workers
        pid = self._pids()[worker]
        who = f"Worker {worker} of {self._workers} of the data pipeline"
        said = f"{who} ({f'process {pid}' if pid else 'just begun'}) {what}"
        self._end(at_once=True)
        if self._rebuilt == REBUILDS:
            raise UserError(
                f"{said}, and workers were begun anew {REBUILDS} times before. Fewer --data.workers"
                " need less memory; a greater --data.worker_timeout waits longer"
            )
        self._rebuilt += 1
        self._warn(f"{said}; begun anew, {self._rebuilt} of {REBUILDS} times")
        self._build()

    def _pids(self) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._workers}q", _bytes(self._roll))

    def _end(self, at_once: bool) -> None:
        if not self._built:
            return
        self._built = False
        if not self._workers:
            self._taker.close()
            return
        pids = self._pids()
        if at_once:
            _kill(pids)  # others may hang, too, and Grain would wait for each
        self._taker.close()
        _kill(pids)  # those that Grain had begun, and not come to
        self._roll.close()
        self._roll.unlink()
        for number in range(self._next, self._next + self._workers * _HELD):
            _free(_name(self._token, number))
        gc.collect()  # Grain keeps each one's last batch, in shared memory, in a cycle


class _Taker:
    """`next` of an iterator in a thread of its own, so that it need not be waited for."""

    def __init__(self, elements: Any):
        self._elements = elements
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=_take, args=(elements, self._asked, self._given), name="batches", daemon=True
        )
        self._thread.start()

    def take(self, patience: float) -> Element:
        self._asked.put(True)
        waited = 0.0
        while waited < patience:  # in parts, since a process that was paused has not waited
            part = min(1.0, patience - waited)
            with contextlib.suppress(queue.Empty):
                element, error = self._given.get(timeout=part)
                if error is not None:
                    raise error
                return element
            waited += part
        raise _LateError

    def close(self) -> None:
        self._asked.put(False)
        self._elements.close()
        self._thread.join(timeout=_LOOK_UP)


def _take(elements: Iterator[Element], asked: Any, given: Any) -> None:
    while asked.get():
        try:
            given.put((next(elements), None))  # no name here would keep its memory
        except BaseException as error:
            given.put((None, error))


def _kill(pids: tuple[int, ...]) -> None:
    for child in multiprocessing.active_children():
        if child.pid in pids:
            child.kill()
            child.join()


def _free(name: str) -> None:
    try:
        lost = SharedMemory(name)
    except FileNotFoundError:
        return
    except ValueError:  # its worker was killed before it had a size
        with contextlib.suppress(OSError):
            os.unlink(f"/dev/shm/{name}")
        return
    lost.close()
    with contextlib.suppress(FileNotFoundError):  # Grain's own thread was faster
        lost.unlink()


def _bytes(memory: SharedMemory) -> memoryview:
    assert memory.buf is not None
    return memory.buf


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}{' (too little memory?)' if name == 'SIGKILL' else ''}"


def _name(token: str, number: int) -> str:
    return f"imgclf-{token}-{number}"


def _shared(token: str, element: Element) -> Element:
    """What is sent: the images by the name of shared memory, and little besides."""
    from grain.multiprocessing import SharedMemoryArray

    image = element["image"]
    memory = SharedMemory(_name(token, element["number"]), True, max(1, image.nbytes))
    shared = SharedMemoryArray.from_shared_memory(memory, image.shape, image.dtype)
    np.copyto(shared, image)
    ids, mask = element["id"].tobytes(), element["mask"].tobytes()
    return {"image": shared, "id": ids, "mask": mask, "problems": element["problems"]}


def _opened(element: Element) -> Element:
    return element | {
        "image": element["image"].view(np.ndarray),  # which keeps the shared memory alive
        "id": np.frombuffer(element["id"], np.int64),
        "mask": np.frombuffer(element["mask"], bool),
    }


def _prepare() -> None:
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read absl's flags; we have none
    # Python's tracker of shared memory ignores SIGINT and SIGTERM, but would die of SIGUSR1. It
    # frees what workers had made when they were stopped, and need not warn a person of that.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    warned = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{warned},{quiet}" if warned else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if warned is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = warned


def end_with_the_parent() -> None:
    """Sees to it that this process, which another has spawned, does not outlive that one."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(roll: str, worker: int, workers: int) -> None:
    """The first thing that a worker does: tells its number, and sees to it that it ends."""
    # A terminal or a scheduler sends signals to all processes; what they mean the parent decides.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    # A worker whose parent was killed would wait without end for its batches to be taken.
    end_with_the_parent()
    memory = SharedMemory(roll)
    struct.pack_into("q", _bytes(memory), 8 * worker, os.getpid())
    memory.close()


def _with_plain_errors(make: Callable[[int], Element], number: int) -> Element:
    # An exception that cannot be pickled would be lost on its way, and waited for without end; so
    # would a worker that leaves without an error.
    try:
        return make(number) | {"number": number}
    except UserError as error:
        raise UserError(str(error)) from None
    except (Exception, SystemExit):
        raise RuntimeError(f"In a worker of the data pipeline:\n{traceback.format_exc()}") from None
