"""From host to device: batches of training and evaluation, streamed or kept on the device.

Both ways give the same examples in the same order. What a worker could not read rides along as
`problems` and is taken out here.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from imgclf.data import checked_labels, fixed_shape
from imgclf.data.pipeline import Problem, decode_all, evaluation_batches, train_batches
from imgclf.data.source import Source
from imgclf.preprocess import Preprocess
from imgclf.recipe.resolution import Resolved
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
        report: Report,
        warn: Callable[[str], None] = warnings.warn,
    ):
        self._resolved, self._sharding = resolved, sharding
        self._report, self._warn = report, warn

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `start` up to `stop`."""
        data, network = self._resolved.recipe.data, self._resolved.network
        index, count = share(self._sharding, data.batch_size)
        source = train_batches(
            self._resolved.train,
            self._resolved.order,
            batch_size=data.batch_size,
            start=start,
            stop=stop,
            geometry=data.geometry,
            preprocess=network.preprocess,
            seed=self._resolved.recipe.seed,
            exif=data.exif,
            workers=data.workers,
            threads=data.threads,
            patience=data.worker_timeout,
            warn=self._warn,
            process_index=index,
            process_count=count,
        )
        with source:
            for batch in source:
                yield put_batch(self._sharding, _for_device(batch, self._report), data.batch_size)


class Resident:
    """All training images on the device; a batch is gathered there from its ids."""

    def __init__(self, resolved: Resolved, sharding: NamedSharding):
        recipe = resolved.recipe
        self._order, self._size = resolved.order, recipe.data.batch_size
        self._sharding = sharding
        whole = NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
        preprocess = resolved.network.preprocess
        self.images = _put_whole(
            whole, decode_all(resolved.train, preprocess, exif=recipe.data.exif)
        )
        self.labels = _put_whole(whole, checked_labels(resolved.train))
        self._gather = jax.jit(self.gather, out_shardings=sharding)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `start` up to `stop`."""
        for first in range(start, stop, AT_ONCE):
            for ids_b in self.ids(first, min(first + AT_ONCE, stop)):
                yield self._gather(self.images, self.labels, ids_b)

    def ids(self, start: int, stop: int) -> np.ndarray:
        """int32 (steps, b): which examples the steps from `start` up to `stop` see."""
        positions = np.arange(start * self._size, stop * self._size, dtype=np.int64)
        return self._order.ids(positions).astype(np.int32).reshape(stop - start, self._size)

    @staticmethod
    def gather(images: jax.Array, labels: jax.Array, ids_b: jax.Array) -> Batch:
        """The batch of the examples `ids_b`."""
        mask = jnp.ones(ids_b.shape, bool)
        return {"image": images[ids_b], "label": labels[ids_b], "mask": mask}


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
    choice, shape = resolved.recipe.data.resident, fixed_shape(resolved.train)
    if shape is None or shape != resolved.image_shape or choice == "no":
        return False
    return choice == "yes" or len(resolved.train) * math.prod(shape) <= RESIDENT_BYTES


def example_batch(resolved: Resolved) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of a training batch."""
    rows, labels = resolved.recipe.data.batch_size, checked_labels(resolved.train)
    return {
        "image": jax.ShapeDtypeStruct((rows, *resolved.image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((rows, *labels.shape[1:]), labels.dtype),
        "mask": jax.ShapeDtypeStruct((rows,), np.bool_),
    }


def _for_device(batch: Mapping[str, Any], report: Report) -> dict[str, np.ndarray]:
    if batch.get("problems"):
        report(batch["problems"])
    return {name: batch[name] for name in ("image", "label", "mask")}


def _put_whole(sharding: NamedSharding, value: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
