"""Weights that others trained on ImageNet, and the counts of right answers they are known for."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.data.decode import decode
from imgclf.data.geometry import Central

NETWORK = "tf_efficientnet_lite0"
Logits = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "data" / "weights" / f"{NETWORK}_f16.safetensors"


@pytest.fixture(scope="module")
def logits(weights: Path) -> Logits:
    """The logits of any number of images of 8 bits."""
    network, params, model_state = models.load(NETWORK, weights)
    mean, std = (np.array(network.preprocess.mean), np.array(network.preprocess.std))

    @jax.jit
    def of_batch(images: jax.Array) -> jax.Array:
        images = (images.astype(jnp.float32) / 255 - mean) / std
        return network.apply(params, model_state, images, train=False)[0].logits

    def of_all(images: np.ndarray) -> np.ndarray:
        return np.concatenate([of_batch(images[i : i + 20]) for i in range(0, len(images), 20)])

    return of_all


@pytest.fixture(scope="module")
def expected(shared: Path) -> Callable[[str], Any]:
    return lambda name: np.load(shared / "data" / "expected" / f"imagenet_{name}.npy")


def test_stored_images_get_their_logits(logits: Logits, expected: Callable[[str], Any]) -> None:
    found, wanted = logits(expected("inputs_u8")), expected("lite0_logits")
    assert np.abs(found - wanted[:4]).max() < 1e-3 * np.abs(wanted[:4]).max()


@pytest.mark.slow
def test_photographs_get_the_classes_that_the_reference_gives_them(
    shared: Path, logits: Logits, expected: Callable[[str], Any]
) -> None:
    folder = shared / "data" / "imagenet_samples"
    with open(folder / "labels.csv", newline="") as file:
        photos = [folder / row["path"] for row in csv.DictReader(file)]
    preprocess = models.entry(NETWORK).preprocess
    rng = np.random.default_rng(0)  # nothing here is random
    images = np.stack(
        [Central()(decode(photo.read_bytes(), exif=False), preprocess, rng) for photo in photos]
    )
    np.testing.assert_array_equal(images[:4], expected("inputs_u8"))
    np.testing.assert_array_equal(logits(images).argmax(1), expected("lite0_top1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photos", "words", "says"),
    [
        ("imagenet_samples", ("--data.exif", "False"), ("val: 140 of 160", "five 156 of 160")),
        ("imagenette/val", ("--model.preprocess.crop", "1"), ("val: 218 of 300",)),
        (
            "imagenette/val",
            ("--model.preprocess.crop", "1", "--present-classes"),
            ("val-present: 297 of 300", "n01440764"),
        ),
    ],
)
def test_the_command_line_counts_as_many_right_as_the_reference(
    photos: str,
    words: tuple[str, ...],
    says: tuple[str, ...],
    imgclf: Callable[..., Any],
    shared: Path,
    weights: Path,
) -> None:
    ended = imgclf(
        *("evaluate", "imagenette", "--data.evaluate.val", str(shared / "data" / photos)),
        *("--classes", "imagenet1k", "--data.batch_size", "20", *words),
        *("--model.network", NETWORK, "--model.weights", str(weights)),
        *("--model.preprocess.size", "224", "--model.dtype", "float32"),
    )
    assert (ended.status, ended.err) == (0, "")
    assert all(said in ended.out for said in says)
