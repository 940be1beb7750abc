"""What every augmentation promises."""

import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import augmentation
from imgclf.augmentation import Crop, Cutmix, Flip, Mixup, MixupOrCutmix, Translate, compose
from imgclf.errors import UserError

KINDS = {
    "flip": Flip(),
    "crop": Crop(padding=2),
    "crop reflect": Crop(padding=3, mode="reflect"),
    "crop edge": Crop(padding=3, mode="edge"),
    "translate": Translate(2),
    "mixup": Mixup(alpha=0.8, p=0.8),
    "mixup batch": Mixup(alpha=0.8, each="batch"),
    "cutmix": Cutmix(p=0.8),
    "cutmix batch": Cutmix(each="batch"),
    "mixup or cutmix": MixupOrCutmix(p=0.8),
    "mixup or cutmix batch": MixupOrCutmix(each="batch"),
}
GEOMETRY = [kind for kind in KINDS.values() if not kind.soft_labels]
MIXTURES = [kind for kind in KINDS.values() if kind.soft_labels]
KEEPS_TYPE = (Flip, Crop, Translate, Cutmix)
NOTHING = [Flip(0.0), Crop(0), Translate(0), Mixup(p=0.0), Cutmix(p=0.0), MixupOrCutmix(p=0.0)]
WRONG = [
    Flip(1.5),
    Crop(-1),
    Crop(mode="wrap"),  # type: ignore[arg-type]
    Translate(-1),
    Mixup(alpha=0.0),
    Mixup(p=-0.1),
    Mixup(each="image"),  # type: ignore[arg-type]
    Cutmix(alpha=float("nan")),
    Cutmix(p=2.0),
    MixupOrCutmix(mixup=-1.0),
    MixupOrCutmix(cutmix=0.0),
    MixupOrCutmix(switch=1.1),
]
CLASSES = 10
EXAMPLES = 16


def batch_of(channels=3, seed=0):
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(1, 256, (EXAMPLES, 8, 10, channels)).astype(np.uint8),
        "label": random.integers(0, CLASSES, EXAMPLES).astype(np.int32),
        "mask": np.ones(EXAMPLES, bool),
    }


@functools.cache
def compiled(kind):
    return jax.jit(compose((kind,), CLASSES))


def apply(kind, batch, seed=0, jit=True):
    augment = compiled(kind) if jit else compose((kind,), CLASSES)
    result = augment(jax.random.key(seed), batch, np.float32(0.5))
    return {name: np.asarray(value) for name, value in result.items()}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_every_kind_of_the_room_is_in_this_battery():
    exported = {getattr(augmentation, name) for name in augmentation.__all__}
    kinds = {k for k in exported if isinstance(k, type)} - {augmentation.Augmentation}
    assert {type(kind) for kind in KINDS.values()} == kinds


def test_same_key_same_batch_and_another_key_another(kind):
    first, again, other = (apply(kind, batch_of(), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_array_equal(first["label"], again["label"])
    assert (first["image"] != other["image"]).any()


def test_input_is_left_alone_and_other_entries_are_handed_on(kind):
    batch = batch_of()
    result = apply(kind, batch)
    assert result.keys() == batch.keys()
    np.testing.assert_array_equal(result["mask"], batch["mask"])
    np.testing.assert_array_equal(batch["image"], batch_of()["image"])
    np.testing.assert_array_equal(batch["label"], batch_of()["label"])


def test_jit_changes_nothing(kind):
    traced, eager = apply(kind, batch_of()), apply(kind, batch_of(), jit=False)
    np.testing.assert_allclose(traced["image"], eager["image"], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(traced["label"], eager["label"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_type_shape_and_range_of_the_image_are_kept(kind, channels):
    result = apply(kind, batch_of(channels), jit=channels == 3)["image"]
    assert result.shape == (EXAMPLES, 8, 10, channels)
    assert result.dtype == (np.uint8 if isinstance(kind, KEEPS_TYPE) else np.float32)
    assert result.min() >= 0 and result.max() <= 255


def test_float_images_may_come_in(kind):
    batch = batch_of()
    batch["image"] = batch["image"].astype(np.float32)
    as_float = apply(kind, batch, jit=False)["image"]
    assert as_float.dtype == np.float32
    batch["image"] = batch["image"].astype(np.uint8)
    np.testing.assert_allclose(as_float, apply(kind, batch)["image"], rtol=1e-5, atol=1e-4)


def test_labels_are_kept_or_stay_a_distribution(kind):
    batch = batch_of()
    label = apply(kind, batch)["label"]
    if not kind.soft_labels:
        np.testing.assert_array_equal(label, batch["label"])
        return
    assert label.shape == (EXAMPLES, CLASSES) and label.dtype == np.float32
    np.testing.assert_allclose(label.sum(-1), 1, rtol=1e-5)
    batch["label"] = np.eye(CLASSES, dtype=np.float32)[batch["label"]]
    soft = apply(kind, batch, jit=False)
    np.testing.assert_allclose(soft["label"], label, rtol=1e-5, atol=1e-6)


def test_no_example_sees_more_than_its_own_pixels_and_its_partners(kind):
    batch, changed = batch_of(), batch_of()
    changed["image"][5] = 255 - changed["image"][5]
    before, after = apply(kind, batch)["image"], apply(kind, changed)["image"]
    touched = {i for i in range(EXAMPLES) if (before[i] != after[i]).any()}
    assert 5 in touched
    assert touched <= ({5, 6} if kind.soft_labels else {5})


@pytest.mark.parametrize("kind", GEOMETRY, ids=str)
def test_geometry_invents_no_value(kind):
    batch = batch_of()
    for before, after in zip(batch["image"], apply(kind, batch)["image"], strict=True):
        assert set(np.unique(after)) <= {0, *np.unique(before)}


@pytest.mark.parametrize("kind", MIXTURES, ids=str)
def test_mixture_lies_between_its_two_images(kind):
    images = batch_of()["image"].astype(np.float32)
    partners = np.roll(images, 1, axis=0)
    result = apply(kind, batch_of())["image"]
    assert (result >= np.minimum(images, partners)).all()
    assert (result <= np.maximum(images, partners)).all()


@pytest.mark.parametrize("kind", GEOMETRY, ids=str)
def test_place_in_the_batch_alone_decides_the_draw(kind):
    batch = batch_of()
    half = {name: value[:8] for name, value in batch.items()}
    np.testing.assert_array_equal(apply(kind, batch)["image"][:8], apply(kind, half)["image"])


@pytest.mark.parametrize("nothing", NOTHING, ids=str)
def test_strength_zero_changes_nothing(nothing):
    batch = batch_of()
    result = apply(nothing, batch)
    np.testing.assert_array_equal(result["image"], batch["image"])
    label = result["label"]
    np.testing.assert_array_equal(label.argmax(-1) if label.ndim == 2 else label, batch["label"])


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_bad_value_is_one_line_that_names_the_field(wrong):
    with pytest.raises(UserError) as error:
        jax.eval_shape(compose((wrong,), CLASSES), jax.random.key(0), batch_of(), 0.0)
    assert re.fullmatch(r"The `\w+` of .* must .*; got .*", str(error.value))


def test_value_can_be_hashed_compared_and_pickled(kind):
    assert pickle.loads(pickle.dumps(kind)) == kind
    assert hash(kind) == hash(pickle.loads(pickle.dumps(kind)))


@pytest.mark.parametrize("kind", [Flip(), Mixup(each="batch")], ids=str)
def test_old_style_keys_work_too(kind):
    result = compose((kind,), CLASSES)(jax.random.PRNGKey(0), batch_of(), jnp.float32(0))
    np.testing.assert_allclose(result["image"], apply(kind, batch_of())["image"], atol=1e-4)
