"""Making the shards of a data set: here, in processes of ours, or by Apache Beam elsewhere."""

import contextlib
import fcntl
import multiprocessing
import os
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from imgclf.data.prepared_shard import Job
from imgclf.data.workers import end_with_the_parent
from imgclf.errors import UserError


def write(
    job: Job,
    numbers: Sequence[int],
    workers: int = 1,
    tick: Callable[[int], None] = lambda images: None,
) -> None:
    """Makes those of the shards `numbers` that are not finished, in `workers` processes.

    `tick` is told of every few images. Whatever ends it, finished shards stay, and it can be
    called again; two processes that make the same shard write the same bytes.
    """
    missing = [number for number in numbers if job.shard(number).finished is None]
    with drafts_in(Path(job.out)) as drafts:
        if min(workers, len(missing)) <= 1:
            for number in missing:
                job.shard(number).write(drafts, tick)
        else:
            _in_processes(job, missing, min(workers, len(missing)), drafts, tick)


def write_by_beam(job: Job, numbers: Sequence[int], runner: str, options: str = "") -> None:
    """The same by Apache Beam, whose workers must see the source and the folder at their paths.

    `runner` and `options` are Beam's: "DirectRunner", "--direct_num_workers=4".
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError(
            "`--runner` needs Apache Beam; get it by: pip install 'imgclf[beam]'"
        ) from None
    missing = [number for number in numbers if job.shard(number).finished is None]
    with beam.Pipeline(runner, PipelineOptions(shlex.split(options))) as pipeline:
        made = pipeline | beam.Create(missing) | beam.Reshuffle()
        made | beam.Map(partial(_write_alone, job))


def _write_alone(job: Job, number: int) -> None:
    with drafts_in(Path(job.out)) as drafts:
        job.shard(number).write(drafts)


@contextlib.contextmanager
def drafts_in(out: Path) -> Iterator[Path]:
    """A folder for unfinished files, locked as long as it is in use; what killed runs left goes."""
    for left in out.glob(".drafts-*"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=".drafts-", dir=out))
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks: nothing is removed then
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.is_dir():  # nobody took it for left behind before it was locked
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


class _Stopped(Exception):  # noqa: N818 (it says what happened)
    pass


_worker: dict[str, Any] = {}  # what `_begin` gave this process


def _in_processes(
    job: Job, missing: Sequence[int], workers: int, drafts: Path, tick: Callable[[int], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    # Each shard counts in a place of its own: a lock might be held by a process that is killed.
    done, stop = context.RawArray("q", job.total), context.RawValue("b", 0)
    executor = ProcessPoolExecutor(workers, context, _begin, (job, drafts, done, stop))
    try:
        with _interrupted_later():  # what is half started would complain at length
            waiting = {executor.submit(_write_one, number) for number in missing}
        told = 0
        while waiting:
            ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            now = sum(done)
            tick(now - told)
            told = now
            for each in ended:
                each.result()
    except BrokenProcessPool:
        raise UserError(
            "A process of `prepare` was killed (is there memory enough?); what is finished stays, "
            "and the same command goes on"
        ) from None
    finally:
        stop.value = 1
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """An interrupt that comes meanwhile is answered at the end; processes begun here do not see it.

    Blocking the signal in this thread is not enough: another thread may take it for this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def _begin(job: Job, drafts: Path, done: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker.update(job=job, drafts=drafts, done=done, stop=stop)
    end_with_the_parent()


def _write_one(number: int) -> None:
    def tick(images: int) -> None:
        _worker["done"][number] += images
        if _worker["stop"].value:
            raise _Stopped

    _worker["job"].shard(number).write(_worker["drafts"], tick)
