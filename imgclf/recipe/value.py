"""A recipe and its plain parts: frozen dataclasses, made by ordinary constructors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from imgclf.augmentation import Augmentation
from imgclf.data.geometry import Geometry, RandomResizedCrop
from imgclf.data.sampling import Sampling, Uniform
from imgclf.data.source import Source
from imgclf.data.unlabelled import Empty
from imgclf.optimizers import SGD, Optimizer
from imgclf.preprocess import Preprocess
from imgclf.schedules import Cosine, Schedule
from imgclf.tasks import Classify, Task
from imgclf.units import Epochs, Steps, Unit


@dataclass(frozen=True)
class Data:
    """What is learned from and what is measured on, and how it is read."""

    train: Source
    """The training images."""
    evaluate: Mapping[str, Source]
    """Named sources that are evaluated on; the first gives the accuracy that is reported."""
    batch_size: int = 128
    """Examples in one update, over all processes and micro-batches."""
    sampling: Sampling = Uniform()
    """How often each training example comes, and what an epoch is."""
    unlabelled: Source = Empty()
    """Images for a task that learns without labels, too: each batch then has two parts. An epoch is
    once through the part that takes longer."""
    unlabelled_batch_size: int = 0
    """So many of them are in an update; 0: as many as have labels."""
    evaluate_batch_size: int = 0
    """Examples evaluated at a time; 0: as in training."""
    geometry: Geometry = RandomResizedCrop()
    """How training images of varying size are cut; evaluation takes the central crop."""
    root: str = "data"
    """The folder in which the relative paths of sources lie."""
    exif: bool = True
    """Turn photographs as their EXIF orientation says (figures elsewhere often ignore it)."""
    resident: Literal["auto", "yes", "no"] = "auto"
    """Keep all training images on the device; auto: where they are of one size and below 1 GiB."""
    workers: int = 0
    """Processes that decode training images; 0: the threads of this one do."""
    threads: int = 0
    """Threads that decode, in each process; 0: as many as there are CPUs for."""
    worker_timeout: float = 60.0
    """Seconds without a batch after which a worker that is waited for counts as hanging."""
    bad_share: float = 0.01
    """Share of the training records read so far, from a thousand on, that may be unreadable; above
    it the run saves and stops. 1: never."""


@dataclass(frozen=True)
class Model:
    """The network: a name of `imgclf models`, or a function that builds a Linen module."""

    network: str | Callable[..., Any] = "cnn"
    """A name from `imgclf models`, or a function `(num_classes, **options) -> nn.Module`."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What the network computes in; parameters and statistics are float32 always."""
    weights: str = ""
    """A .safetensors or .npz file to start from, in timm's or torchvision's layout."""
    preprocess: Preprocess = Preprocess()
    """Size and normalisation of its images, where they are not the network's own."""
    recompute: bool = False
    """Train in less memory, and longer: what is inside a block is worked out twice, not kept."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the network's function."""


@dataclass(frozen=True)
class Average:
    """An exponential moving average of parameters and batch statistics, which is then evaluated."""

    decay: float = 0.0
    """Share of the old average that each update keeps; 0: no average."""
    warmup: bool = True
    """Keep at most (1 + t) / (10 + t) at update t, so that early weights are forgotten."""


@dataclass(frozen=True)
class Checkpoint:
    """When the state is saved and which saves are kept."""

    every: Unit = Epochs(1)
    """How often; the end of the run is always saved."""
    keep: int = 2
    """So many of the last are kept."""
    best: int = 1
    """So many of the best by the recipe's metric are kept beside them."""
    on_failure: Literal["stop", "continue"] = "stop"
    """What a run does when it could not save: it says so, and stops, or tries again next time."""


@dataclass(frozen=True)
class Log:
    """What is written while the run goes on, beside `metrics.jsonl`."""

    every: Unit = Steps(50)
    """How often training metrics are written: means since the last time."""
    tensorboard: bool = True
    """Write TensorBoard event files into the run folder."""
    wandb: str = ""
    """A Weights & Biases project to write to (`pip install wandb`)."""
    mlflow: str = ""
    """An MLflow experiment to write to (`pip install mlflow`)."""


@dataclass(frozen=True)
class Mesh:
    """How the devices are laid out: their number is the product of the three axes."""

    data: int = 0
    """Devices that share out the batch and hold whole copies; 0: all that the others leave."""
    fsdp: int = 1
    """Devices that share out the batch and the parameters, which they gather to use them."""
    tensor: int = 1
    """Devices that share out the parameters and each layer's outputs."""
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(pattern of a parameter's path, axis of each dimension, "" for none), the first match holds;
    else what has two or more dimensions is sharded over `tensor` along the last, and over `fsdp`
    along the largest of the others, where they divide."""


@dataclass(frozen=True)
class Recipe:
    """An experiment as one value: data, network, task, optimizer, schedule and length."""

    data: Data
    """What is learned from, and measured on."""
    model: Model = Model()
    """The network."""
    task: Task = Classify()
    """What is learned."""
    augment: tuple[Augmentation, ...] = ()
    """What happens to training images on the device, in this order."""
    optimizer: Optimizer = SGD()
    """How gradients become updates."""
    schedule: Schedule = Cosine(peak=0.1)
    """The learning rate."""
    length: Unit = Epochs(30)
    """How long the training lasts."""
    accumulate: int = 1
    """Micro-batches that make one update, one after the other, which takes less memory."""
    clip_norm: float = 0.0
    """Gradients of a greater global norm are scaled down to it; 0: never."""
    average: Average = Average()
    """A moving average of the weights."""
    evaluate_every: Unit = Epochs(1)
    """How often the evaluation sources are evaluated; the end of the run always is."""
    best: str = ""
    """The metric that makes a checkpoint the best: SOURCE/accuracy, SOURCE/top5_accuracy or
    SOURCE/loss; empty: accuracy on the first evaluation source."""
    checkpoint: Checkpoint = Checkpoint()
    """When the state is saved."""
    log: Log = Log()
    """What is written down."""
    mesh: Mesh = Mesh()
    """How the devices are laid out."""
    dispatch: Literal["auto", "step", "scan"] = "auto"
    """Updates sent to the device one by one, or many in a loop there; auto: by the backend."""
    deterministic: bool = False
    """Use only operations that give the same bits every time; on GPUs they are slower."""
    seed: int = 0
    """Of everything random: weights, order, augmentation, dropout."""
