"""What follows from a recipe: sources found, network built, durations counted in steps."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.data import checked_labels, fixed_shape, located
from imgclf.data.order import Order, Stream
from imgclf.data.source import Source
from imgclf.data.unlabelled import Empty
from imgclf.errors import UserError
from imgclf.evaluation import are_sets
from imgclf.losses import CrossEntropy
from imgclf.models import create
from imgclf.models.network import Network
from imgclf.preprocess import Preprocess
from imgclf.recipe.description import describe
from imgclf.recipe.kinds import check_kinds
from imgclf.recipe.value import Model, Recipe
from imgclf.units import Unit

PHOTOGRAPH_SIZE = 64
"""Side in px for images of varying size, where neither recipe nor network names one."""
_FAR_FROM_ONE = 0.05  # more than rounding makes of the sum of an image's soft labels
_APART = 0x9E3779B97F4A7C15  # far from the seeds that people give


@dataclass(frozen=True)
class TrainStream:
    """What training batches, or one part of each, are made of."""

    source: Source
    order: Stream
    """Which example of `source` stands at which position."""
    batch_size: int
    seed: int
    """Of how images of varying size are cut."""


@dataclass(frozen=True)
class Resolved:
    """A recipe with all that is derived from it."""

    recipe: Recipe
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width and channels of the images that the network takes."""
    network: Network
    streams: dict[str, TrainStream]
    """`labelled` and, for a task that learns from both, `unlabelled`."""
    evaluate: dict[str, Source]
    steps_per_epoch: float
    """Updates in which as many examples are seen as an epoch of the sampling has; not rounded."""
    steps: int
    """Updates in the whole run."""

    @property
    def train(self) -> Source:
        """The labelled training images."""
        return self.streams["labelled"].source

    @property
    def images_per_step(self) -> int:
        """Images in one update, of all streams."""
        return sum(stream.batch_size for stream in self.streams.values())

    def cadence(self, every: Unit) -> frozenset[int]:
        """The steps (counted from 1) after which something that is due `every` so often is due.

        The k-th time is the first step at which `k * every` has passed. The last step is not among
        them unless it is due by itself.
        """
        distance = every.in_steps(
            self.steps_per_epoch, batch_size=self.images_per_step, steps=self.steps
        )
        if math.isinf(distance):
            return frozenset()
        count = int(self.steps / distance + 1e-9)
        return frozenset(max(1, _ceil(k * distance)) for k in range(1, count + 1))

    @property
    def best(self) -> str:
        """The metric that makes a checkpoint the best, as SOURCE/METRIC; "" without evaluation."""
        first = next(iter(self.evaluate), "")
        return self.recipe.best or (f"{first}/accuracy" if first else "")

    def as_json(self) -> dict[str, Any]:
        """What a run folder keeps as `resolved.json`."""
        return {
            "recipe": describe(self.recipe),
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "preprocess": describe(self.network.preprocess),
            "steps_per_epoch": self.steps_per_epoch,
            "steps": self.steps,
            "best": self.best,
            "data_root": str(Path(self.recipe.data.root).expanduser().resolve()),
        }


def resolve(recipe: Recipe) -> Resolved:
    """Works out everything that a run of `recipe` needs; raises a `UserError` for what cannot be.

    Sources are opened (an index is read, no image but the first), nothing is computed.
    """
    _check(recipe)
    train = located(recipe.data.train, recipe.data.root)
    evaluate = {k: located(v, recipe.data.root) for k, v in recipe.data.evaluate.items()}
    classes = tuple(train.classes)
    streams = _streams(recipe, train)
    for name, source in evaluate.items():
        check_classes(name, tuple(source.classes), classes)
        checked_labels(source)
    network, image_shape = build(recipe.model, len(classes), fixed_shape(train))
    per_epoch = max(stream.order.n / stream.batch_size for stream in streams.values())
    images = sum(stream.batch_size for stream in streams.values())
    length = recipe.length.in_steps(per_epoch, batch_size=images)
    if not 1 <= length < math.inf:
        raise UserError(f"The `length` of `Recipe` must be at least one step; got {recipe.length}")
    steps = _ceil(length)
    recipe.schedule.build(steps, per_epoch)  # a warm-up that does not fit is refused here
    return Resolved(recipe, classes, image_shape, network, streams, evaluate, per_epoch, steps)


def _streams(recipe: Recipe, train: Source) -> dict[str, TrainStream]:
    data, kind = recipe.data, type(train).__name__
    if not train.classes:
        raise UserError(f"The `train` of `Data` must have classes; `{kind}` has none")
    labels = checked_labels(train)
    if isinstance(getattr(recipe.task, "criterion", None), CrossEntropy):
        _check_shares(train, labels)
    order = data.sampling.build(train, recipe.seed)
    streams = {"labelled": TrainStream(train, order, data.batch_size, recipe.seed)}
    if recipe.task.two_streams == isinstance(data.unlabelled, Empty):
        wants = "images without labels, too" if recipe.task.two_streams else "labelled images alone"
        must = "be given" if recipe.task.two_streams else "be Empty()"
        raise UserError(
            f"`{type(recipe.task).__name__}` learns from {wants}: the `unlabelled` of `Data` must "
            f"{must}; got {data.unlabelled!r}"
        )
    if recipe.task.two_streams:
        unlabelled = located(data.unlabelled, data.root)
        if unlabelled.classes:
            check_classes("unlabelled", tuple(unlabelled.classes), tuple(train.classes))
        if fixed_shape(unlabelled) != fixed_shape(train):
            raise UserError(
                "The `unlabelled` images of `Data` must have the shape of the labelled ones; got "
                f"{_shape(unlabelled)}, {_shape(train)}"
            )
        seed = (recipe.seed + _APART) % 2**64
        size = data.unlabelled_batch_size or data.batch_size
        streams["unlabelled"] = TrainStream(unlabelled, Order(len(unlabelled), seed), size, seed)
    elif data.batch_size > len(train):
        raise UserError(
            f"The `batch_size` of `Data` must be at most the number of training images "
            f"(={len(train):,}); got {data.batch_size}"
        )
    return streams


def _check_shares(source: Source, labels: np.ndarray) -> None:
    """Raises a `UserError` unless cross-entropy can be taken of the labels (n,) or (n, k)."""
    kind = type(source).__name__
    if are_sets(labels):
        raise UserError(
            f"The images of `{kind}` have several labels, or none, where `CrossEntropy` wants one; "
            "take `task=imgclf.tasks.Classify(imgclf.losses.SigmoidCrossEntropy())` in the recipe"
        )
    totals = labels.sum(axis=1) if labels.ndim == 2 else np.ones(len(labels))
    far = np.flatnonzero(np.abs(totals - 1) > _FAR_FROM_ONE)
    if len(far):
        raise UserError(
            f"The soft labels of `{kind}` must add up to 1 for each image, for `CrossEntropy`; got "
            f"{totals[far[0]]:g} for {source.ids()[far[0]]!r}"
        )


def _shape(source: Source) -> str:
    shape = fixed_shape(source)
    return str(shape) if shape else "encoded images"


def build(
    model: Model, num_classes: int, source_shape: tuple[int, int, int] | None
) -> tuple[Network, tuple[int, int, int]]:
    """The network of `model`, its preprocessing settled, and the shape (h, w, c) of its images."""
    taken = {field.name for field in dataclasses.fields(model)}
    taken |= {"num_classes", "in_channels", "in_chans"}
    for name in taken & model.options.keys():
        raise UserError(f"`{name}` is none of a network's `options`; it is said elsewhere")
    channels = source_shape[2] if source_shape else 3
    preprocess = model.preprocess
    if model.weights:
        from imgclf.models import preprocess_with

        size = model.options.get("image_size", 0)
        preprocess = preprocess_with(model.weights, preprocess, channels, size)
    network = create(
        model.network,
        num_classes=num_classes,
        dtype=model.dtype,
        preprocess=preprocess,
        in_channels=channels,
        recompute=model.recompute,
        **model.options,
    )
    preprocess = network.preprocess
    height, width, channels = source_shape or (PHOTOGRAPH_SIZE, PHOTOGRAPH_SIZE, 3)
    if preprocess.size == 0 and (source_shape is None or height == width):
        preprocess = dataclasses.replace(preprocess, size=height)
    preprocess.check(channels)
    if preprocess.size:
        height = width = preprocess.size
    network = dataclasses.replace(network, preprocess=preprocess)
    return network, (height, width, channels)


def rebuild(
    recipe: Recipe, content: dict[str, Any]
) -> tuple[Network, tuple[str, ...], tuple[int, int, int]]:
    """Network, classes and image shape of a run, from what `as_json` gave: no data is needed."""
    fields = {k: v for k, v in content["preprocess"].items() if k != "kind"}
    fields |= {"mean": tuple(fields["mean"]), "std": tuple(fields["std"])}
    # What the weights say of images is among the fields, and they may be gone.
    model = dataclasses.replace(recipe.model, weights="", preprocess=Preprocess(**fields))
    classes = tuple(content["classes"])
    height, width, channels = content["image_shape"]
    network, shape = build(model, len(classes), (height, width, channels))
    return network, classes, shape


def _check(recipe: Recipe) -> None:
    check_kinds(recipe)
    data = recipe.data
    for owner, name, value, least in (
        ("Data", "batch_size", data.batch_size, 1),
        ("Data", "evaluate_batch_size", data.evaluate_batch_size, 0),
        ("Data", "unlabelled_batch_size", data.unlabelled_batch_size, 0),
        ("Data", "workers", data.workers, 0),
        ("Data", "threads", data.threads, 0),
        ("Recipe", "accumulate", recipe.accumulate, 1),
        ("Recipe", "clip_norm", recipe.clip_norm, 0),
        ("Checkpoint", "keep", recipe.checkpoint.keep, 1),
        ("Checkpoint", "best", recipe.checkpoint.best, 0),
    ):
        if not value >= least:
            raise UserError(f"The `{name}` of `{owner}` must be {least} or more; got {value}")
    for owner, name, every in (
        ("Recipe", "evaluate_every", recipe.evaluate_every),
        ("Checkpoint", "every", recipe.checkpoint.every),
        ("Log", "every", recipe.log.every),
    ):
        if every.amount <= 0:
            raise UserError(f"The `{name}` of `{owner}` must be greater than 0; got {every}")
    if not data.worker_timeout > 0:
        raise UserError(
            f"The `worker_timeout` of `Data` must be greater than 0; got {data.worker_timeout}"
        )
    if not 0 <= data.bad_share <= 1:
        raise UserError(f"The `bad_share` of `Data` must lie in [0, 1]; got {data.bad_share}")
    if not 0 <= recipe.average.decay < 1:
        raise UserError(f"The `decay` of `Average` must lie in [0, 1); got {recipe.average.decay}")
    for name in ("batch_size", "unlabelled_batch_size"):
        if getattr(data, name) % recipe.accumulate:
            raise UserError(
                f"The `{name}` of `Data` (={getattr(data, name)}) must be divisible by the "
                f"`accumulate` of `Recipe` (={recipe.accumulate})"
            )
    for name in data.evaluate:
        if name.split("/")[0] == "train":
            raise UserError(
                "A name in the `evaluate` of `Data` must be another than 'train', which training's "
                f"own metrics have, such as 'training_images'; got {name!r}"
            )
    best_source, _, best_metric = recipe.best.partition("/")
    metrics = ("accuracy", "top5_accuracy", "loss")
    if recipe.best and (best_source not in data.evaluate or best_metric not in metrics):
        allowed = ", ".join(f"{name}/{metric}" for name in data.evaluate for metric in metrics)
        raise UserError(f"The `best` of `Recipe` must be one of {allowed}; got {recipe.best!r}")


def check_classes(name: str, classes: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises a `UserError` unless another source has the classes that are learned."""
    if classes != known:
        extra = [each for each in classes if each not in known][:3]
        absent = [each for each in known if each not in classes][:3]
        what = "they are in another order"
        if extra or absent:
            parts = [f"{', '.join(map(repr, extra))} not learned"] if extra else []
            parts += [f"{', '.join(map(repr, absent))} not in it"] if absent else []
            what = "; ".join(parts)
        raise UserError(
            f"The source {name!r} has {len(classes)} classes, {len(known)} are learned, "
            f"and they must be the same: {what}"
        )


def _ceil(steps: float) -> int:
    """`steps` rounded up, but for the last bits of a product of floats."""
    return math.ceil(steps - 1e-6)
