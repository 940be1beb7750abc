"""A batch of two parts: images with labels, and others without, each part with its own size."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from PIL import Image

from imgclf import Mesh, Model, Recipe
from imgclf.data import Digits, Images, PartiallyLabelled, Relabelled, Synthetic
from imgclf.errors import UserError
from imgclf.recipe import Data, resolve
from imgclf.tasks import Classify, Task
from imgclf.training.feed import Resident, Streamed, example_batch
from imgclf.training.mesh import batch_sharding, make_mesh

from .processes import close, finished
from .runs import Training, lines, same_run

PSEUDO_LABELS = '''
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from imgclf import Average, Checkpoint, Data, Log, Mesh, Model, Recipe, Steps
from imgclf.augmentation import Mixup, Translate
from imgclf.data import Digits, PartiallyLabelled
from imgclf.schedules import Constant
from imgclf.tasks import Classify, Task, masked_mean, normalise


def seen(images):
    """A number that names the images and their places."""
    places = jnp.arange(1, images.size + 1, dtype=jnp.uint32).reshape(images.shape)
    return (images.astype(jnp.uint32) * places).sum() % 2**20


@dataclass(frozen=True)
class PseudoLabels(Task):
    """What the network is sure of in images without labels is taken as their label."""

    two_streams: ClassVar[bool] = True
    inner: Classify = Classify()

    def initialise(self, network, key, batch):
        return self.inner.initialise(network, key, batch)

    def loss(self, network, params, model_state, batch, key, progress):
        loss, (model_state, metrics) = self.inner.loss(
            network, params, model_state, batch["labelled"], key, progress
        )
        part = batch["unlabelled"]
        images = normalise(part["image"], network.preprocess)
        outputs, model_state = network.apply(params, model_state, images, train=True, key=key)
        sure_bk = jax.lax.stop_gradient(jax.nn.softmax(outputs.logits))
        log_bk = jax.nn.log_softmax(outputs.logits)
        entropy_b = jnp.where(sure_bk.max(-1) > 0.3, -(sure_bk * log_bk).sum(-1), 0)
        more = masked_mean(entropy_b, part["mask"])
        both = seen(batch["labelled"]["image"]) + seen(part["image"])
        metrics |= {"unlabelled_loss": more, "seen": both.astype(jnp.float32)}
        return loss + progress * more, (model_state, metrics)

    def predict(self, network, params, model_state, batch):
        return self.inner.predict(network, params, model_state, batch)


recipe = Recipe(
    data=Data(
        PartiallyLabelled(Digits(), per_class=4),
        {"test": Digits("test")},
        batch_size=48,
        unlabelled=PartiallyLabelled(Digits(), "unlabelled", per_class=4),
        unlabelled_batch_size=96,
    ),
    model=Model("cnn", dtype="float32", options={"width": 4}),
    task=PseudoLabels(),
    augment=(Translate(1),),
    schedule=Constant(0.05),
    length=Steps(30),
    evaluate_every=Steps(13),
    checkpoint=Checkpoint(every=Steps(4)),
    log=Log(every=Steps(1)),
)
'''


@dataclasses.dataclass(frozen=True)
class Both(Task):
    two_streams: ClassVar[bool] = True

    def initialise(self, network: Any, key: Any, batch: Any) -> Any:
        raise NotImplementedError

    def loss(self, *_: Any) -> Any:
        raise NotImplementedError

    def predict(self, *_: Any) -> Any:
        raise NotImplementedError


PARTS = {"train": PartiallyLabelled(Digits(), per_class=3), "evaluate": {}, "batch_size": 40}
OTHERS = PartiallyLabelled(Digits(), "unlabelled", per_class=3)


def recipe(task: Task = Both(), **changes: Any) -> Recipe:
    data = Data(**(PARTS | {"unlabelled": OTHERS, "unlabelled_batch_size": 120} | changes))
    return Recipe(data, Model("cnn", dtype="float32"), task)


def test_each_part_has_its_own_size_and_order_whether_streamed_or_on_the_device() -> None:
    resolved, sharding = resolve(recipe()), batch_sharding(make_mesh(Mesh()))
    resident = Resident(resolved, sharding)
    streamed = list(Streamed(resolved, sharding, lambda _: print).batches(9, 13))
    names = set(resolved.train.ids())
    for step, (a, b) in enumerate(zip(streamed, resident.batches(9, 13), strict=True), 9):
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), a)
        assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), example_batch(resolved))
        jax.tree.map(np.testing.assert_array_equal, a, b)
        ids = resident.ids(step, step + 1)
        for name, labelled in (("labelled", True), ("unlabelled", False)):
            source = resolved.streams[name].source
            assert {source.ids()[i] in names for i in ids[name][0]} == {labelled}
    # 1,407 images without labels make an epoch; the 30 with labels come again and again.
    assert resolved.steps_per_epoch == pytest.approx(1407 / 120)
    ids = resident.ids(0, 12)
    assert sorted(ids["unlabelled"].ravel()[:1407]) == list(range(1407))
    assert sorted(ids["labelled"].ravel()[:60]) == sorted([*range(30)] * 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": Classify()}, "`Classify` learns from labelled images alone: the `unlabelled` of"),
        ({"unlabelled": Data.unlabelled}, "`Both` learns from images without labels, too: the"),
        ({"unlabelled": Synthetic(8, 16, 1, 10)}, r"got \(16, 16, 1\), \(8, 8, 1\)"),
        (
            {"unlabelled": Relabelled(Digits(), class_names=tuple("abcdefghij"))},
            "The source 'unlabelled' has 10 classes, 10 are learned",
        ),
        ({"unlabelled_batch_size": -1}, "The `unlabelled_batch_size` of `Data` must be 0 or more"),
        ({"train": Data.unlabelled}, "The `train` of `Data` must have classes; `Empty` has none"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve(recipe(**changes))


@pytest.mark.slow
def test_a_killed_run_goes_on_in_both_parts(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PSEUDO_LABELS)
    streamed = ("--data.resident", "no", "--accumulate", "2", "--average.decay", "0.9")
    with Training(tmp_path, *streamed, run="whole") as training:
        assert training.end()[0] == 0
    with Training(tmp_path, *streamed, "--data.workers", "1") as training:
        training.reach("step 14/30")
        training.process.send_signal(signal.SIGKILL)
        training.process.wait()
    with Training(tmp_path, *streamed) as training:
        assert training.end()[0] == 0
    same_run(tmp_path / "whole", tmp_path / "run")
    last = lines(tmp_path / "run")[-1]
    assert last["step"] == 30 and 0 < last["test/accuracy"] < 1
    assert any(line.get("train/unlabelled_loss") for line in lines(tmp_path / "run"))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text(PSEUDO_LABELS)
    words = ("--length", "20steps", "--schedule.peak", "0.001")
    finished(tmp_path, "--run", "two", *words)
    finished(tmp_path, "--run", "one", *words, processes=1, devices=4)
    close(tmp_path / "two", tmp_path / "one")


def test_images_below_a_path_are_taken_without_labels_and_a_bad_one_is_listed(
    imgclf: Callable[..., Any], class_folders: Callable[..., Path], tmp_path: Path
) -> None:
    class_folders("photos", ant=6, bee=6)
    pool = tmp_path / "pool"
    (pool / "deep").mkdir(parents=True)
    for i in range(7):
        Image.new("RGB", (9 + i, 8), (30 * i, 9, 9)).save(pool / "deep" / f"{i}.png")
    (pool / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (pool / "notes.txt").write_text("not an image")
    assert list(Images(str(pool)).ids()) == ["broken.jpg", *(f"deep/{i}.png" for i in range(7))]
    (tmp_path / "mine.py").write_text(PSEUDO_LABELS)
    words = ("--data.train", "photos", "--data.unlabelled", "pool", "--data.batch_size", "4")
    more = ("--data.unlabelled_batch_size", "8", "--length", "2steps", "--run", "run")
    ended = imgclf("train", "mine.py", *words, *more, "--model.preprocess.size", "16")
    assert ended.status == 0, ended.err
    assert f"the 8 images below {pool} without labels" in ended.out
    assert "80 % of class folders (2 classes" in ended.out  # a pool needs no evaluation source
    (found,) = map(json.loads, (tmp_path / "run" / "bad_records.jsonl").read_text().splitlines())
    assert (found["source"], found["step"], found["name"]) == ("unlabelled", 1, "broken.jpg")
    assert (found["file"], found["offset"]) == (str(pool / "broken.jpg"), 0)
    assert "broken.jpg could not be read" in ended.err
