"""The machine under a run: compilation cache, signals, and the facts that bits depend on."""

import contextlib
import importlib.metadata
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax


def use_compilation_cache() -> None:
    """Keeps compiled programs under `~/.cache/imgclf`, unless JAX was told another place."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        (home / "imgclf" / "xla").mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(home / "imgclf" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def facts(mesh: jax.sharding.Mesh, dispatch: str) -> dict[str, Any]:
    """What the bits of a run depend on beside its recipe."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        **versions,
        "mesh": "x".join(str(size) for size in mesh.shape.values()),
        "processes": jax.process_count(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "dispatch": dispatch,
    }


@contextlib.contextmanager
def library_logs(file: Path) -> Iterator[None]:
    """While entered, what libraries log (over a thousand lines for a full disk) goes to `file`."""
    absl = logging.getLogger("absl")
    before, propagated = absl.handlers[:], absl.propagate
    handler = logging.FileHandler(file, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    absl.handlers, absl.propagate = [handler], False
    try:
        yield
    finally:
        absl.handlers, absl.propagate = before, propagated
        handler.close()


class Signals:
    """While entered, SIGTERM, SIGINT and SIGUSR1 are noted rather than obeyed.

    A second SIGINT leaves at once, with status 130.
    """

    NOTED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in self.NOTED}
        return self

    def __exit__(self, *exception: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            print("stopped at once: nothing more was saved", file=sys.stderr, flush=True)
            os._exit(128 + number)
        again = ", again to leave at once" if number == signal.SIGINT else ""
        os.write(2, f"{signal.Signals(number).name}: saving and leaving{again}\n".encode())
        self.received = signal.Signals(number)


class Stopped(SystemExit):
    """A run that saved its state and left because of a signal; exit status 128 + its number."""

    def __init__(self, received: signal.Signals):
        super().__init__(128 + int(received))
