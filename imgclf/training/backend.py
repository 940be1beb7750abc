"""The machine under a run: compilation cache, logs, and the facts that bits depend on."""

import contextlib
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from imgclf import __version__


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


def facts(mesh: jax.sharding.Mesh, dispatch: str, deterministic: bool) -> dict[str, Any]:
    """What the bits of a run depend on beside its recipe."""
    versions = {
        name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")
    }
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        **versions,
        "imgclf": __version__,
        "mesh": "x".join(str(size) for size in mesh.shape.values()),
        "processes": jax.process_count(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "dispatch": dispatch,
        "deterministic": deterministic,
        **{name: getattr(jax.config, f"jax_{name}") for name in _NUMBERS},
    }


_NUMBERS = ("default_matmul_precision", "enable_x64", "default_prng_impl")
"""What the caller may have told JAX about numbers."""


@contextlib.contextmanager
def library_logs(file: Path) -> Iterator[None]:
    """While entered, what libraries log (over a thousand lines for a full disk) goes to `file`.

    It does so afterwards, too, if an exception was raised: what a failed save has left under way
    goes on complaining until it ends.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for stale in {each for logger in loggers for each in logger.handlers}:
        if isinstance(stale, _LogFile):  # of a run in this program that ended with an exception
            stale.close()
    before = [(each.handlers[:], each.propagate) for each in loggers]
    hook = sys.unraisablehook
    handler = _LogFile(file, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))

    def unraisable(what: "sys.UnraisableHookArgs") -> None:
        if "Event loop is closed" in str(what.exc_value):  # TensorStore's, in a save that failed
            loggers[0].error("%s", what.exc_value)
        else:
            hook(what)

    for each in loggers:
        each.handlers, each.propagate = [handler], False
    sys.unraisablehook = unraisable
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # likewise
    yield
    for each, (handlers, propagate) in zip(loggers, before, strict=True):
        each.handlers, each.propagate = handlers, propagate
    sys.unraisablehook = hook
    handler.close()


class _LogFile(logging.FileHandler):
    """A log that goes without what a full disk does not take."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # or the library would fail at its own complaint
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def compiler_options(deterministic: bool) -> dict[str, Any] | None:
    """Options under which the same program gives the same bits every time, and is fast.

    On GPUs, where `deterministic`: no atomic additions, and no choice of algorithms by trial, which
    costs speed. On CPU, always: none of XLA's own fused operations; with them convolutions in
    bfloat16 differ from run to run (jaxlib 0.12), or are slower (0.10); and 512 bits at once, where
    the processor can: XLA would take 256. TPUs need nothing.
    """
    if jax.default_backend() == "cpu":
        return {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_prefer_vector_width": 512}
    return {"xla_gpu_deterministic_ops": True} if deterministic else None
