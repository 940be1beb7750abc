"""How a process joins the others that train with it, and parts from them.

JAX's coordination service runs in a process of its own beside process 0 (`coordinator`), since JAX
aborts all others as soon as the one that has it dies.
"""

import concurrent.futures.thread  # noqa: F401 (what it registers must come before `_part`)
import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from imgclf.errors import UserError
from imgclf.training import cluster
from imgclf.training.cluster import GONE, Store
from imgclf.training.signals import leave_at_once

_JOIN, _HEARTBEAT, _LINGER = 300, 3600, 120
"""Seconds. JAX looks for dead processes, too, and aborts with a C++ stack: later than we do."""
_coordinator: subprocess.Popen[str] | None = None


def join(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the cluster, before anything else uses JAX.

    Without arguments: the one that JAX finds (SLURM, Open MPI, TPU, Kubernetes), and none where
    there is none. `coordinator` is HOST:PORT of process 0. Raises a `UserError` for numbers that do
    not fit, and when the others cannot be reached.
    """
    devices = None
    if not coordinator:
        coordinator, processes, process, devices = _detected()
    elif not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"`--coordinator` must be HOST:PORT; got {coordinator!r}")
    if coordinator and not 0 <= process < processes:
        raise UserError(
            f"`--process` must lie from 0 to {processes - 1}, below `--processes` (={processes}); "
            f"got {process}"
        )
    if processes <= 1:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would take our signals
    late = f"not all of the {processes} processes have come to {coordinator}"
    with _in_time(f"{late}, or an earlier process {process} is still there"):
        if process == 0:
            _start_coordinator(coordinator, processes)
        while True:
            _await_coordinator(coordinator)
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                devices,
                cluster_detection_method="deactivate",
                coordinator_bind_address="127.0.0.1:0",  # a second service, which nobody uses
                initialization_timeout=2 * _JOIN,
                heartbeat_timeout_seconds=_HEARTBEAT,
                shutdown_timeout_seconds=_LINGER,
            )
            if Store.below("imgclf/").take(f"place/{process}"):
                break
            jax.distributed.shutdown()  # this one was killed, and the others have yet to notice
            threading.Event().wait(1)
    # Private: what `atexit` has is called after all threads have ended, and one of Orbax may wait
    # for the others for minutes.
    threading._register_atexit(_part)  # type: ignore[attr-defined]


def _detected() -> tuple[str, int, int, Any]:
    from jax._src.clusters import ClusterEnv  # private: `initialize` only says that it failed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # in a pod of which it may not ask more
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 300)
    coordinator, processes, process, devices = found
    return coordinator or "", processes or 0, process if process is not None else -1, devices


def _start_coordinator(coordinator: str, processes: int) -> None:
    global _coordinator
    port = coordinator.rsplit(":", 1)[1]
    _await_free(int(port))
    complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe nobody reads would fill up)
    _coordinator = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("coordinator.py")), port]
        + [str(each) for each in (processes, _HEARTBEAT, _LINGER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        start_new_session=True,  # a signal to the terminal's group is not meant for it
    )
    assert _coordinator.stdout is not None
    if _coordinator.stdout.readline() != "ready\n":
        complaints.seek(0)
        why = complaints.read().strip().splitlines()[-1:]
        raise UserError(f"The coordinator cannot be started at {coordinator}: {' '.join(why)}")


def _await_coordinator(coordinator: str) -> None:
    host, port = coordinator.rsplit(":", 1)
    while True:
        with contextlib.suppress(ConnectionError, TimeoutError):
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        threading.Event().wait(0.2)


@contextlib.contextmanager
def _in_time(what: str) -> Iterator[None]:
    """Leaves if what is done inside takes too long: it may wait in JAX, out of Python's reach."""

    def leave() -> None:
        print(f"imgclf: {what} in {_JOIN} s", file=sys.stderr, flush=True)
        os._exit(GONE)

    timer = threading.Timer(_JOIN, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"Could not join the other processes: {error}") from error
    finally:
        timer.cancel()


def _await_free(port: int) -> None:
    """Returns when nothing listens at `port`: the coordinator of a run that died may still."""
    last = time.monotonic() + _LINGER
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    while True:
        try:
            socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UserError(
                    f"The port {port} of `--coordinator` cannot be used: {error.strerror}"
                ) from error
        if time.monotonic() > last:
            raise UserError(f"The port {port} of `--coordinator` is in use by another program")
        threading.Event().wait(0.2)


def _part() -> None:
    if cluster.broken:  # JAX would wait for the others, who are leaving, too
        leave_at_once(cluster.broken)
    jax.distributed.shutdown()
    if _coordinator is not None and _coordinator.stdin is not None:
        _coordinator.stdin.write("done\n")
        _coordinator.stdin.close()
        _coordinator.wait()
