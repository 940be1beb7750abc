"""The coordination service of a cluster, in a process of its own.

    python -m imgclf.training.coordinator PORT PROCESSES HEARTBEAT LINGER

JAX keeps this service in process 0, and aborts all others, with a C++ stack, the moment that
process dies. Kept apart it outlives process 0, which holds its standard input open, until the
others have said who is gone and left; for LINGER seconds at most. Where process 0 has come to its
end it says "done", and waits until it is the last one. If the whole host is lost, and this service
with it, JAX aborts the others all the same (jaxlib 0.12 has no callback for it that Python can be).
"""

import signal
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Serves, as the words of the command line say."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)  # a scheduler sends them to all; it is needed to save
    from jaxlib import _jax  # private: JAX itself offers the service in process 0 alone

    port, processes, heartbeat, linger = map(int, sys.argv[1:])
    service = _jax.get_distributed_runtime_service(
        f"[::]:{port}",
        processes,
        heartbeat_timeout=heartbeat,
        shutdown_timeout=linger,
        recoverable=True,  # else to shut down waits for all, and aborts where one is gone
    )
    print("ready", flush=True)
    left = 1 if sys.stdin.readline() == "done\n" else 0
    last = time.monotonic() + linger
    while connections(port) > left and time.monotonic() < last:
        threading.Event().wait(0.1)
    service.shutdown()


def connections(port: int) -> int:
    """How many connections to a local port are open; 1 where the system does not say."""
    files = [file for name in ("tcp", "tcp6") if (file := Path("/proc/net") / name).is_file()]
    rows = [line.split() for file in files for line in file.read_text().splitlines()[1:]]
    here = [row for row in rows if int(row[1].rsplit(":", 1)[1], 16) == port]
    return sum(row[3] == "01" for row in here) if files else 1


if __name__ == "__main__":
    main()
