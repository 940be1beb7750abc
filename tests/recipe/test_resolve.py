import dataclasses
from pathlib import Path

import numpy as np
import pytest

from imgclf import Average, Epochs, Examples, Model, Never, Preprocess, Recipe, Steps, UserError
from imgclf.augmentation import Translate
from imgclf.data import Arrays, Balanced, Digits, LongTail, Synthetic, Undersampled
from imgclf.losses import SigmoidCrossEntropy
from imgclf.optimizers import SGD
from imgclf.recipe import Checkpoint, Data, resolve
from imgclf.recipe.resolution import rebuild
from imgclf.tasks import Classify

DIGITS = Recipe(
    data=Data(Digits(), {"test": Digits("test")}, batch_size=100),
    model=Model("cnn", dtype="float32"),
)


def test_lengths_are_counted_in_steps_that_see_every_example() -> None:
    resolved = resolve(dataclasses.replace(DIGITS, length=Epochs(2)))
    assert resolved.steps_per_epoch == 14.37 and resolved.steps == 29  # 28.74, rounded up
    assert resolve(dataclasses.replace(DIGITS, length=Examples(250))).steps == 3
    assert resolve(dataclasses.replace(DIGITS, length=Steps(7))).steps == 7


def test_an_epoch_is_as_long_as_the_sampling_says() -> None:
    even = data(train=LongTail(Digits(), 10), sampling=Undersampled())
    resolved = resolve(dataclasses.replace(even, length=Epochs(3)))
    rarest = np.bincount(LongTail(Digits(), 10).labels()).min()
    assert resolved.streams["labelled"].order.n == 10 * rarest < 200
    assert resolved.steps_per_epoch == 10 * rarest / 100
    assert resolved.as_json()["recipe"]["data"]["sampling"] == {"kind": "Undersampled"}


def test_the_kth_event_is_at_the_first_step_that_has_seen_enough() -> None:
    resolved = resolve(dataclasses.replace(DIGITS, length=Epochs(3)))
    assert sorted(resolved.cadence(Epochs(1))) == [15, 29, 44]
    assert sorted(resolved.cadence(Steps(20))) == [20, 40]
    assert resolved.cadence(Never()) == frozenset()
    assert len(resolved.cadence(Epochs(0.01))) == 44


def test_images_and_network_agree_on_size_and_channels() -> None:
    assert resolve(DIGITS).image_shape == (8, 8, 1)
    assert resolve(DIGITS).network.preprocess.size == 8
    larger = dataclasses.replace(DIGITS, model=Model("cnn", preprocess=Preprocess(size=16)))
    assert resolve(larger).image_shape == (16, 16, 1)
    grey = resolve(dataclasses.replace(DIGITS, model=Model("cifar_resnet20")))
    assert len(grey.network.preprocess.mean) == 1  # the three channels' mean


def test_the_network_of_a_run_is_made_anew_without_the_weights_it_began_with() -> None:
    content = resolve(DIGITS).as_json() | {"image_shape": [8, 12, 1]}
    content["preprocess"]["size"] = 0  # what the weights say of the size would fill it
    recipe = dataclasses.replace(DIGITS, model=Model("cnn", weights="hf-hub:not/to be/asked"))
    network, _, shape = rebuild(recipe, content)
    assert (network.name, shape) == ("cnn", (8, 12, 1))


def change(**fields: object) -> Recipe:
    return dataclasses.replace(DIGITS, **fields)  # type: ignore[arg-type]


def data(**fields: object) -> Recipe:
    return change(data=dataclasses.replace(DIGITS.data, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (data(batch_size=0), "`batch_size` of `Data` must be 1 or more; got 0"),
        (data(batch_size=5000), "at most the number of training images (=1,437); got 5000"),
        (data(evaluate={"x": Synthetic(9, 8, 1, 3)}), "'x' has 3 classes, 10 are learned"),
        (data(evaluate={"train": Digits()}), "must be another than 'train'"),
        (data(threads=-1), "`threads` of `Data`"),
        (data(sampling=Balanced), "`sampling` of `Data` must be of kind `Sampling`; got <class"),
        (data(sampling=Balanced(2)), "`power` of `Balanced` must lie in [0, 1]; got 2"),
        (data(worker_timeout=0.0), "`worker_timeout` of `Data`"),
        (data(bad_share=1.5), "`bad_share` of `Data`"),
        (change(accumulate=3), "divisible by the `accumulate` of `Recipe` (=3)"),
        (change(length=30), "`length` of `Recipe` must be a duration, such as Epochs(10)"),
        (change(data=3), "`data` of `Recipe` must be of kind `Data`; got 3"),
        (change(augment=Translate(1)), "must be a tuple of values, each of kind `Augmentation`"),
        (change(optimizer=SGD), "`optimizer` of `Recipe` must be of kind `Optimizer`; got <class"),
        (data(evaluate=Digits()), "a dict of values, each of kind `Source`; got Digits"),
        (data(batch_size=1.5), "`batch_size` of `Data` must be a whole number; got 1.5"),
        (data(resident=True), "`resident` of `Data` must be one of 'auto', 'yes', 'no'; got True"),
        (change(model=Model(3)), "`network` of `Model` must be one word or a function; got 3"),
        (change(checkpoint=Checkpoint(every=Steps(0))), "`every` of `Checkpoint` must be greater"),
        (change(length=Steps(0)), "`length` of `Recipe` must be at least one step; got 0steps"),
        (change(length=Never()), "`length` of `Recipe`"),
        (change(average=Average(decay=1.0)), "`decay` of `Average` must lie in [0, 1); got 1.0"),
        (change(best="test/acuracy"), "`best` of `Recipe` must be one of test/accuracy"),
        (change(checkpoint=Checkpoint(keep=0)), "`keep` of `Checkpoint` must be 1 or more; got 0"),
        (change(clip_norm=-1.0), "`clip_norm` of `Recipe`"),
        (change(model=Model("resnt18")), "did you mean 'resnet18'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(recipe: Recipe, said: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(recipe)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_soft_labels_for_cross_entropy_must_nearly_add_up_to_one(tmp_path: Path) -> None:
    def softly(off: float) -> Recipe:
        labels = np.full((4, 2), 0.5, np.float32)
        labels[2, 1] += off
        path = tmp_path / f"{off}.npz"
        np.savez(path, images=np.zeros((4, 8, 8), np.uint8), labels=labels)
        return data(train=Arrays(str(path)), evaluate={}, batch_size=2)

    resolve(softly(0.04))
    far = softly(0.25)
    with pytest.raises(UserError, match=r"soft labels of `Arrays` must .* got 1.25 for '0.25/2'$"):
        resolve(far)
    resolve(dataclasses.replace(far, task=Classify(SigmoidCrossEntropy())))
