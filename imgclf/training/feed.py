"""From host to device: batches of training and evaluation, streamed or kept on the device.

Both ways give the same examples in the same order. What a worker could not read rides along as
`problems` and is taken out here.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from imgclf.data import checked_labels, fixed_shape
from imgclf.data.pipeline import Batches, Problem, decode_all, evaluation_batches, train_batches
from imgclf.data.source import Source
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess
from imgclf.recipe.resolution import Resolved, TrainStream
from imgclf.recipe.value import Data
from imgclf.tasks import Batch
from imgclf.training.mesh import put_batch, share

RESIDENT_BYTES = 2**30
"""Training images below this many bytes are kept on the device."""
AT_ONCE = 64
"""Steps whose examples are looked up together."""
CACHED_BYTES = 2**29
"""Evaluation batches below this many bytes, all together, are decoded once and kept on the host."""

Report = Callable[[list[Problem]], None]


class Streamed:
    """Batches decoded by the pipeline, ahead of time on the host."""

    def __init__(
        self,
        resolved: Resolved,
        sharding: NamedSharding,
        reports: Callable[[str], Report],
        warn: Callable[[str], None] = warnings.warn,
    ):
        """`reports(stream)` is told of what could not be read; `warn` of workers begun anew."""
        self._resolved, self._sharding, self._warn = resolved, sharding, warn
        self._reports = {name: reports(name) for name in resolved.streams}

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `start` up to `stop`."""
        streams = self._resolved.streams
        with contextlib.ExitStack() as stack:
            sources = [
                stack.enter_context(self._decoded(stream, start, stop))
                for stream in streams.values()
            ]
            for parts in zip(*sources, strict=True):
                yield _joined(
                    {
                        name: put_batch(
                            self._sharding,
                            _for_device(part, self._reports[name]),
                            streams[name].batch_size,
                        )
                        for name, part in zip(streams, parts, strict=True)
                    }
                )

    def _decoded(self, stream: TrainStream, start: int, stop: int) -> Batches:
        data = self._resolved.recipe.data
        index, count = share(self._sharding, stream.batch_size)
        return train_batches(
            stream.source,
            stream.order,
            batch_size=stream.batch_size,
            start=start,
            stop=stop,
            geometry=data.geometry,
            preprocess=self._resolved.network.preprocess,
            seed=stream.seed,
            exif=data.exif,
            workers=data.workers,
            threads=data.threads,
            patience=data.worker_timeout,
            warn=self._warn,
            process_index=index,
            process_count=count,
        )


class Resident:
    """All training images on the device; a batch is gathered there from its ids."""

    def __init__(self, resolved: Resolved, sharding: NamedSharding):
        self._streams = resolved.streams
        whole = NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
        preprocess, exif = resolved.network.preprocess, resolved.recipe.data.exif

        def put(source: Source) -> Batch:
            images = decode_all(source, preprocess, exif=exif)
            host = {"image": images, "label": checked_labels(source)}
            return {name: _put_whole(whole, value) for name, value in host.items()}

        self.held = {name: put(stream.source) for name, stream in self._streams.items()}
        """`image` and `label` of all examples of each stream."""
        self._gather = jax.jit(self.gather, out_shardings=sharding)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `start` up to `stop`."""
        for first in range(start, stop, AT_ONCE):
            ids = self.ids(first, min(first + AT_ONCE, stop))
            for row in range(min(AT_ONCE, stop - first)):
                yield self._gather(self.held, {name: each[row] for name, each in ids.items()})

    def ids(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Which examples of each stream the steps from `start` up to `stop` see: int32 (steps, b)
        for each."""
        found = {}
        for name, stream in self._streams.items():
            size = stream.batch_size
            positions = np.arange(start * size, stop * size, dtype=np.int64)
            found[name] = stream.order.ids(positions).astype(np.int32).reshape(-1, size)
        return found

    @staticmethod
    def gather(held: Batch, ids: Mapping[str, jax.Array]) -> Batch:
        """The batch of the examples `ids` (b,) of each stream."""
        return _joined(
            {
                name: {
                    "image": held[name]["image"][ids_b],
                    "label": held[name]["label"][ids_b],
                    "mask": jnp.ones(ids_b.shape, bool),
                }
                for name, ids_b in ids.items()
            }
        )


class Evaluation:
    """The batches of one evaluation source: every example once, the last batch padded."""

    def __init__(
        self,
        source: Source,
        data: Data,
        preprocess: Preprocess,
        channels: int,
        sharding: NamedSharding,
        report: Report,
    ):
        self.source, self._data, self._preprocess = source, data, preprocess
        self._channels, self._sharding, self._report = channels, sharding, report
        shares = sharding.mesh.shape["data"] * sharding.mesh.shape["fsdp"]
        size = min(data.evaluate_batch_size or data.batch_size, max(len(source), 1))
        self.batch_size = -(-size // shares) * shares
        self._kept: list[dict[str, Any]] = []

    def batches(self) -> Iterator[tuple[Batch, np.ndarray]]:
        """Each batch on the device, and which examples are in it: int64 (b,), -1 for padding.

        What is padding, or could not be read, is masked.
        """
        host = self._kept or self._read()
        for number, batch in enumerate(host):
            ids = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
            ids[ids >= len(self.source)] = -1
            on_device = _for_device(batch, self._report)
            yield put_batch(self._sharding, on_device, self.batch_size), ids

    def _read(self) -> Iterator[dict[str, Any]]:
        index, count = share(self._sharding, self.batch_size)
        source = evaluation_batches(
            self.source,
            batch_size=self.batch_size,
            preprocess=self._preprocess,
            channels=self._channels,
            exif=self._data.exif,
            threads=self._data.threads,
            patience=self._data.worker_timeout,
            process_index=index,
            process_count=count,
        )
        kept: list[dict[str, Any]] = []
        with source:
            for batch in source:
                keep = batch["image"].nbytes * -(-len(self.source) // self.batch_size)
                if keep <= CACHED_BYTES:
                    kept.append(dict(batch))
                yield batch
        for batch in kept:
            batch.pop("problems", None)
        self._kept = kept


def is_resident(resolved: Resolved) -> bool:
    """Whether the training images are kept on the device."""
    choice = resolved.recipe.data.resident
    sources = [stream.source for stream in resolved.streams.values()]
    varying = [each for each in sources if fixed_shape(each) != resolved.image_shape]
    if choice == "yes" and varying:
        raise UserError(
            f"`resident` is 'yes', but images of `{type(varying[0]).__name__}` come in other sizes "
            f"than {' x '.join(map(str, resolved.image_shape))} and are cropped anew each time: "
            "they are streamed; leave it at 'auto'"
        )
    if choice == "no" or varying:
        return False
    images = sum(map(len, sources))
    return choice == "yes" or images * math.prod(resolved.image_shape) <= RESIDENT_BYTES


def example_batch(resolved: Resolved) -> Batch:
    """Shapes and types of a training batch."""

    def part(stream: TrainStream) -> Batch:
        rows, labels = stream.batch_size, checked_labels(stream.source)
        return {
            "image": jax.ShapeDtypeStruct((rows, *resolved.image_shape), np.uint8),
            "label": jax.ShapeDtypeStruct((rows, *labels.shape[1:]), labels.dtype),
            "mask": jax.ShapeDtypeStruct((rows,), np.bool_),
        }

    return _joined({name: part(stream) for name, stream in resolved.streams.items()})


def _joined(parts: Mapping[str, Batch]) -> Batch:
    """What the step is given of the parts of each stream: where there is one, that is the batch."""
    return dict(parts) if len(parts) > 1 else parts["labelled"]


def _for_device(batch: Mapping[str, Any], report: Report) -> dict[str, np.ndarray]:
    if batch.get("problems"):
        report(batch["problems"])
    return {name: batch[name] for name in ("image", "label", "mask")}


def _put_whole(sharding: NamedSharding, value: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
