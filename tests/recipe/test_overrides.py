import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgclf import Epochs, Model, Never, Recipe, UserError
from imgclf.augmentation import Translate
from imgclf.data import (
    Arrays,
    Cifar,
    Digits,
    Fold,
    LabelNoise,
    Mixed,
    Mixture,
    Relabelled,
    Split,
    Subset,
)
from imgclf.recipe import Data, LoadedRecipe, override
from imgclf.recipe.overrides import print_help

RECIPE = Recipe(
    data=Data(Digits(), {"test": Digits("test")}),
    model=Model("cnn", options={"a": 1}),
    augment=(Translate(1),),
)


LOADED = LoadedRecipe("mine", RECIPE)


def changed(*words: str) -> Recipe:
    return override(LOADED, words).recipe


def test_fields_at_every_depth_can_be_changed() -> None:
    recipe = changed(
        *("--length", "7epochs", "--data.batch_size=32", "--augment.0.pixels", "2"),
        *("--data.evaluate.test.split", "all", "--data.exif", "False", "--seed", "5"),
        *("--checkpoint.every", "never", "--model.preprocess.mean", "0.1", "0.2", "0.3"),
    )
    assert recipe.length == Epochs(7) and recipe.data.batch_size == 32 and recipe.seed == 5
    assert recipe.augment == (Translate(2),) and not recipe.data.exif
    assert recipe.data.evaluate == {"test": Digits("all")}
    assert recipe.checkpoint.every == Never() and recipe.model.preprocess.mean == (0.1, 0.2, 0.3)


def test_hyphens_and_underscores_are_one_in_names() -> None:
    assert changed("--data.batch-size", "32") == changed("--data.batch_size", "32")


def test_the_last_of_two_values_holds() -> None:
    assert changed("--seed", "1", "--seed", "2").seed == 2


def test_negative_and_exponent_numbers_are_values() -> None:
    assert changed("--schedule.peak", "1e-3").schedule.peak == 1e-3  # type: ignore[attr-defined]


def test_a_network_is_named_even_where_a_function_stood() -> None:
    recipe = Recipe(data=RECIPE.data, model=Model(lambda n: None))
    loaded = LoadedRecipe("mine", recipe)
    assert override(loaded, ("--model.network", "cnn")).recipe.model.network == "cnn"
    assert callable(override(loaded, ("--seed", "3")).recipe.model.network)


def test_options_of_a_network_may_be_new() -> None:
    recipe = changed("--model.options.width", "64", "--model.options.act", "relu")
    assert recipe.model.options == {"a": 1, "width": 64, "act": "relu"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lenght", "3epochs"), "did you mean --length?"),
        (("--data.batchsize", "3"), "did you mean --data.batch_size?"),
        (("--data.batch_size", "abc"), "must be a whole number; got 'abc'"),
        (("--data.batch_size",), "must be a whole number; got 'nothing'"),
        (("--data.exif", "maybe"), "must be True or False; got 'maybe'"),
        (("--model.dtype", "float16"), "one of 'float32', 'bfloat16'; got 'float16'"),
        (("--length", "3"), "A duration must be a number with its unit"),
        (("--model.preprocess.mean", "x"), "values, each a number; got 'x'"),
        (("stray",), "given as --field VALUE; got 'stray'"),
        (("--data.train", "a", "b"), "takes one path"),
        (("--kind", "folder"), "which is not given"),
        (("--classes", "imagenet1k"), "`--classes` says what lies at `--data.train PATH`"),
    ],
)
def test_a_wrong_word_is_told_in_one_line(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as error:
        changed(*words)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_sources_are_given_by_path(tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    images = np.zeros((40, 8, 8, 1), np.uint8)
    np.savez(file, images=images, labels=np.arange(40) % 2)
    loaded = override(LOADED, ("--data.train", str(file), "--seed", "4"))
    recipe = loaded.recipe
    assert isinstance(recipe.data.train, Split) and recipe.seed == 4
    assert list(recipe.data.evaluate) == ["test"] and "set.npz" in loaded.said[0]
    recipe = changed("--data.evaluate.more", str(file))
    assert isinstance(recipe.data.evaluate["more"], Arrays)
    assert list(recipe.data.evaluate) == ["test", "more"]


def test_classes_found_at_a_path_take_their_places_in_a_list(
    class_folders: Callable[..., Path],
) -> None:
    train = str(class_folders("photos", n01440764=5, n03888257=5))
    recipe = changed("--data.train", train, "--classes", "imagenet1k")
    for source in (recipe.data.train, recipe.data.evaluate["test"]):
        assert len(source.classes) == 1000 and set(source.labels().tolist()) == {0, 701}
    val = str(class_folders("val", n03888257=3))
    recipe = changed("--data.train", train, "--data.evaluate.val", val, "--classes=imagenet1k")
    assert recipe.data.evaluate["val"].labels().tolist() == [701] * 3
    with pytest.raises(UserError, match="did you mean 'imagenet1k'"):
        changed("--data.train", train, "--classes", "imagenet")


def test_samplings_and_sources_made_of_others_have_fields_that_can_be_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    noisy = LabelNoise(Fold(Digits("all")), 0.1)
    mixture = Mixture((Relabelled(noisy, names={"3": "three"}), Subset(Digits(), first=100)))
    recipe = dataclasses.replace(
        RECIPE, data=Data(mixture, {"test": Digits("test")}, sampling=Mixed((1.0, 2.0)))
    )
    words = (
        *("--data.sampling.weights", "3", "1", "--data.train.sources.0.source.share", "0.5"),
        *("--data.train.sources.1.first", "7", "--data.train.sources.0.source.source.fold", "2"),
        *("--data.train.sources.0.names.3", "drei"),
    )
    data = override(LoadedRecipe("mine", recipe), words).recipe.data
    assert data.sampling == Mixed((3.0, 1.0))
    assert data.train == Mixture(
        (
            Relabelled(LabelNoise(Fold(Digits("all"), fold=2), 0.5), names={"3": "drei"}),
            Subset(Digits(), first=7),
        )
    )
    print_help(recipe, "imgclf train mine")
    assert "--data.sampling.weights" in capsys.readouterr().out


def test_without_sources_no_data_are_looked_for(tmp_path: Path) -> None:
    words = (
        "--data.train",
        "gone",
        "--data.evaluate.x",
        "gone",
        "--kind",
        "cifar",
        "--seed",
        "2",
    )
    words += ("--classes", "imagenet1k")
    assert override(LOADED, words, sources=False).recipe.seed == 2
    with pytest.raises(UserError, match="gone"):
        changed(*words)


def test_a_field_of_a_source_that_was_given_can_be_changed(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073 * 4))
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 * 4))
    words = ("--data.train", str(tmp_path), "--data.train.split", "test")
    assert changed(*words).data.train == Cifar("test", str(tmp_path))
